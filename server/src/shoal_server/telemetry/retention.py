"""Windows are kept for a while; their hourly sums and the ledgers of what was received stay."""

from __future__ import annotations

from shoal_server.storage.database import Clock, Database
from shoal_server.telemetry import store

KEEP_S = 48 * 3600.0
_SLICE = 5000


class Retention:
    """One worker; `tick` is called in a loop, every few minutes.

    Args:
        database: With the windows.
        clock: Seconds since the epoch.
        keep_s: How long after its receipt a window is kept.
    """

    def __init__(self, *, database: Database, clock: Clock, keep_s: float = KEEP_S) -> None:
        self._database = database
        self._clock = clock
        self._keep_s = keep_s

    def tick(self) -> int:
        """Delete what is too old, in slices that let others write in between; returns how many windows."""
        before = self._clock() - self._keep_s
        total = 0
        while True:
            with self._database.write() as session:
                deleted = store.prune(session, received_before=before, limit=_SLICE)
            total += deleted
            if deleted < _SLICE:
                return total
