"""The device's state while the agent runs, in memory and on the disk.

Owns saving it, and what is known of a disk that takes no state: the next save may succeed where this one failed, and
until then a restart would go back to the last saved state. Leaves to the transactions what must not happen meanwhile.

What is being saved is told to nobody before: other threads report what they see in `told`, and a server that heard of a
switch which a power cut then takes back would believe it.
"""

from __future__ import annotations

import logging

from shoal_agent.domain import crash_loop
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
        state: As it is now, for the thread that changes it; saved by `save`.
        told: The same for everybody else: what was saved, or goes on from memory because the disk takes nothing.
        unsaved: Why the last save failed; empty: it did not.
    """

    def __init__(self, state_file: StateFile, clock: Clock) -> None:
        self._state_file = state_file
        self._clock = clock
        self.state = self.told = DeviceState()
        self.unsaved = ""

    def slot(self, name: str) -> Slot:
        """Return a slot; one that was never heard of is empty."""
        return self.state.slots.get(name, Slot())

    def outcome(self, name: str, event: SlotEvent) -> tuple[tuple[SlotEffect, ...], DeviceState]:
        """Return what is to be done after an event, and the state that is to be saved before; changes nothing.

        Raises:
            IllegalEventError: The slot does not expect it.
        """
        slot, effects = step(self.slot(name), event, self._clock())
        return effects, crash_loop.counted_anew(self.state, self.state.with_slot(name, slot))

    def save(self) -> bool:
        """Save the state; it is the device's either way. Returns whether the disk took it."""
        return self.keep(self.state)

    def keep(self, state: DeviceState) -> bool:
        """Save another state and make it the device's, whether or not the disk takes it; returns whether it did."""
        saved = self._saves(state)
        self.state = self.told = state
        return saved

    def change(self, state: DeviceState) -> bool:
        """Save another state and make it the device's; returns whether that worked, else nothing is changed."""
        if not self._saves(state):
            return False
        self.state = self.told = state
        return True

    def _saves(self, state: DeviceState) -> bool:
        try:
            self._state_file.save(state)
        except OSError as error:
            if str(error) != self.unsaved:
                _log.error("the state can't be saved, a restart now would go back to the last saved one: %s", error)
            self.unsaved = str(error)
            return False
        if self.unsaved:
            _log.warning("the state can be saved again")
            self.unsaved = ""
        return True
