"""The worker that carries rollouts on: one short transaction a rollout and tick.

Owns reading, deciding, and writing in that order. The decision is tried on a snapshot first, with the evidence measured
there, and a write transaction is opened only when something would change; in it, rollout and facts are read again under
the row's lock, and nothing is done when somebody else has saved the rollout meanwhile. So any number of runners may
tick, and one that was stopped in between and goes on does no harm.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace
from typing import TypeAlias

from sqlmodel import Session

from shoal_server.rollouts import store
from shoal_server.rollouts.carry_out import Circumstances, carry_out
from shoal_server.rollouts.control import Question, question
from shoal_server.rollouts.controller import step
from shoal_server.rollouts.facts import gather
from shoal_server.rollouts.gates import Evidence
from shoal_server.rollouts.machine import RolloutState
from shoal_server.rollouts.outcomes import Facts
from shoal_server.rollouts.plan import Gates
from shoal_server.rollouts.rollout import Rollout
from shoal_server.signals import Signals
from shoal_server.storage.database import Clock, Database, lock_for_transaction

STANDING_S = 5.0
"""How often completed rollouts look for devices that entered their cohort."""

Measure: TypeAlias = Callable[[Session, Question, Gates, float], Evidence]
"""(session, question, gates of the plan, now) -> what the telemetry says."""

_log = logging.getLogger(__name__)
_MOVING = (RolloutState.SCHEDULED, RolloutState.RUNNING, RolloutState.ROLLING_BACK)


class Runner:
    """One worker; `tick` is called in a loop.

    Args:
        database: With the rollouts and the fleet.
        measure: Answers the gates' questions from the telemetry.
        signals: Told `rollouts` when one has changed, `desired` when there is something to publish. A loop that is
            woken by `rollouts` carries a rollout on until nothing changes before it rests.
        clock: Seconds since the epoch.
        standing_s: Seconds between two looks of completed rollouts.
    """

    def __init__(
        self,
        *,
        database: Database,
        measure: Measure,
        signals: Signals,
        clock: Clock,
        standing_s: float = STANDING_S,
    ) -> None:
        self._database = database
        self._measure = measure
        self._signals = signals
        self._clock = clock
        self._standing_s = standing_s
        self._stood_at: float | None = None

    def tick(self) -> int:
        """Carry every rollout one step on; returns how many have changed.

        A rollout that fails with an exception is logged and does not keep the others waiting.
        """
        now = self._clock()
        states = list(_MOVING)
        if self._stood_at is None or not 0 <= now - self._stood_at < self._standing_s:
            self._stood_at = now
            states.append(RolloutState.COMPLETED)
        with self._database.read() as session:
            names = store.names(session, states)
        changed = 0
        for name in names:
            try:
                changed += self.advance(name)
            except Exception:  # noqa: BLE001 - a worker's loop: one broken rollout must not stop the others
                _log.exception("the rollout %s could not be carried on", name)
        return changed

    def advance(self, name: str) -> bool:
        """Carry one rollout one step on; tells whether it has changed."""
        now = self._clock()
        with self._database.read() as session:
            seen = store.load(session, name)
            assert seen is not None
            facts = gather(session, seen.rollout, now=now)
            evidence = self._evidence(session, seen.rollout, facts, now)
        after, effects = step(seen.rollout, replace(facts, evidence=evidence), now)
        if after == seen.rollout and not effects:
            return False
        return self._write(name, seen.revision, evidence, now)

    def _evidence(self, session: Session, rollout: Rollout, facts: Facts, now: float) -> Evidence:
        asked = question(rollout, facts) if rollout.state is RolloutState.RUNNING else None
        return Evidence() if asked is None else self._measure(session, asked, rollout.plan.gates, now)

    def _write(self, name: str, revision: int, evidence: Evidence, now: float) -> bool:
        with self._database.write() as session:
            lock_for_transaction(session, "rollouts")  # or a rollout that is just begun could take the same newcomers
            found = store.load(session, name, lock="skip")
            if found is None or found.revision != revision:
                return False
            before = found.rollout
            after, effects = step(before, gather(session, before, now=now, evidence=evidence), now)
            about = Circumstances(now=now)
            after = carry_out(session, after, effects, about)
            store.save(session, before, after)
        self._signals.bump("rollouts")
        if effects:
            self._signals.bump("desired")
        return True
