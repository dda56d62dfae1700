"""What an agent says of itself: to the program that embeds it, and to ``shoal-agent status`` in another process.

A running agent leaves what only it knows (connection, what a slot waits for) in ``status.json``; all else is read from
the state folder, so that `status` also tells the truth about an agent that is not running.
"""

from __future__ import annotations

import datetime as dt
import os
import sqlite3
import time
from collections.abc import Mapping
from enum import IntEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from shoal_agent.adapters.blob_store import FolderBlobStore
from shoal_agent.adapters.hold_file import HoldFile
from shoal_agent.adapters.identity import FolderLock, IdentityFolder
from shoal_agent.adapters.state_file import StateFile
from shoal_agent.adapters.trust_store import TrustStore
from shoal_agent.domain.device import DeviceState
from shoal_agent.domain.hold import Hold
from shoal_agent.domain.reference_time import plausible, reference_ms
from shoal_agent.domain.slot import Slot, SlotFault
from shoal_agent.errors import DamagedFileError, SpoolError
from shoal_agent.ports import LinkReport, SpoolUsage
from shoal_agent.updating.bundle_names import stored_name
from shoal_agent.updating.leave import PLANNED
from shoal_agent.updating.messages import state_word
from shoal_protocol.errors import TrustError

if TYPE_CHECKING:
    from shoal_agent.bootstrap import Assembly
    from shoal_agent.settings import Settings

SNAPSHOT = "status.json"
_LOCKED_OUT = (
    "the server takes none of this device's credentials: {device} was revoked or taken out, is not accepted yet, or "
    "another machine with a copy of this state has rotated them; look with `shoalctl device show {device}`"
)
_WINDOWS = "SELECT count(*) FROM items WHERE kind = 'profile'"


class Health(IntEnum):
    """Exit codes of ``shoal-agent status``."""

    OK = 0  # every slot answers with what is wanted
    DEGRADED = 1  # no agent runs; or it answers, but something failed, waits unplanned, or the clock is implausible
    NO_MODEL = 3  # a slot has no model, or no slot is assigned yet
    NOT_ENROLLED = 4  # the folder belongs to no device


def live_status(parts: Assembly, settings: Settings) -> dict[str, Any]:
    """Return the status of a running agent."""
    intake = parts.updater.intake
    refusal = intake.refusal if intake is not None else None
    refused = None if refusal is None else {"code": refusal.code, "message": refusal.message}
    if parts.credentials.refused:
        refused = {"code": "credentials", "message": _LOCKED_OUT.format(device=parts.identity.device)}
    slots = _slots(parts.transactions.state, parts.transactions.progress(), parts.transactions.troubles)
    for name, slot in slots.items():
        model = parts.slots.get(name)
        if model is not None and model.digest == slot["active"]:
            slot["bundle"] = f"{model.name}:{model.version}"
    for name, variant in parts.transactions.variants().items():
        slots[name]["variant"] = variant
    for name, engine in parts.engines().items():
        slots[name]["engine"] = engine
    for name, told in parts.sampling.reports().items():
        slots[name]["sampling"] = told
    for name, told in parts.counting.reports().items():
        slots[name]["counting"] = told
    for name, shadow in parts.transactions.shadows().items():
        slots[name]["shadow"] = msgspec.to_builtins(shadow)
    return {
        "device": parts.identity.device,
        "generation": parts.transactions.state.generation,
        "slots": slots,
        "spool": _usage(parts),
        "clock": _clock(parts.trust, time.time()),
        "hold": _hold(parts.transactions.hold),
        "running": True,
        "connected": parts.uplink.connected,
        "link": msgspec.to_builtins(parts.uplink.link_report()),
        "listen": settings.listen,
        "refused": refused,
    }


def stored_status(folder: Path) -> dict[str, Any]:
    """Return the status of whatever agent uses, or used, a state folder.

    Raises:
        NotEnrolledError: The folder belongs to no device.
    """
    identity = IdentityFolder(folder / "identity").load()
    try:
        state = StateFile(folder).load() or DeviceState()
    except DamagedFileError:
        state = DeviceState()
    running = FolderLock(folder).held_by_other()
    snapshot = _snapshot(folder) if running else {}
    told = snapshot.get("slots", {})
    hold = HoldFile(folder).load()
    trust = TrustStore(folder / "trust", http=None, root_digest=identity.root_digest, clock=time.time)
    slots = _slots(state, {name: told.get(name, {}).get("progress", 0.0) for name in state.slots}, {})
    for name, slot in slots.items():
        slot |= {key: told.get(name, {}).get(key) for key in ("waiting", "variant", "engine", "sampling", "counting")}
        slot["shadow"] = told.get(name, {}).get("shadow", slot["shadow"])
        if slot["active"] is not None:  # else the store may not be there yet, and is not for us to make
            store = FolderBlobStore(folder)
            slot["bundle"] = stored_name(store, slot["active"])
            if slot["shadow"]:
                slot["shadow"]["bundle"] = stored_name(store, slot["shadow"]["digest"])
    return {
        "device": identity.device,
        "generation": state.generation,
        "slots": slots,
        "spool": _spool(folder, snapshot.get("spool") or {}),
        "clock": _clock(trust, time.time()),
        "hold": _hold(hold if hold is not None and hold.holds_at(_now_ms(trust)) else None),
        "running": running,
        "connected": bool(snapshot.get("connected")),
        "link": snapshot.get("link") or msgspec.to_builtins(LinkReport()),
        "listen": snapshot.get("listen"),
        "refused": snapshot.get("refused"),
    }


def stored_now_ms(folder: Path) -> int:
    """Return the reference time of the device that a state folder belongs to, milliseconds since the epoch.

    Raises:
        NotEnrolledError: The folder belongs to no device.
    """
    identity = IdentityFolder(folder / "identity").load()
    return _now_ms(TrustStore(folder / "trust", http=None, root_digest=identity.root_digest, clock=time.time))


def health(status: Mapping[str, Any]) -> Health:
    """Return the exit code that a status stands for."""
    slots = status["slots"].values()
    if not slots or any(slot["active"] is None for slot in slots):
        return Health.NO_MODEL
    waits = [slot["waiting"]["code"] for slot in slots if slot["waiting"]]
    if any(slot["error"] for slot in slots) or not PLANNED.issuperset(waits) or status["spool"]["fault"]:
        return Health.DEGRADED
    if not status["clock"]["plausible"] or status["refused"]:
        return Health.DEGRADED
    return Health.OK


def save_snapshot(folder: Path, status: Mapping[str, Any]) -> None:
    """Leave a status for other processes; not synced, because it is worth nothing after a power cut."""
    temporary = folder / f"{SNAPSHOT}.tmp"
    temporary.write_bytes(msgspec.json.encode(status))
    temporary.replace(folder / SNAPSHOT)


def _slots(
    state: DeviceState, progress: Mapping[str, float], troubles: Mapping[str, SlotFault]
) -> dict[str, dict[str, Any]]:
    return {
        name: _slot(slot, progress.get(name, 0.0), troubles.get(name)) for name, slot in sorted(state.slots.items())
    }


def _slot(slot: Slot, progress: float, trouble: SlotFault | None) -> dict[str, Any]:
    trial = slot.trial
    return {
        "state": state_word(slot),
        "active": slot.active,
        "bundle": None,
        "variant": None,
        "previous": slot.previous,
        "trial": trial
        and {
            "left": trial.left,
            "predictions": trial.predictions,
            "errors": trial.errors,
            "elapsed_s": round(trial.elapsed_s, 3),
        },
        "error": _fault(slot.fault),
        "target": slot.target.digest if slot.target else None,
        "name": slot.target.name if slot.target else None,
        "attempt": slot.target.attempt if slot.target else 0,
        "progress": round(progress, 3),
        "waiting": _fault(trouble),
        "engine": None,
        "sampling": None,
        "counting": None,
        "shadow": slot.shadow and {"digest": slot.shadow.digest, "state": "waiting", "error": None},
    }


def _fault(fault: SlotFault | None) -> dict[str, Any] | None:
    return None if fault is None else {"code": fault.code, "message": fault.message, "digest": fault.digest}


def _hold(hold: Hold | None) -> dict[str, Any] | None:
    if hold is None:
        return None
    until = None if hold.until_ms is None else _date(hold.until_ms)
    return {"since": _date(hold.since_ms), "until": until, "reason": hold.reason}


def _now_ms(trust: TrustStore) -> int:
    return reference_ms(int(time.time() * 1000), _floor_ms(trust))


def _floor_ms(trust: TrustStore) -> int:
    try:
        return trust.floors().time_ms
    except (TrustError, OSError):
        return 0


def _clock(trust: TrustStore, now: float) -> dict[str, Any]:
    now_ms, floor_ms = int(now * 1000), _floor_ms(trust)
    return {
        "plausible": plausible(now_ms, floor_ms),
        "reference": _date(reference_ms(now_ms, floor_ms)),
        "floor": _date(floor_ms) if floor_ms else None,
    }


def _date(at_ms: int) -> str:
    return dt.datetime.fromtimestamp(at_ms / 1000, tz=dt.UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


def _usage(parts: Assembly) -> dict[str, Any]:
    """Return the spool of a running agent; windows that it could not take at all count as dropped."""
    try:
        usage = parts.spool.usage()
    except SpoolError as error:
        usage = SpoolUsage(0, 0, 0, error.message)
    return {
        "windows": usage.windows,
        "bytes": usage.size_bytes,
        "dropped": usage.dropped + parts.windows.failed,
        "fault": usage.fault or None,
    }


def _spool(folder: Path, told: Mapping[str, Any]) -> dict[str, Any]:
    """Return the spool as the file has it, unless the running agent told that the file is not what it uses."""
    if told.get("fault"):
        return {key: told.get(key) for key in ("windows", "bytes", "dropped", "fault")}
    usage: dict[str, Any] = {"windows": 0, "bytes": 0, "dropped": 0, "fault": _disk_fault(folder)}
    path = folder / "spool.db"
    if not path.exists():
        return usage
    try:
        connection = sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=5.0)
        try:
            usage["windows"] = int(connection.execute(_WINDOWS).fetchone()[0])
            usage["bytes"] = int(connection.execute("SELECT coalesce(sum(size), 0) FROM items").fetchone()[0])
            usage["dropped"] = int(connection.execute("SELECT value FROM facts WHERE name = 'dropped'").fetchone()[0])
        finally:
            connection.close()
    except (sqlite3.Error, TypeError) as error:
        usage["fault"] = usage["fault"] or f"spool.db can't be read: {error}"
    return usage


def _disk_fault(folder: Path) -> str | None:
    """Tell a disk that takes nothing: then the agent can't even leave word of it in ``status.json``."""
    disk = os.statvfs(folder)
    if disk.f_flag & os.ST_RDONLY:
        return f"the disk of {folder} is read-only"
    if disk.f_bavail == 0 or (disk.f_files > 0 and disk.f_ffree == 0):
        return f"the disk of {folder} is full"
    return None


def _snapshot(folder: Path) -> dict[str, Any]:
    try:
        return msgspec.json.decode((folder / SNAPSHOT).read_bytes(), type=dict[str, Any])
    except (OSError, msgspec.DecodeError):
        return {}
