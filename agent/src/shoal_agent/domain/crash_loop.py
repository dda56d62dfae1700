"""Crash loops after a trial: starts in a row of which each ended early and not in order.

Owns the count and whom to blame. A run that lasts `SETTLED_S`, or stops in order, ends the row, and another model
begins one; so five in a row are five crashes of the same models within ten minutes of running, whatever the clock of a
device without a battery says. Models on trial have their own, shorter count of starts.
"""

from __future__ import annotations

from msgspec.structs import replace

from shoal_agent.domain.device import DeviceState

CRASHES = 5
"""Runs in a row that ended early, after which a model is held to be the cause."""

SETTLED_S = 120.0
"""A run that lasted so long did not end early."""


def begun(state: DeviceState) -> DeviceState:
    """Return the state to save before anything of this start may crash."""
    return replace(state, starts=state.starts + 1)


def settled(state: DeviceState) -> DeviceState:
    """Return the state once this run has lasted, or stops in order."""
    return replace(state, starts=0)


def counted_anew(before: DeviceState, after: DeviceState) -> DeviceState:
    """Return a state after an event with only this run counted, if another model answers since in some slot.

    Crashes under other models say nothing about this one: a power supply that fails every minute would else take back
    whatever comes next.

    Args:
        before: The event.
        after: The same event.
    """
    answered = {name: slot.active for name, slot in before.slots.items()}
    changed = any(slot.active != answered.get(name) for name, slot in after.slots.items())
    return replace(after, starts=1) if changed and after.starts > 1 else after


def suspect(state: DeviceState) -> str | None:
    """Return the slot to take back when starts before this one have crashed in a row; none: go on as it is.

    Of all slots with a previous model it is the one that changed last. A slot that was taken back has no previous model
    any more, so that none is taken back twice; while a slot is on trial, its own count decides.

    Args:
        state: As saved by the last start.
    """
    if state.starts < CRASHES or any(slot.trial is not None for slot in state.slots.values()):
        return None
    able = [
        (slot.since, name)
        for name, slot in state.slots.items()
        if slot.active is not None and slot.previous is not None and slot.previous not in slot.bad
    ]
    return max(able)[1] if able else None
