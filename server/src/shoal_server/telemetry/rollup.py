"""Sums of windows by hour, kept longer than the windows.

A window is added in the transaction that stores it, so a late one is never missing and a duplicate never counted.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from sqlalchemy.dialects import postgresql, sqlite
from sqlmodel import Session, col, select

from shoal_server.telemetry.tables import HourRow

HOUR_MS = 3_600_000


def add(session: Session, windows: Iterable[Mapping[str, Any]]) -> None:
    """Add windows, given as the values of their rows."""
    sums: dict[tuple[str, str, int], list[int]] = {}
    for window in windows:
        key = (window["slot"], window["digest"], window["start_ms"] // HOUR_MS * HOUR_MS)
        entry = sums.setdefault(key, [0, 0, 0])
        entry[0] += 1
        entry[1] += window["n"]
        entry[2] += window["errors"]
    if not sums:
        return
    table = HourRow.__table__  # type: ignore[attr-defined]  # SQLModel sets it on table classes only
    insert = sqlite.insert if session.get_bind().dialect.name == "sqlite" else postgresql.insert
    statement = insert(table)
    added = {name: table.c[name] + statement.excluded[name] for name in ("windows", "n", "errors")}
    statement = statement.on_conflict_do_update(index_elements=list(table.primary_key.columns), set_=added)
    names = ("slot", "digest", "hour_ms", "windows", "n", "errors")
    session.connection().execute(statement, [dict(zip(names, (*key, *sums[key]), strict=True)) for key in sorted(sums)])


def hours(session: Session, *, slot: str, start_ms: int, end_ms: int) -> list[HourRow]:
    """Return a slot's sums of the hours that begin in [start_ms, end_ms), by hour and bundle."""
    wanted = (
        select(HourRow)
        .where(HourRow.slot == slot, col(HourRow.hour_ms) >= start_ms, col(HourRow.hour_ms) < end_ms)
        .order_by(col(HourRow.hour_ms), HourRow.digest)
    )
    return list(session.exec(wanted))
