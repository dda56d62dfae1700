"""The newest windows of one device, without their bodies, for its page."""

from __future__ import annotations

from typing import NamedTuple

from sqlmodel import Session, col, select

from shoal_server.telemetry.tables import WindowRow


class RecentWindow(NamedTuple):
    """What a list shows of a window."""

    slot: str
    digest: str
    start_ms: int
    length_ms: int
    n: int
    errors: int
    received_at: float


def recent_windows(session: Session, device: str, *, limit: int) -> list[RecentWindow]:
    """Return up to `limit` windows, the one that began last first."""
    query = select(
        WindowRow.slot,
        WindowRow.digest,
        WindowRow.start_ms,
        WindowRow.length_ms,
        WindowRow.n,
        WindowRow.errors,
        WindowRow.received_at,
    )  # type: ignore[call-overload]  # more columns than SQLModel has overloads for
    newest = query.where(WindowRow.device == device).order_by(col(WindowRow.start_ms).desc(), col(WindowRow.id).desc())
    return [RecentWindow(*row) for row in session.execute(newest.limit(limit))]
