"""The active model of a state folder, opened by another process than the agent: for ``shoal-agent predict``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from shoal_agent.adapters.blob_store import FolderBlobStore
from shoal_agent.adapters.identity import IdentityFolder
from shoal_agent.adapters.state_file import StateFile
from shoal_agent.domain.device import DeviceState
from shoal_agent.errors import NoModelError, SettingsError
from shoal_agent.machine import known_facts
from shoal_agent.settings import load_settings
from shoal_agent.updating.model_host import load_stored

if TYPE_CHECKING:
    from shoal_agent.runtime.model import LoadedModel


def chosen_slot(state: DeviceState, slot: str | None) -> str:
    """Return the slot that is meant.

    Raises:
        SettingsError: Several slots, or none of that name.
        NoModelError: The device has no slot at all.
    """
    known = ", ".join(sorted(state.slots))
    if slot is None and not state.slots:
        raise NoModelError("nothing is assigned to this device yet", hint="see `shoal-agent status`")
    if slot is None and len(state.slots) > 1:
        raise SettingsError(f"this device has {len(state.slots)} slots", hint=f"choose by --slot: {known}")
    if slot is not None and slot not in state.slots:
        raise SettingsError(f"there is no slot {slot!r}", hint=f"slots are: {known or 'none yet'}")
    return slot or next(iter(state.slots))


def stored_state(folder: Path) -> DeviceState:
    """Return what a state folder remembers.

    Raises:
        NotEnrolledError: The folder belongs to no device.
        DamagedFileError: Nothing intact is left of it.
    """
    IdentityFolder(folder / "identity").load()
    return StateFile(folder).load() or DeviceState()


def open_active(folder: Path, slot: str | None) -> LoadedModel:
    """Load the model that is active in a slot, whether or not an agent runs on the folder.

    Raises:
        NoModelError: The slot has no model.
        ShoalError: It can't be loaded.
    """
    state = stored_state(folder)
    name = chosen_slot(state, slot)
    digest = state.slots[name].active
    if digest is None:
        raise NoModelError(f"slot {name!r} has no model", hint="see `shoal-agent status`", slot=name)
    settings = load_settings(state=folder)
    return load_stored(FolderBlobStore(folder), digest, facts=known_facts(settings), threads=settings.threads)
