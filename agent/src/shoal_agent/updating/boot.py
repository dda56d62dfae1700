"""What can run after a start, whatever the disk still holds.

The order is: ``state.json``, else ``state.prev``, else a scan of the store. Every file of a bundle is hashed before it
is believed; a slot whose active bundle is damaged falls to its previous, then to its fallback, then says `no_model`.
"""

from __future__ import annotations

import logging

from msgspec.structs import replace

from shoal_agent.domain.device import DeviceState
from shoal_agent.domain.slot import Slot, SlotState
from shoal_agent.domain.trial import Trial, TrialRules
from shoal_agent.errors import DamagedFileError
from shoal_agent.ports import BlobStore, StateFile
from shoal_agent.updating.bundle_names import shown_stored
from shoal_protocol.bundle.layout import BUNDLE_JSON
from shoal_protocol.bundle.schema import parse_bundle_info
from shoal_protocol.errors import ContentError

_log = logging.getLogger(__name__)


def runnable_state(state_file: StateFile, store: BlobStore) -> tuple[DeviceState, list[tuple[str, str]]]:
    """Return what is remembered, and which (slot, digest) of it is damaged, in the order to report it."""
    try:
        state = state_file.load()
    except DamagedFileError as error:
        _log.error("the device's state is lost (%s); looking for its models in the store", error)
        state = None
    if state is None:  # never saved, and then the store is empty; or both files are gone
        state = scanned_state(store)
    intact: dict[str, bool] = {}
    damaged = []
    for name, slot in sorted(state.slots.items()):
        for digest in (slot.active, slot.previous, slot.fallback):
            if digest is None or (name, digest) in damaged:
                continue
            if digest not in intact:
                intact[digest] = _looks_intact(store, digest)
            if not intact[digest]:
                _log.error("slot %s: %s is damaged or missing", name, shown_stored(store, digest))
                damaged.append((name, digest))
                continue
            break  # what lies behind an intact bundle is looked at when it is needed
    return state, damaged


def _looks_intact(store: BlobStore, digest: str) -> bool:
    """Tell whether a bundle is intact; one that can't be read just now is believed, and read again at loading."""
    try:
        return store.intact(digest)
    except OSError as error:
        _log.warning("%s can't be looked at just now: %s", shown_stored(store, digest), error)
        return True


def scanned_state(store: BlobStore) -> DeviceState:
    """Rebuild a state from the bundles alone: the newest intact one of each model, in the slot named like the model.

    Nothing tells which of them ever passed a trial here, so the newest is on trial, with the next newest to go back to.
    """
    state = DeviceState()
    for digest in store.bundles():
        try:
            manifest = store.manifest(digest)
            blob = manifest.files().get(BUNDLE_JSON) if manifest is not None else None
            if blob is None or not store.intact(digest):
                continue
            name = parse_bundle_info(store.read(blob.digest)).name
        except (ContentError, OSError) as error:
            _log.error("%s can't be used: %s", shown_stored(store, digest), error)
            continue
        slot = state.slots.get(name)
        if slot is None:
            found = Slot(state=SlotState.TRIAL, active=digest, trial=Trial(left=TrialRules().starts))
            state = state.with_slot(name, found)
        elif slot.previous is None:
            state = state.with_slot(name, replace(slot, previous=digest))
    return state
