"""What goes beside a slot's model: who may send raw rows and until when, and what is counted beyond the bundle.

What the newest signed assignment says, and nothing else.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec.structs import replace

from shoal_agent.domain.slot import SamplingWish, Slot

if TYPE_CHECKING:
    from shoal_agent.domain.device import DeviceState
    from shoal_protocol.trust.assignment import Assignment


def accepted(state: DeviceState, assignment: Assignment) -> DeviceState:
    """Return the state with number and permissions of a new assignment; a slot that it does not name has none."""
    state = replace(state, generation=assignment.generation, content_hash=assignment.content_digest)
    for name in {**state.slots, **assignment.slots}:
        target = assignment.slots.get(name)
        given = None if target is None else target.sampling
        wish = None if given is None or not 0 < given.share <= 1 else SamplingWish(given.share, given.until)
        slot = state.slots.get(name, Slot())
        counting = None if target is None else target.counting
        if (slot.sampling, slot.counting) != (wish, counting):
            state = state.with_slot(name, replace(slot, sampling=wish, counting=counting))
    return state
