"""What the server's database really holds, read beside the server: the show's witness."""

from __future__ import annotations

from sqlalchemy import func
from sqlmodel import col, select

from shoal_server.storage.database import Database
from shoal_server.telemetry.tables import WindowRow


class Ledger:
    """Counts over the stored windows.

    Args:
        database: Of the running server; only read.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    def rows(self) -> dict[str, int]:
        """Return the rows of all windows of each device."""
        with self._database.read() as session:
            query = select(WindowRow.device, func.sum(col(WindowRow.n))).group_by(WindowRow.device)
            return {device: int(rows) for device, rows in session.exec(query)}

    def windows(self) -> int:
        """Return the number of windows."""
        with self._database.read() as session:
            return session.exec(select(func.count()).select_from(WindowRow)).one()

    def bytes_per_window(self) -> float:
        """Return the mean size of a window's message."""
        with self._database.read() as session:
            return float(session.exec(select(func.avg(func.length(WindowRow.body)))).one())

    def devices_that_ran(self, digest: str) -> set[str]:
        """Return the devices that sent a window of a bundle."""
        with self._database.read() as session:
            return set(session.exec(select(WindowRow.device).where(WindowRow.digest == digest).distinct()))
