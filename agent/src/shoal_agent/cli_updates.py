"""The commands of ``shoal-agent`` by which somebody at the device says when updates may come.

Arguments and their meaning; `shoal_agent.cli` turns errors into advice. Imports are lazy, as there.
"""

from __future__ import annotations

import argparse
import datetime as dt
import re
from collections.abc import Callable

from shoal_agent.errors import SettingsError
from shoal_agent.settings import state_folder

_DURATION = re.compile(r"(\d+(?:\.\d+)?)\s*([smhd])")
_UNITS_S = {"s": 1, "m": 60, "h": 3600, "d": 86_400}

Add = Callable[[str, Callable[[argparse.Namespace], int], str], argparse.ArgumentParser]
"""Adds a command: its name, what it does, and what `--help` says of it."""


def add_commands(add: Add) -> None:
    """Add `hold` and `unhold`."""
    hold = add("hold", _hold, "Let updates wait, until `unhold` or a time; what runs goes on. E.g. hold --for 4h")
    until = hold.add_mutually_exclusive_group()
    until.add_argument("--for", dest="span", metavar="SPAN", help="end by itself after 90m, 4h or 2d")
    until.add_argument("--until", metavar="TIME", help="end at 2026-11-22T06:00 (this device's time) or …T06:00Z")
    hold.add_argument("--reason", default="", metavar="TEXT", help="shown in the status and at the server")
    add("unhold", _unhold, "Let updates go on.")


def _hold(given: argparse.Namespace) -> int:
    from shoal_agent.adapters.hold_file import HoldFile  # noqa: PLC0415 - msgspec comes with it
    from shoal_agent.domain.hold import Hold  # noqa: PLC0415 - likewise
    from shoal_agent.status import stored_now_ms  # noqa: PLC0415 - sqlite3 comes with it

    folder = state_folder(given.state)
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

    folder = state_folder(given.state)
    stored_now_ms(folder)  # says so when this is no device's folder
    print("Updates go on." if HoldFile(folder).remove() else "Nothing was on hold.")
    return 0


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
