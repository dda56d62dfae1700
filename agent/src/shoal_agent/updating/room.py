"""Room for a new model on devices that can't hold two: which slots' models were ended, and have to answer again.

Owns that list; the transactions carry it out. What a slot should answer with stands in the device's state, so a restart
in between simply starts the active model.
"""

from __future__ import annotations

import logging
from collections.abc import Collection
from typing import Protocol

_log = logging.getLogger(__name__)


class RoomHost(Protocol):
    """Knows which models answer, and can end them."""

    @property
    def holds_one(self) -> bool:
        """Whether the device can't hold two models."""

    def active(self, slot: str) -> object | None:
        """Return the model that answers."""

    def remove(self, slot: str) -> None:
        """End it."""


class Room:
    """The slots of one device whose models were ended for others.

    Args:
        host: Ends them.
    """

    def __init__(self, host: RoomHost) -> None:
        self._host = host
        self._ended: set[str] = set()

    def make(self, slot: str) -> None:
        """End the slot's model, where the device can't hold another beside it."""
        if self._host.holds_one and self._host.active(slot) is not None:
            _log.info("slot %s: the active model is ended to make room for another", slot)
            self._host.remove(slot)
            self._ended.add(slot)

    def filled(self, slot: str) -> None:
        """Note that the slot answers again."""
        self._ended.discard(slot)

    def owed(self, needed: Collection[str]) -> list[str]:
        """Return, once, the slots whose model has to answer again because nothing is to come that needs the room.

        Args:
            needed: Slots for which something is.
        """
        owed = sorted(self._ended.difference(needed))
        self._ended.difference_update(owed)
        return owed
