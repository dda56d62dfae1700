"""Deleting bundles that no slot needs any more.

Only while nothing is under way, and never what a restart would go back to; a disk that deletes nothing is logged and
tried again.
"""

from __future__ import annotations

import logging

from shoal_agent.domain.device import DeviceState
from shoal_agent.domain.slot import Slot, SlotState
from shoal_agent.ports import BlobStore
from shoal_agent.updating.work import Work

_RESTING = frozenset({SlotState.IDLE, SlotState.TRIAL})
_log = logging.getLogger(__name__)


class Garbage:
    """The old bundles of one device.

    Args:
        store: Where they are.
        work: Remembers what releases under way need.
    """

    def __init__(self, store: BlobStore, work: Work) -> None:
        self._store = store
        self._work = work
        self._due = True

    def changed(self, slot: Slot) -> None:
        """Note that a slot changed: once it rests again, there may be something to delete."""
        self._due = self._due or slot.state not in _RESTING

    def look_soon(self) -> None:
        """Look at the next chance."""
        self._due = True

    def collect(self, state: DeviceState) -> None:
        """Delete what no slot of a saved state needs, unless an update is under way."""
        if not self._due or any(slot.state not in _RESTING for slot in state.slots.values()):
            return
        self._work.forget()
        try:
            self._store.sweep(state.keeps())
            self._due = False
        except OSError as error:
            _log.warning("old bundles could not be deleted: %s", error)
