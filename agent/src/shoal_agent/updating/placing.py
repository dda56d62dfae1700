"""Letting models answer: loading one beside the active one, installing it, and making room where two don't fit.

Owns what a failure to load says about a bundle: damaged files are fetched again, a model that can't be loaded is
refused or left. Answers with events; knows no states of slots.
"""

from __future__ import annotations

import logging
from collections.abc import Collection
from typing import TYPE_CHECKING

from shoal_agent.domain.slot import MEMORY_SHORT, Damaged, Failed, Loaded, Postponed, Refused, SlotEvent
from shoal_agent.errors import tells_of_damage
from shoal_agent.ports import BlobStore
from shoal_agent.updating.bundle_names import shown_stored
from shoal_agent.updating.model_host import ModelHost
from shoal_agent.updating.room import Room
from shoal_protocol.errors import DigestMismatchError, ShoalError

if TYPE_CHECKING:
    from shoal_agent.runtime.model import LoadedModel

MAX_LOOKS = 3
"""So often files that can't be loaded, but look intact, are loaded again before the bundle counts as damaged."""

_log = logging.getLogger(__name__)


class Placing:
    """Brings models into the slots of one device.

    Args:
        host: Loads and installs models.
        store: Where their files are.
        starts: Starts that a trial allows.
    """

    def __init__(self, host: ModelHost, store: BlobStore, *, starts: int) -> None:
        self._host = host
        self._store = store
        self._starts = starts
        self._room = Room(host)
        self._loaded: dict[str, LoadedModel] = {}

    def make_room(self, name: str) -> None:
        """End the slot's model, where the device can't hold another beside it."""
        self._room.make(name)

    def owed(self, needed: Collection[str]) -> list[str]:
        """Return, once, the slots whose model made room and has to answer again.

        Args:
            needed: Slots that still need the room.
        """
        return self._room.owed(needed)

    def drop(self, name: str) -> None:
        """Forget a model that was loaded and not installed."""
        self._loaded.pop(name, None)

    def load(self, name: str, digest: str, *, looks: int) -> SlotEvent:
        """Load a bundle beside the active one, ready to be installed.

        Args:
            name: Of the slot.
            digest: Of the bundle.
            looks: How often its files looked intact in a row, and yet could not be loaded.
        """
        self._room.make(name)
        try:
            self._loaded[name] = self._host.load(digest)
        except DigestMismatchError as error:
            return self._damage(name, digest, error, looks=looks)
        except ShoalError as error:
            return Refused(error.code, error.message)
        except MemoryError:  # its self-test found room for it, so this machine is short of memory now
            return Postponed(MEMORY_SHORT, "there is not enough memory now to load the model", costly=True)
        return Loaded(starts=self._starts)

    def install(self, name: str, digest: str | None, *, looks: int, on_trial: bool) -> SlotEvent | None:
        """Let a bundle answer, or nobody; returns what is wrong with it, and nothing when all is well.

        Args:
            name: Of the slot.
            digest: Of the bundle; none: nobody is to answer.
            looks: As for `load`.
            on_trial: Whether it is on probation: then the model before it may need less memory, else it is waited for.

        Raises:
            OSError: This machine failed, not the bundle's files: no descriptor or no memory just now.
        """
        model = self._loaded.pop(name, None)
        if digest is None:
            self._host.remove(name)
        else:
            try:
                if model is None or model.digest != digest:
                    self._room.make(name)
                    model = self._host.load(digest)
                self._host.install(name, model)
            except (DigestMismatchError, OSError) as error:
                if isinstance(error, OSError) and not tells_of_damage(error):
                    raise
                return self._damage(name, digest, error, looks=looks)
            except MemoryError:
                what = "there is not enough memory now to load the model"
                return Failed("over_budget", what) if on_trial else Postponed(MEMORY_SHORT, what)
            except ShoalError as error:
                return Failed(error.code, str(error))
        self._room.filled(name)
        return None

    def _damage(self, name: str, digest: str, error: Exception, *, looks: int) -> Postponed | Damaged:
        """Put damaged files of a bundle away, so that they count as missing and are fetched again.

        Where a second look finds nothing wrong it is loaded again, a few times.
        """
        _log.error("slot %s: the files of %s look damaged: %s", name, shown_stored(self._store, digest), error)
        if self._store.intact(digest) and looks < MAX_LOOKS:
            return Postponed("disk", f"its files could not be read: {error}")
        return Damaged(digest)
