"""The device's state while the agent runs, in memory and on the disk.

Owns saving it, and what is known of a disk that takes no state: the next save may succeed where this one failed, and
until then a restart would go back to the last saved state. Leaves to the transactions what must not happen meanwhile.
"""

from __future__ import annotations

import logging

from shoal_agent.domain.device import DeviceState
from shoal_agent.domain.slot import Slot, SlotEffect, SlotEvent
from shoal_agent.domain.slot_machine import step
from shoal_agent.ports import Clock, StateFile

_log = logging.getLogger(__name__)


class Ledger:
    """What is remembered of a device; used by one thread.

    Args:
        state_file: Where it is saved.
        clock: Seconds UTC.

    Attributes:
        state: As it is now; saved by `save`.
        unsaved: Why the last save failed; empty: it did not.
    """

    def __init__(self, state_file: StateFile, clock: Clock) -> None:
        self._state_file = state_file
        self._clock = clock
        self.state = DeviceState()
        self.unsaved = ""

    def slot(self, name: str) -> Slot:
        """Return a slot; one that was never heard of is empty."""
        return self.state.slots.get(name, Slot())

    def apply(self, name: str, event: SlotEvent) -> tuple[SlotEffect, ...]:
        """Take one event into the state in memory; returns what is to be done once it is saved.

        Raises:
            IllegalEventError: The slot does not expect it.
        """
        slot, effects = step(self.slot(name), event, self._clock())
        self.state = self.state.with_slot(name, slot)
        return effects

    def save(self) -> bool:
        """Save the state, and return whether that worked."""
        try:
            self._state_file.save(self.state)
        except OSError as error:
            if str(error) != self.unsaved:
                _log.error("the state can't be saved, a restart now would go back to the last saved one: %s", error)
            self.unsaved = str(error)
            return False
        if self.unsaved:
            _log.warning("the state can be saved again")
            self.unsaved = ""
        return True

    def change(self, state: DeviceState) -> bool:
        """Save another state and make it the device's; returns whether that worked, else nothing is changed."""
        before, self.state = self.state, state
        if not self.save():
            self.state = before
            return False
        return True
