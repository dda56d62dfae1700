"""Carrying out what the slots ask for: each effect once after the other, and again after a wait when it failed.

Owns which part does which effect, and what its outcome means for the slot. Every effect can be done twice, because a
restart does the last one again. Leaves the steps themselves to `shoal_agent.updating.work` and
`shoal_agent.updating.placing`, and what an event changes to `shoal_agent.updating.course`.
"""

from __future__ import annotations

import logging
from functools import partial

from shoal_agent.domain.slot import (
    Begun,
    Check,
    Fetch,
    Install,
    Installed,
    Load,
    Pause,
    Postponed,
    Prepare,
    Record,
    Recorded,
    SelfTest,
    SlotEffect,
    SlotEvent,
    SlotState,
    Wait,
)
from shoal_agent.domain.slot_machine import TRANSITIONS
from shoal_agent.errors import CancelledError
from shoal_agent.ports import Cancelled
from shoal_agent.updating.agenda import is_current
from shoal_agent.updating.course import Course
from shoal_agent.updating.outcomes import Outcomes
from shoal_agent.updating.placing import Placing
from shoal_agent.updating.surroundings import Rhythm, Surroundings
from shoal_agent.updating.trial_watch import TrialWatch

_ENDED = frozenset({SlotState.COMMITTED, SlotState.REJECTED, SlotState.ROLLED_BACK})
_log = logging.getLogger(__name__)


class Execution:
    """Works off what is queued for the slots; used by one thread.

    Args:
        course: What is to be done, and who hears what came of it.
        around: What to work with.
        rhythm: Times and chance.
        placing: Lets models answer.
        outcomes: Tells the server.
        watch: Looks at models on trial.
        cancelled: Tells a long step that something newer waits, or that the agent stops.

    Attributes:
        progress: Share of each slot's download that is there.
    """

    def __init__(
        self,
        course: Course,
        around: Surroundings,
        rhythm: Rhythm,
        *,
        placing: Placing,
        outcomes: Outcomes,
        watch: TrialWatch,
        cancelled: Cancelled,
    ) -> None:
        self.progress: dict[str, float] = {}
        self._course = course
        self._around = around
        self._rhythm = rhythm
        self._placing = placing
        self._watch = watch
        self._cancelled = cancelled
        self._outcomes = outcomes

    def work_off(self) -> bool:
        """Carry out all that is queued, and what follows from it; false: something newer waits."""
        while (entry := self._course.agenda.next()) is not None:
            if self._is_current(*entry):
                self._carry_out(*entry)
            self._answer_again()
            if self._cancelled():
                return False
        return True

    def start(self, name: str) -> None:
        """At a start: let the active model answer before anything that may need the network."""
        entries = self._course.agenda.take_installs(name) or [(name, Install(self._course.ledger.slot(name).active))]
        while entries:
            for entry in entries:
                if self._is_current(*entry):
                    self._carry_out(*entry)
            entries = self._course.agenda.take_installs(name)

    def _is_current(self, name: str, effect: SlotEffect) -> bool:
        return is_current(self._course.ledger.slot(name), effect)

    def _carry_out(self, name: str, effect: SlotEffect) -> None:
        try:
            self._dispatch(name, effect)
        except CancelledError as error:
            _log.info("slot %s: %s", name, error)
            if isinstance(effect, SelfTest):
                self._course.handle(name, Postponed(error.code, error.message))
            self._course.agenda.wait(name, 0.0)
        except Exception as error:  # noqa: BLE001 - an error of ours must not leave a slot stuck for ever
            _log.exception("slot %s: %s failed", name, type(effect).__name__)
            code = "disk" if isinstance(error, OSError) else "internal"
            self._do_again(name, effect, Postponed(code, f"{type(error).__name__}: {error}"))

    def _dispatch(self, name: str, effect: SlotEffect) -> None:
        work, cancelled = self._around.work, self._cancelled
        match effect:
            case Check(target):
                self._course.handle(name, work.check(target, cancelled=cancelled))
            case Fetch(target):
                progress = partial(self._progressed, name)
                self._course.handle(name, work.fetch(target, progress=progress, cancelled=cancelled))
            case Prepare():
                self._course.handle(
                    name, self._around.leave.to_activate(name, self._course.ledger.slot(name)) or Begun()
                )
            case SelfTest(digest):
                self._placing.make_room(name)
                self._course.handle(name, work.test(digest, cancelled=cancelled))
            case Load():
                self._load(name, effect)
            case Install():
                self._install(name, effect)
            case Record():
                self._record(name, effect)
            case Wait():
                self._course.agenda.wait(name, self._rhythm.delay_s(effect))
            case Pause(seconds):
                self._course.agenda.wait(name, seconds)

    def _load(self, name: str, effect: Load) -> None:
        """Load the target, unless the leave to activate was withdrawn while it was tested."""
        deferred = self._around.leave.to_activate(name, self._course.ledger.slot(name))
        looks = self._course.agenda.failures(name)
        self._go_on(name, effect, deferred or self._placing.load(name, effect.digest, looks=looks))

    def _install(self, name: str, effect: Install) -> None:
        """Let a bundle answer; one that can't is damaged or failed, and the slot goes on to the next that may work."""
        self._watch.begins(name)
        on_trial = self._course.ledger.slot(name).trial is not None
        fault = self._placing.install(name, effect.digest, looks=self._course.agenda.failures(name), on_trial=on_trial)
        if fault is not None:
            self._go_on(name, effect, fault)
            return
        if self._course.agenda.failures(name):
            self._course.troubles.pop(name, None)
        self._course.agenda.succeeded(name)
        self._watch.began(name)
        if self._course.ledger.slot(name).state is SlotState.ROLLING_BACK:
            self._course.handle(name, Installed())
        self._course.changed()

    def _record(self, name: str, record: Record) -> None:
        slot = self._course.ledger.slot(name)
        if self._outcomes.record(name, slot, record):
            self._around.callouts.after(name, slot, record)
        if slot.state in _ENDED and slot.state.value == record.kind:
            self._course.handle(name, Recorded())

    def _go_on(self, name: str, effect: SlotEffect, event: SlotEvent) -> None:
        if isinstance(event, Postponed):
            self._do_again(name, effect, event)
        else:
            self._course.handle(name, event)

    def _do_again(self, name: str, effect: SlotEffect, fault: Postponed) -> None:
        """Do something again after a wait: by the table where it knows of one, else just so."""
        if (self._course.ledger.slot(name).state, Postponed) in TRANSITIONS and not isinstance(effect, Install):
            self._course.handle(name, fault)
            return
        failures = self._course.agenda.failed(name, effect)
        self._course.agenda.wait(name, self._rhythm.delay_s(Wait(failures)))
        self._course.trouble(name, fault)
        self._course.changed()

    def _answer_again(self) -> None:
        """Let a model that made room answer again, once nothing is queued that needs the room."""
        room = SelfTest | Load | Install
        needed = {
            name for name, one in self._course.agenda.queued() if isinstance(one, room) and self._is_current(name, one)
        }
        for name in self._placing.owed(needed):
            self._course.agenda.add(name, (Install(self._course.ledger.slot(name).active),))

    def _progressed(self, name: str, share: float) -> None:
        self.progress[name] = share
        self._course.troubles.pop(name, None)
        self._course.changed()
