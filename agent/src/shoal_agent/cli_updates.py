"""The commands of ``shoal-agent`` by which somebody at the device says when updates come, or brings one by hand.

Arguments and their meaning; `shoal_agent.cli` turns errors into advice. Imports are lazy, as there.
"""

from __future__ import annotations

import argparse
import datetime as dt
import re
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from shoal_agent.adapters.folder_owner import as_owner
from shoal_agent.errors import SettingsError
from shoal_agent.settings import state_folder
from shoal_agent.terminal import print_json
from shoal_protocol.errors import LocalError

if TYPE_CHECKING:
    from shoal_agent.agent import Agent

_PATIENCE_S = 600.0

_DURATION = re.compile(r"(\d+(?:\.\d+)?)\s*([smhd])")
_UNITS_S = {"s": 1, "m": 60, "h": 3600, "d": 86_400}

Add = Callable[[str, Callable[[argparse.Namespace], int], str], argparse.ArgumentParser]
"""Adds a command: its name, what it does, and what `--help` says of it."""


def add_commands(add: Add) -> None:
    """Add `hold`, `unhold`, `import` and `export`."""
    hold = add("hold", _hold, "Let updates wait, until `unhold` or a time; what runs goes on. E.g. hold --for 4h")
    until = hold.add_mutually_exclusive_group()
    until.add_argument("--for", dest="span", metavar="SPAN", help="end by itself after 90m, 4h or 2d")
    until.add_argument("--until", metavar="TIME", help="end at 2026-11-22T06:00 (this device's time) or …T06:00Z")
    hold.add_argument("--reason", default="", metavar="TEXT", help="shown in the status and at the server")
    add("unhold", _unhold, "Let updates go on.")
    bring = add("import", _import, "Take in what `shoalctl device export` wrote, e.g. from a USB stick.")
    bring.add_argument("file", metavar="FILE", type=Path, help="the parcel, e.g. /media/usb/press-4.parcel")
    bring.add_argument("--wait", type=float, default=300.0, metavar="S", help="for self-test and activation; 0: don't")
    bring.add_argument("--json", action="store_true")
    carry = add("export", _export, "Write what waits for the server into a file, for `shoalctl device import`.")
    carry.add_argument("file", nargs="?", metavar="FILE", type=Path, help="the mail to write: /media/usb/press-4.mail")
    carry.add_argument("-o", "--output", metavar="FILE", type=Path, help="the same, as for `shoalctl device export`")
    carry.add_argument("--json", action="store_true")


def _hold(given: argparse.Namespace) -> int:
    from shoal_agent.adapters.hold_file import HoldFile  # noqa: PLC0415 - msgspec comes with it
    from shoal_agent.domain.hold import Hold  # noqa: PLC0415 - likewise
    from shoal_agent.status import stored_now_ms  # noqa: PLC0415 - sqlite3 comes with it

    folder = as_owner(state_folder(given.state))
    now_ms = stored_now_ms(folder)
    until_ms = end_of_hold(span=given.span, until=given.until, now_ms=now_ms)
    HoldFile(folder).save(Hold(since_ms=now_ms, until_ms=until_ms, reason=given.reason.strip()[:300]))
    end = "" if until_ms is None else f" until {dt.datetime.fromtimestamp(until_ms / 1000, tz=dt.UTC):%Y-%m-%dT%H:%MZ}"
    print(f"Updates are on hold{end}. What runs goes on, and a model that fails is still left.")
    print("Let them go on with: shoal-agent unhold" + (f" --state {folder}" if given.state else ""))
    return 0


def _unhold(given: argparse.Namespace) -> int:
    from shoal_agent.adapters.hold_file import HoldFile  # noqa: PLC0415 - msgspec comes with it
    from shoal_agent.status import stored_now_ms  # noqa: PLC0415 - sqlite3 comes with it

    folder = as_owner(state_folder(given.state))
    stored_now_ms(folder)  # says so when this is no device's folder
    print("Updates go on." if HoldFile(folder).remove() else "Nothing was on hold.")
    return 0


def _import(given: argparse.Namespace) -> int:
    from shoal_agent.adapters.identity import FolderLock, IdentityFolder  # noqa: PLC0415 - msgspec comes with it
    from shoal_agent.updating.desk import ask_import  # noqa: PLC0415 - likewise

    folder = state_folder(given.state)
    IdentityFolder(folder / "identity").load()
    _check_file(given.file)
    if FolderLock(folder).held_by_other():
        told = ask_import(folder, given.file, timeout_s=_PATIENCE_S)
        status = _watched(partial(_stored, folder), told, given.wait)
    else:
        _check_file(given.file, by=f"the owner of {as_owner(folder)}, while no agent runs there")
        with _agent_without_link(folder) as agent:
            told = agent.import_parcel(given.file)
            status = _watched(agent.status, told, given.wait)
    return _show_import(told, status, as_json=given.json)


def _export(given: argparse.Namespace) -> int:
    from shoal_agent.adapters.identity import FolderLock, IdentityFolder  # noqa: PLC0415 - msgspec comes with it
    from shoal_agent.updating.desk import ask_export  # noqa: PLC0415 - likewise

    files = {path for path in (given.file, given.output) if path is not None}
    if len(files) != 1:
        raise SettingsError("expected one file to write", hint="shoal-agent export FILE")
    folder, target = state_folder(given.state), files.pop()
    device = IdentityFolder(folder / "identity").load().device
    if target.is_dir() or not target.absolute().parent.is_dir():
        raise SettingsError(f"{target} can't be written: expected a file in a folder that is there")
    try:
        if FolderLock(folder).held_by_other():
            told = ask_export(folder, target, timeout_s=_PATIENCE_S)
        else:
            with _agent_without_link(as_owner(folder)) as agent:
                told = agent.export_mail(target)
    except OSError as error:
        raise LocalError(f"{target} can't be written: {error.strerror}") from error
    windows, events = told.get("profile", 0), told.get("event", 0)
    if given.json:
        print_json({"file": str(target), "windows": windows, "events": events})
        return 0
    print(f"{windows} windows and {events} events of {device} are in {target}; they also stay here.")
    print(f"At the server: shoalctl device import {target.name}")
    return 0


def _agent_without_link(folder: Path) -> Agent:
    from shoal_agent.agent import Agent  # noqa: PLC0415 - numpy and onnxruntime come with it
    from shoal_agent.bootstrap import Overrides  # noqa: PLC0415 - likewise

    return Agent(folder, overrides=Overrides(link=lambda _identity: None))


def _check_file(path: Path, *, by: str = "this user") -> None:
    try:
        with path.open("rb"):
            return
    except OSError as error:
        raise SettingsError(f"{path} can't be read by {by}: {error.strerror}") from error


def _stored(folder: Path) -> dict[str, Any]:
    from shoal_agent.status import stored_status  # noqa: PLC0415 - sqlite3 comes with it

    return stored_status(folder)


def _watched(status: Callable[[], dict[str, Any]], told: dict[str, Any], wait_s: float) -> dict[str, Any]:
    """Look at the parcel's slots until each answers, failed or waits for something, or the time is over."""
    deadline = time.monotonic() + wait_s
    while True:
        found = status()
        slots = [found["slots"].get(name) for name in told["slots"]]
        if all(slot is not None and _has_settled(slot) for slot in slots) or time.monotonic() >= deadline:
            return found
        time.sleep(0.2)


def _has_settled(slot: dict[str, Any]) -> bool:
    answers = slot["active"] == slot["target"] and slot["state"] in {"trial", "idle", "no_model"}
    waits = slot["waiting"] and slot["waiting"]["digest"] == slot["target"]
    return bool(answers or slot["error"] or waits)


def _show_import(told: dict[str, Any], status: dict[str, Any], *, as_json: bool) -> int:
    """Print what became of a parcel; the exit code is 1 when a slot refused its bundle."""
    slots = {name: status["slots"][name] for name in told["slots"] if name in status["slots"]}
    failed = any(slot["error"] for slot in slots.values())
    if as_json:
        print_json({**{name: told[name] for name in ("generation", "new", "acknowledged")}, "slots": slots})
        return int(failed)
    if told["acknowledged"]:
        print(f"The server has {told['acknowledged']} messages of earlier mail; they are not kept here any more.")
    news = "is taken in" if told["new"] else "was known here already"
    print(f"The assignment of generation {told['generation']} {news}; the file is not needed any more.")
    for name, slot in slots.items():
        wanted = told["slots"][name]
        if slot["error"]:
            print(f"  {name}: {wanted} was refused: {slot['error']['message']}")
        elif slot["active"] == slot["target"]:
            print(f"  {name}: {wanted} answers{', on trial' if slot['state'] == 'trial' else ''}")
        elif slot["waiting"]:
            print(f"  {name}: {wanted} waits: {slot['waiting']['message']}")
        else:
            print(f"  {name}: {wanted} is {slot['state']}; look again with `shoal-agent status`")
    return int(failed)


def end_of_hold(*, span: str | None, until: str | None, now_ms: int) -> int | None:
    """Return when a hold ends by itself, milliseconds since the epoch; none: never.

    Args:
        span: ``90m``, ``4h``, ``2d``.
        until: A date and time; without an offset in this device's time zone.
        now_ms: The device's reference time.

    Raises:
        SettingsError: It does not parse, or is over already.
    """
    if span is not None:
        found = _DURATION.fullmatch(span.strip().lower())
        if found is None or float(found[1]) <= 0:
            raise SettingsError(f"--for {span!r}: expected a span such as 90m, 4h or 2d")
        return now_ms + int(float(found[1]) * _UNITS_S[found[2]] * 1000)
    if until is None:
        return None
    try:
        end_ms = int(dt.datetime.fromisoformat(until.strip()).timestamp() * 1000)
    except (ValueError, OverflowError, OSError) as error:
        raise SettingsError(f"--until {until!r}: expected a time such as 2026-11-22T06:00 or …T06:00Z") from error
    if end_ms <= now_ms:
        now = dt.datetime.fromtimestamp(now_ms / 1000, tz=dt.UTC)
        raise SettingsError(f"--until {until!r} is over already", hint=f"by this device it is {now:%Y-%m-%dT%H:%MZ}")
    return end_ms
