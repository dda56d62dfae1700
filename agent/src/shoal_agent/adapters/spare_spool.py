"""Opening the spool so that a start never fails by it: on the disk, or in memory while the disk takes nothing.

What the server is told must never decide whether models answer. The spare goes on in the file's epoch and last boot
where those can be read, with numbers that the file never reaches: the server ignores a device that goes back to an
earlier epoch, so one that took a fresh epoch now would not be heard after the disk was mended.
"""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path

from shoal_agent.adapters.memory_spool import MemorySpool
from shoal_agent.adapters.spool import SqliteSpool
from shoal_agent.adapters.spool_file import put_aside
from shoal_agent.errors import SpoolError
from shoal_agent.ports import Clock, Spool

SPARE_BYTES = 4 << 20
"""Budget of a spare: days of windows of a usual model, and no burden to a small device."""

_STATE_NUMBERS = 1 << 32
"""A spare's messages about the device's state are numbered from here plus the time: spares follow each other."""

_SPOOL_NUMBERS = 1 << 42
_SPANS = 1 << 40
_SPAN = 1 << 10
_log = logging.getLogger(__name__)


def open_spool(
    path: Path, *, budget_bytes: int, new_epoch: Callable[[], str], clock: Clock, chance: Callable[[], float]
) -> Spool:
    """Return the spool in a file, or a spare in memory when the disk is full, read-only or failing.

    Args:
        path: Of the file.
        budget_bytes: Of either; a spare's is bounded further.
        new_epoch: Gives 16 random hexadecimal digits.
        clock: Seconds UTC.
        chance: Gives uniform draws from [0, 1).
    """
    try:
        return SqliteSpool(path, budget_bytes=budget_bytes, new_epoch=new_epoch)
    except (SpoolError, OSError) as error:
        _log.error(
            "%s can't be used (%s): windows and outcomes wait in memory until the next start; models answer as ever",
            path,
            error,
        )
        fault = f"it waits in memory and is lost at a stop: {error}"
    known = _last_start(path)
    if known is None:
        with suppress(OSError):
            put_aside(path)
    epoch, boot = known or (new_epoch(), 1)
    return MemorySpool(
        budget_bytes=min(budget_bytes, SPARE_BYTES),
        epoch=epoch,
        boot=boot,
        first=_STATE_NUMBERS + max(int(clock()), 0),
        after=_SPOOL_NUMBERS + int(chance() * _SPANS) * _SPAN,
        fault=fault,
    )


def _last_start(path: Path) -> tuple[str, int] | None:
    """Return epoch and boot of the file's last start, read without writing; none: there is none, or it is damaged."""
    for how in ("mode=ro", "immutable=1"):  # the second needs no file beside it, but overlooks what is only in the log
        try:
            with closing(sqlite3.connect(f"file:{path}?{how}", uri=True)) as db:
                facts = dict(db.execute("SELECT name, value FROM facts WHERE name IN ('epoch', 'boot')"))
                return str(facts["epoch"]), int(facts["boot"])
        except (sqlite3.Error, KeyError, ValueError):
            continue
    return None
