"""Checks of what may keep updates waiting here: hooks that can't be run, a hold, a window of the week."""

from __future__ import annotations

import datetime as dt
import os
from pathlib import Path

from shoal_agent import hook_programs
from shoal_agent.adapters.hold_file import HoldFile
from shoal_agent.doctor.findings import Finding, note, ok, wrong
from shoal_agent.machine import week_instant
from shoal_agent.ports import Clock
from shoal_agent.settings import Settings
from shoal_protocol.maintenance import closed_s, parse_windows


def hooks(settings: Settings) -> list[Finding]:
    """Check that each configured hook is an executable; without hooks there is nothing to check."""
    given = hook_programs.programs(settings)
    faults = hook_programs.faults(given)
    if faults:
        return [wrong("hooks", "; ".join(faults), "chmod +x it, or correct the path")]
    return [ok("hooks", f"{', '.join(f'hooks.{kind}' for kind in given)} can be run")] if given else []


def leave(folder: Path, settings: Settings, clock: Clock) -> list[Finding]:
    """Say what keeps updates waiting just now."""
    found = []
    hold = HoldFile(folder).load()
    if hold is not None and hold.holds_at(int(clock() * 1000)):
        told = f"somebody at this device lets updates wait{f': {hold.reason}' if hold.reason else ''}"
        end = "" if hold.until_ms is None else f", or at {_date(hold.until_ms)}"
        found.append(note("hold", told, f"they go on after `shoal-agent unhold`{end}"))
    lock = settings.activation_lock_file
    if lock and os.path.lexists(lock):
        found.append(note("lock_file", f"{lock} is there, so nothing is activated", "whoever made it removes it"))
    for name, text in (("download", settings.download_windows), ("activation", settings.activation_windows)):
        windows = parse_windows(text)
        wait_s = closed_s(windows, week_instant(clock()))
        if windows:
            told = "open now" if wait_s == 0 else f"the next opens in {dt.timedelta(seconds=wait_s // 60 * 60)} h"
            found.append(ok(f"{name}_windows", f"{text}: {told}"))
    return found


def _date(at_ms: int) -> str:
    return f"{dt.datetime.fromtimestamp(at_ms / 1000, tz=dt.UTC):%Y-%m-%dT%H:%MZ}"
