"""The life of one slot: every transition of an update stands in the table at the end of this file.

Owns which state follows which event, and what is to be done next, as values. It leaves saving, downloading, testing,
loading and reporting to the shell (`shoal_agent.updating.transaction`), which saves the new state before it carries out
the effects, so that a crash at any point replays safely.

Invariants: an illegal event raises and changes nothing. `active` changes in four transitions only: the switch
(ACTIVATING), the way back (to ROLLING_BACK), the loss of damaged files, and the signed wish that the slot be empty. A
bundle in `bad` is never started on again until the assignment's attempt grows. `previous` is only ever a bundle that
passed its trial here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

import msgspec
from msgspec.structs import replace

from shoal_agent.domain.slot import (
    Barred,
    Begun,
    Booted,
    Check,
    Cleared,
    Damaged,
    Deferred,
    Due,
    Failed,
    Fetch,
    Fetched,
    Install,
    Installed,
    Load,
    Loaded,
    Measured,
    Passed,
    Pause,
    Postponed,
    Prepare,
    Proved,
    Record,
    Recorded,
    Refused,
    SelfTest,
    Slot,
    SlotEffect,
    SlotEvent,
    SlotFault,
    SlotState,
    Stopped,
    Target,
    Wait,
    Wanted,
)
from shoal_agent.domain.trial import Trial
from shoal_agent.errors import IllegalEventError

MAX_INTERRUPTIONS = 3
"""Restarts of the agent that a self-test or activation may be cut off by, before the bundle is held to be the cause."""

MAX_FAULTS = 32
"""Faults remembered for each slot."""

Outcome: TypeAlias = tuple[Slot, tuple[SlotEffect, ...]]


def _consider(slot: Slot, target: Target | None) -> Outcome:
    """Start on a target, unless it runs already or failed here for good; a target without a digest empties the slot."""
    slot = replace(slot, target=target, pending=None, failing=None, tries=0, interruptions=0)
    fault = slot.fault
    if target is None or target.digest == slot.active or (fault is not None and fault.attempt >= target.attempt):
        return replace(slot, state=SlotState.TRIAL if slot.trial else SlotState.IDLE), ()
    if target.digest is None:
        empty = replace(slot, active=None, previous=None, fallback=None, proven=None, trial=None)
        return replace(empty, state=SlotState.IDLE), (Install(None),)
    bad = {digest: known for digest, known in slot.bad.items() if digest != target.digest}
    return replace(slot, state=SlotState.ASSIGNED, bad=bad), (Check(target),)


def _wanted(slot: Slot, event: Wanted) -> Outcome:
    return _consider(slot, event.target)


def _wanted_anew(slot: Slot, event: Wanted) -> Outcome:
    """Before the switch a newer assignment cancels the transaction; what was fetched stays."""
    if event.target.digest == _target(slot).digest:
        return replace(slot, target=event.target), ()
    return _consider(slot, event.target)


def _wanted_later(slot: Slot, event: Wanted) -> Outcome:
    return replace(slot, pending=None if event.target == slot.target else event.target), ()


def _cleared(slot: Slot, _event: Cleared) -> Outcome:
    return replace(slot, state=SlotState.DOWNLOADING, tries=0), (Fetch(_target(slot)),)


def _fetched(slot: Slot, _event: Fetched) -> Outcome:
    return replace(slot, state=SlotState.VERIFIED, tries=0), (Prepare(),)


def _begun(slot: Slot, _event: Begun) -> Outcome:
    return replace(slot, state=SlotState.PREFLIGHT), (SelfTest(_digest(slot)),)


def _passed(slot: Slot, _event: Passed) -> Outcome:
    return replace(slot, state=SlotState.ACTIVATING, tries=0), (Load(_digest(slot)),)


def _loaded(slot: Slot, event: Loaded) -> Outcome:
    """Switch: one save makes the target active, on trial, and keeps the proven bundle to go back to."""
    target, digest = _target(slot), _digest(slot)
    kept = slot.active if slot.trial is None else slot.previous
    switched = replace(
        slot,
        state=SlotState.TRIAL,
        active=digest,
        previous=kept if kept != digest else None,
        trial=Trial(left=event.starts),
        tries=0,
        interruptions=0,
    )
    effects = (Install(digest), Record("activated", digest, target.attempt))
    if slot.pending is None:
        return switched, effects
    considered, more = _consider(switched, slot.pending)
    return considered, effects + more


def _refused(slot: Slot, event: Refused) -> Outcome:
    fault = SlotFault(event.code, event.message, _digest(slot), _target(slot).attempt)
    return _ended(replace(slot, state=SlotState.REJECTED, bad=_with(slot.bad, fault)))


def _postponed(slot: Slot, event: Postponed) -> Outcome:
    return replace(slot, tries=slot.tries + 1), (Wait(slot.tries + 1, event.costly),)


def _deferred(slot: Slot, event: Deferred) -> Outcome:
    return slot, (Pause(event.after_s),)


def _activation_deferred(slot: Slot, event: Deferred) -> Outcome:
    """Between self-test and switch the leave was withdrawn: the test is repeated once it is given again."""
    return replace(slot, state=SlotState.VERIFIED), (Pause(event.after_s),)


def _test_postponed(slot: Slot, event: Postponed) -> Outcome:
    waiting, effects = _postponed(slot, event)
    return replace(waiting, state=SlotState.VERIFIED), effects


def _due(slot: Slot, _event: Due) -> Outcome:
    return slot, _work(slot)


def _measured(slot: Slot, event: Measured) -> Outcome:
    return replace(slot, trial=event.trial), ()


def _proved(slot: Slot, _event: Proved) -> Outcome:
    fallback = slot.fallback or slot.active
    return _ended(replace(slot, state=SlotState.COMMITTED, proven=slot.active, trial=None, fallback=fallback))


def _failed(slot: Slot, event: Failed) -> Outcome:
    """Go back: one save marks the active bundle bad and makes the previous one active."""
    if slot.active is None:
        raise IllegalEventError(f"the slot is {slot.state.value} and has no active bundle that could fail")
    attempt = slot.target.attempt if slot.target and slot.target.digest == slot.active else 0
    bad = _with(slot.bad, SlotFault(event.code, event.message, slot.active, attempt))
    other = next((d for d in (slot.previous, slot.fallback) if d is not None and d not in bad), None)
    back = replace(
        slot,
        state=SlotState.ROLLING_BACK,
        active=other,
        previous=None,
        fallback=slot.fallback if slot.fallback not in bad else None,
        proven=other,
        trial=None,
        failing=slot.active,
        bad=bad,
    )
    return back, (Install(other),)


def _installed(slot: Slot, _event: Installed) -> Outcome:
    return _ended(replace(slot, state=SlotState.ROLLED_BACK))


def _recorded(slot: Slot, _event: Recorded) -> Outcome:
    return _consider(slot, slot.pending or slot.target)


def _booted(slot: Slot, _event: Booted) -> Outcome:
    """Resume after a restart; the model on trial loses one start first."""
    if slot.trial is not None and slot.trial.left <= 0:
        return _failed(slot, Failed("crash_loop", "the agent did not survive the starts that a trial allows"))
    if slot.trial is not None:
        slot = replace(slot, trial=slot.trial.started())
    if slot.state in _TESTING:
        slot = replace(slot, interruptions=slot.interruptions + 1)
        if slot.interruptions >= MAX_INTERRUPTIONS:
            return _refused(
                slot, Refused("interrupted", f"the agent was cut off {slot.interruptions} times testing it")
            )
    resumed = replace(slot, state=RESUME[slot.state])
    return resumed, _work(resumed)


def _stopped(slot: Slot, _event: Stopped) -> Outcome:
    """Give the start back, and let no orderly stop count as an interruption."""
    if slot.trial is not None:
        slot = replace(slot, trial=slot.trial.stopped())
    return replace(slot, state=SlotState.VERIFIED if slot.state in _TESTING else slot.state), ()


def _damaged(slot: Slot, event: Damaged) -> Outcome:
    """Drop a bundle whose files are lost; a target that was lost is fetched again."""
    lost = event.digest
    previous, fallback = (None if digest == lost else digest for digest in (slot.previous, slot.fallback))
    kept = replace(slot, previous=previous, fallback=fallback)
    effects: tuple[SlotEffect, ...] = ()
    if slot.active == lost:
        active = previous or fallback
        kept = replace(kept, active=active, previous=None, proven=active, trial=None)
        effects = (Install(active),)
    if kept.state in _ENDED:
        return kept, effects
    if slot.target is not None and slot.target.digest == lost:
        considered, more = _consider(kept, slot.target)
        return considered, effects + more
    return replace(kept, state=SlotState.IDLE) if kept.state is SlotState.TRIAL and not kept.trial else kept, effects


def _barred(slot: Slot, event: Barred) -> Outcome:
    previous, fallback = (None if digest in event.digests else digest for digest in (slot.previous, slot.fallback))
    return replace(slot, previous=previous, fallback=fallback), ()


def _target(slot: Slot) -> Target:
    if slot.target is None:
        raise IllegalEventError(f"the slot is {slot.state.value} without a target")
    return slot.target


def _digest(slot: Slot) -> str:
    digest = _target(slot).digest
    if digest is None:
        raise IllegalEventError(f"the slot is {slot.state.value} although it is to be empty")
    return digest


def _with(bad: Mapping[str, SlotFault], fault: SlotFault) -> dict[str, SlotFault]:
    """Return the faults with one more; of a long history the newest are kept."""
    others = [(digest, known) for digest, known in bad.items() if digest != fault.digest]
    return dict([*others[1 - MAX_FAULTS :], (fault.digest, fault)])


def _ended(slot: Slot) -> Outcome:
    """Return the record of a transaction's end; the same again after a restart."""
    concerned = {SlotState.COMMITTED: slot.active, SlotState.ROLLED_BACK: slot.failing}.get(slot.state)
    digest = concerned or _digest(slot)
    attempt = slot.target.attempt if slot.target is not None and slot.target.digest == digest else 0
    return slot, (Record(slot.state.value, digest, attempt, slot.bad.get(digest)),)


def _work(slot: Slot) -> tuple[SlotEffect, ...]:
    """Return what is to be done in a state; the same after a restart or a wait."""
    match slot.state:
        case SlotState.ASSIGNED:
            return (Check(_target(slot)),)
        case SlotState.DOWNLOADING:
            return (Fetch(_target(slot)),)
        case SlotState.VERIFIED:
            return (Prepare(),)
        case SlotState.ACTIVATING:
            return (Load(_digest(slot)),)
        case SlotState.TRIAL if slot.target is not None and slot.target.digest == slot.active:
            return (Record("activated", _digest(slot), _target(slot).attempt),)
        case SlotState.ROLLING_BACK:
            return (Install(slot.active),)
        case SlotState.COMMITTED | SlotState.REJECTED | SlotState.ROLLED_BACK:
            return _ended(slot)[1]
    return ()


# The table ------------------------------------------------------------------------------------------------------

_S = SlotState
_UNDER_WAY = frozenset({_S.ASSIGNED, _S.DOWNLOADING, _S.VERIFIED, _S.PREFLIGHT, _S.ACTIVATING})
_ENDED = frozenset({_S.COMMITTED, _S.REJECTED, _S.ROLLING_BACK, _S.ROLLED_BACK})
_TESTING = frozenset({_S.PREFLIGHT, _S.ACTIVATING})
_AT_REST = frozenset({_S.IDLE, _S.TRIAL})
_STARTED = _AT_REST | {_S.ASSIGNED}


class Rule(msgspec.Struct, frozen=True):
    """One row of the table: what an event does, and where it can lead."""

    to: frozenset[SlotState]
    handle: Callable[[Slot, Any], Outcome]


def _rule(handle: Callable[[Slot, Any], Outcome], *to: SlotState) -> Rule:
    return Rule(frozenset(to), handle)


RESUME: Mapping[SlotState, SlotState] = {
    _S.IDLE: _S.IDLE,
    _S.ASSIGNED: _S.ASSIGNED,
    _S.DOWNLOADING: _S.ASSIGNED,  # what may run can have changed meanwhile; files already stored are not fetched again
    _S.VERIFIED: _S.VERIFIED,
    _S.PREFLIGHT: _S.VERIFIED,
    _S.ACTIVATING: _S.VERIFIED,
    _S.TRIAL: _S.TRIAL,
    _S.COMMITTED: _S.COMMITTED,
    _S.REJECTED: _S.REJECTED,
    _S.ROLLING_BACK: _S.ROLLING_BACK,
    _S.ROLLED_BACK: _S.ROLLED_BACK,
}
"""Where a restart resumes; a trial without starts left, or a test cut off too often, ends instead."""

TRANSITIONS: Mapping[tuple[SlotState, type[Any]], Rule] = {
    **{(state, Barred): _rule(_barred, state) for state in _S},
    (_S.IDLE, Wanted): _rule(_wanted, *_STARTED),
    (_S.ASSIGNED, Cleared): _rule(_cleared, _S.DOWNLOADING),
    (_S.ASSIGNED, Refused): _rule(_refused, _S.REJECTED),
    (_S.ASSIGNED, Postponed): _rule(_postponed, _S.ASSIGNED),
    (_S.ASSIGNED, Due): _rule(_due, _S.ASSIGNED),
    (_S.DOWNLOADING, Fetched): _rule(_fetched, _S.VERIFIED),
    (_S.DOWNLOADING, Refused): _rule(_refused, _S.REJECTED),
    (_S.DOWNLOADING, Postponed): _rule(_postponed, _S.DOWNLOADING),
    (_S.DOWNLOADING, Deferred): _rule(_deferred, _S.DOWNLOADING),
    (_S.DOWNLOADING, Due): _rule(_due, _S.DOWNLOADING),
    (_S.VERIFIED, Begun): _rule(_begun, _S.PREFLIGHT),
    (_S.VERIFIED, Postponed): _rule(_postponed, _S.VERIFIED),
    (_S.VERIFIED, Deferred): _rule(_deferred, _S.VERIFIED),
    (_S.VERIFIED, Due): _rule(_due, _S.VERIFIED),
    (_S.PREFLIGHT, Passed): _rule(_passed, _S.ACTIVATING),
    (_S.PREFLIGHT, Refused): _rule(_refused, _S.REJECTED),
    (_S.PREFLIGHT, Postponed): _rule(_test_postponed, _S.VERIFIED),
    (_S.ACTIVATING, Loaded): _rule(_loaded, _S.TRIAL, _S.ASSIGNED),
    (_S.ACTIVATING, Refused): _rule(_refused, _S.REJECTED),
    (_S.ACTIVATING, Postponed): _rule(_postponed, _S.ACTIVATING),
    (_S.ACTIVATING, Deferred): _rule(_activation_deferred, _S.VERIFIED),
    (_S.ACTIVATING, Due): _rule(_due, _S.ACTIVATING),
    (_S.TRIAL, Wanted): _rule(_wanted, *_STARTED),
    (_S.TRIAL, Measured): _rule(_measured, _S.TRIAL),
    (_S.TRIAL, Proved): _rule(_proved, _S.COMMITTED),
    (_S.COMMITTED, Recorded): _rule(_recorded, *_STARTED),
    (_S.REJECTED, Recorded): _rule(_recorded, *_STARTED),
    (_S.ROLLING_BACK, Installed): _rule(_installed, _S.ROLLED_BACK),
    (_S.ROLLED_BACK, Recorded): _rule(_recorded, *_STARTED),
    **{(state, Wanted): _rule(_wanted_anew, *_STARTED, state) for state in _UNDER_WAY - {_S.ACTIVATING}},
    **{(state, Wanted): _rule(_wanted_later, state) for state in _ENDED | {_S.ACTIVATING}},
    **{(state, Booted): _rule(_booted, RESUME[state], _S.ROLLING_BACK) for state in _S},
    **{(state, Booted): _rule(_booted, _S.VERIFIED, _S.REJECTED, _S.ROLLING_BACK) for state in _TESTING},
    **{(state, Stopped): _rule(_stopped, _S.VERIFIED if state in _TESTING else state) for state in _S},
    **{(state, Failed): _rule(_failed, _S.ROLLING_BACK) for state in _S},
    **{(state, Damaged): _rule(_damaged, state) for state in _ENDED},
    **{(state, Damaged): _rule(_damaged, state, *_STARTED) for state in _AT_REST | _UNDER_WAY},
}


def step(slot: Slot, event: SlotEvent, now: float) -> Outcome:
    """Return the slot after an event and what is to be done, in order, once the slot is saved.

    Args:
        slot: The state so far; never changed.
        event: What happened.
        now: Seconds UTC.

    Raises:
        IllegalEventError: The table has no row for this event in this state.
    """
    rule = TRANSITIONS.get((slot.state, type(event)))
    if rule is None:
        raise IllegalEventError(
            f"a slot that is {slot.state.value} does not expect {type(event).__name__}",
            state=slot.state.value,
            event=type(event).__name__,
        )
    after, effects = rule.handle(slot, event)
    return (replace(after, since=now) if after.state is not slot.state else after), effects
