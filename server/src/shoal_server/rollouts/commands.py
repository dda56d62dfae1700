"""What a person may want of a rollout, and what follows at once.

Owns the verbs of operators: `command(rollout, verb, …) -> (rollout, effects)`, pure. Leaves everything that takes time
to `controller`, and permission to the routes.

Invariants: asking twice does no harm; a verb that is not possible now changes nothing and says what is possible.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from types import MappingProxyType
from typing import TypeAlias

from shoal_server.errors import ConflictError
from shoal_server.rollouts.effects import Deny, Effect, Notify, Record
from shoal_server.rollouts.machine import ALREADY, Event, RolloutState, StageEvent, StageState
from shoal_server.rollouts.rollout import Rollout, opening


class Verb(StrEnum):
    """What can be asked for; the words of `shoalctl rollout` and of the HTTP API."""

    APPROVE = "approve"
    CANCEL = "cancel"
    PAUSE = "pause"
    RESUME = "resume"
    PROMOTE = "promote"
    ABORT = "abort"
    RETRY = "retry"
    UNDO = "undo"


@dataclass(frozen=True, kw_only=True)
class Wish:
    """One request of a person.

    Attributes:
        verb: What.
        actor: Who, as the audit names people.
        reason: Why; may be empty.
        leave: For `abort`: end the rollout and leave the bundle where it is.
    """

    verb: Verb
    actor: str
    reason: str = ""
    leave: bool = False


def command(rollout: Rollout, wish: Wish, now: float) -> tuple[Rollout, list[Effect]]:
    """Carry out a person's wish.

    Args:
        rollout: As it was saved last.
        wish: Who wants what, and why.
        now: Seconds since the epoch, UTC.

    Returns:
        The rollout to save and the effects to carry out, in the same transaction; the same rollout and no effects when
        the wish is fulfilled already.

    Raises:
        IllegalEventError: The state's table has no such transition.
        ConflictError: The state fits, but there is nothing that the verb could act on.
    """
    event = _event(rollout, wish)
    if rollout.state in ALREADY.get(event, ()):
        return rollout, []
    after, effects = _ACTS[event](rollout, wish, now)
    number = rollout.current
    record = Record(
        action=f"rollout.{wish.verb}",
        reason=wish.reason,
        actor=wish.actor,
        stage=None if number is None or rollout.state is not RolloutState.RUNNING else number + 1,
        before={"state": rollout.state},
        after={"state": after.state, "reason": wish.reason, "leave": wish.leave},
    )
    return after, [record, *effects]


_Result: TypeAlias = tuple[Rollout, list[Effect]]


def _event(rollout: Rollout, wish: Wish) -> Event:
    if wish.verb is not Verb.ABORT:
        return Event(wish.verb.value)
    if rollout.state in (RolloutState.AWAITING_APPROVAL, RolloutState.SCHEDULED, RolloutState.CANCELLED):
        return Event.CANCEL  # nothing has happened yet, so nothing is to be taken back
    return Event.LEAVE if wish.leave else Event.ABORT


def _said(wish: Wish) -> str:
    return f"{wish.verb} by {wish.actor}" + (f": {wish.reason}" if wish.reason else "")


def _pause(rollout: Rollout, wish: Wish, _now: float) -> _Result:
    return rollout.after(Event.PAUSE, reason=_said(wish)), []


def _approve(rollout: Rollout, wish: Wish, now: float) -> _Result:
    after = rollout.after(Event.APPROVE, reason=_said(wish))
    if rollout.state is not RolloutState.RUNNING:
        return after, []
    number = rollout.current
    if number is None or rollout.stages[number].state is not StageState.AWAITING_APPROVAL:
        raise ConflictError(f"nothing of the rollout {rollout.name} waits for approval now")
    stage = rollout.stages[number].after(StageEvent.OPEN, reason=_said(wish), **opening(rollout, now))
    return replace(after.with_stage(number, stage), reason=""), []


def _resume(rollout: Rollout, wish: Wish, now: float) -> _Result:
    return rollout.after(Event.RESUME, reason=_said(wish)).reopened(now), []


def _promote(rollout: Rollout, _wish: Wish, now: float) -> _Result:
    after = rollout.after(Event.PROMOTE)
    number = rollout.current
    if number is None or rollout.stages[number].state is not StageState.SOAKING:
        raise ConflictError(
            f"no stage of the rollout {rollout.name} is soaking now",
            hint="promote ends a soak early; a stage that is rolling ends when its devices have an outcome",
        )
    return after.with_stage(number, replace(rollout.stages[number], soak_until=now)), []


def _retry(rollout: Rollout, wish: Wish, now: float) -> _Result:
    after = rollout.after(Event.RETRY, retry_wanted=True)
    if rollout.state is RolloutState.COMPLETED:
        return after, []
    return replace(after.reopened(now), reason=_said(wish)), []


def _end(rollout: Rollout, wish: Wish, now: float) -> _Result:
    return rollout.after(_event(rollout, wish), reason=_said(wish), ended_at=now), []


def _roll_back(rollout: Rollout, wish: Wish, _now: float) -> _Result:
    after = rollout.after(Event(wish.verb.value), reason=_said(wish))
    deny = Deny(digest=rollout.digest, reason=f"rollout {rollout.name}: {after.reason}")
    alert = Notify(
        kind="rollout.rolling_back",
        severity="warning",
        title=f"Rollout {rollout.name} is being rolled back",
        body=f"{after.reason} (slot {rollout.slot}, bundle {rollout.bundle_name})",
    )
    return after, [deny, alert]


_ACTS: Mapping[Event, Callable[[Rollout, Wish, float], _Result]] = MappingProxyType(
    {
        Event.APPROVE: _approve,
        Event.PAUSE: _pause,
        Event.RESUME: _resume,
        Event.PROMOTE: _promote,
        Event.RETRY: _retry,
        Event.CANCEL: _end,
        Event.LEAVE: _end,
        Event.ABORT: _roll_back,
        Event.UNDO: _roll_back,
    }
)
