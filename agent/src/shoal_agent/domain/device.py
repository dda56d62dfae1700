"""What is remembered about the whole device: the newest assignment taken over, and every slot."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec
from msgspec.structs import replace

from shoal_agent.domain.slot import Slot


class DeviceState(msgspec.Struct, frozen=True):
    """The content of ``state.json``.

    Attributes:
        generation: Of the newest assignment that was taken over; it only grows.
        content_hash: Of that assignment; the same generation with other content is refused.
        slots: By name.
        starts: Starts in a row, this one included, of which none has lasted (see `shoal_agent.domain.crash_loop`).
    """

    generation: int = 0
    content_hash: str = ""
    slots: Mapping[str, Slot] = msgspec.field(default_factory=dict)
    starts: int = 0

    def with_slot(self, name: str, slot: Slot) -> DeviceState:
        """Return the state with one slot replaced."""
        return replace(self, slots={**self.slots, name: slot})

    def keeps(self) -> frozenset[str]:
        """Return the digests that garbage collection must not touch."""
        return frozenset().union(*(slot.keeps() for slot in self.slots.values()))
