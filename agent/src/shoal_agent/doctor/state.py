"""Checks of the state folder: who may read it, whether what it holds is whole, the spool, the signed list's end."""

from __future__ import annotations

import datetime as dt
import os
import stat
from pathlib import Path
from typing import TYPE_CHECKING

from shoal_agent.doctor.findings import Finding, note, ok, skipped, wrong
from shoal_agent.errors import DamagedFileError
from shoal_agent.status import Health, health, stored_status
from shoal_protocol.errors import ContentError, ExpiredError, TrustError

if TYPE_CHECKING:
    from shoal_agent.adapters.identity import Identity
    from shoal_agent.ports import Clock

SOON_DAYS = 7.0
_AGAIN = "move identity/ away and let the device join again; its models stay"


def rights(folder: Path) -> Finding:
    """Check that nobody else may read the credentials, and that this user may use the folder."""
    loose = [
        f"{path.relative_to(folder)} is {stat.filemode(path.stat().st_mode)}"
        for path in (folder / "identity", folder / "identity/device.json", folder / "identity/key.pem")
        if path.exists() and path.stat().st_mode & 0o077
    ]
    if loose:
        return wrong(
            "rights", "; ".join(loose) + ": others can read the credentials", f"chmod -R go= {folder / 'identity'}"
        )
    owner, user = folder.stat().st_uid, os.geteuid()
    if owner != user:
        return note(
            "rights",
            f"{folder} belongs to user {owner}, this is user {user}",
            "run every command of the agent as the user whose folder it is, for example: sudo -u shoal",
        )
    return ok("rights", "only this user can read the credentials")


def integrity(folder: Path) -> Finding:
    """Check the saved state's checksum, and every file of the bundles that can become active."""
    from shoal_agent.adapters.blob_store import FolderBlobStore  # noqa: PLC0415 - only this check needs it
    from shoal_agent.adapters.state_file import StateFile  # noqa: PLC0415 - likewise

    try:
        state = StateFile(folder).load()
    except DamagedFileError as error:
        return wrong("integrity", error.message, "restart the agent: it finds out from the bundles what can run")
    if state is None:
        return ok("integrity", "nothing was ever assigned")
    store = FolderBlobStore(folder)
    wanted = {d for slot in state.slots.values() for d in (slot.active, slot.previous, slot.fallback) if d}
    stored = set(store.bundles())
    damaged = sorted(digest for digest in wanted if digest not in stored or not store.intact(digest))
    if damaged:
        return wrong(
            "integrity", f"damaged or missing: {', '.join(damaged)}", "restart the agent: it fetches them again"
        )
    return ok("integrity", f"the state, and all files of {len(wanted)} bundles, match their digests")


def spool_and_slots(folder: Path) -> list[Finding]:
    """Check what waits for the server, and whether every slot has its model; needs a joined folder."""
    status = stored_status(folder)
    spool = status["spool"]
    told = f"{spool['windows']} windows wait, {spool['bytes']} bytes, {spool['dropped']} ever dropped"
    found = [
        wrong("spool", spool["fault"], "look at the disk; meanwhile windows are kept in memory")
        if spool["fault"]
        else note("spool", told, "was the device long without the server? spool_bytes gives more room")
        if spool["dropped"]
        else ok("spool", told)
    ]
    state = health({**status, "spool": {**spool, "fault": None}, "clock": {"plausible": True}})
    faults = [
        f"slot {name}: {slot[key]['code']}: {slot[key]['message']}"
        for name, slot in status["slots"].items()
        for key in ("error", "waiting")
        if slot[key]
    ]
    if state is Health.NO_MODEL:
        empty = [name for name, slot in status["slots"].items() if slot["active"] is None]
        told = f"no model in {', '.join(empty)}" if empty else "nothing is assigned to this device yet"
        return [*found, note("slots", "; ".join([told, *faults]), "see `shoal-agent status`, and the rollouts")]
    if state is Health.DEGRADED:
        return [*found, note("slots", "; ".join(faults) or "an assignment was refused", "see `shoal-agent status`")]
    return [*found, ok("slots", f"{len(status['slots'])} with the wanted model")]


def signed_list(folder: Path, identity: Identity, clock: Clock) -> Finding:
    """Check until when the newest verified list of releases lets anything new in."""
    from shoal_agent.adapters.trust_store import TrustStore  # noqa: PLC0415 - tuf and cryptography come with it

    store = TrustStore(folder / "trust", http=None, root_digest=identity.root_digest, clock=clock)
    again = "let the release key's owner sign again (see Keep release keys away); the running model is not affected"
    try:
        known = store.known()
        end_ms = store.list_ends_ms()
    except ExpiredError as error:
        return wrong("signed_list", error.message, again)
    except (TrustError, ContentError) as error:
        return wrong("signed_list", error.message, _AGAIN)
    if known is None:
        return skipped("signed_list", "none came yet: it comes with the first assignment")
    left_days = (end_ms - store.now_ms()) / 86_400_000
    end = dt.datetime.fromtimestamp(end_ms / 1000, tz=dt.UTC).strftime("%Y-%m-%d %H:%M UTC")
    told = f"version {known.version}, valid until {end}"
    return note("signed_list", told, again) if left_days < SOON_DAYS else ok("signed_list", told)
