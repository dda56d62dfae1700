"""The worker that sums what models said by the hour, and looks at the end of each hour whether a model got worse.

Owns reading windows in the order in which they were stored, each exactly once: their sums and the position in the
windows are one transaction. Late windows find their hour. What is alarming stands in `watch`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from shoal_protocol.errors import ContentError
from shoal_protocol.profile.reference import Reference
from shoal_server.errors import NotFoundError
from shoal_server.fleet import store as fleet
from shoal_server.fleet.devices import DeviceState
from shoal_server.quality import store
from shoal_server.quality.outputs import OutputLayout
from shoal_server.quality.watch import watch_hour
from shoal_server.signals import Signals
from shoal_server.storage.database import Clock, Database, lock_for_transaction
from shoal_server.telemetry.rollup import HOUR_MS
from shoal_server.telemetry.store import StoredWindow, windows_after

GRACE_MS = 600_000
"""An hour is judged so long after its end."""

_BATCH = 2000

References: TypeAlias = Callable[[str], Reference | None]


class QualityScan:
    """The worker; `tick` is called in a loop.

    Args:
        database: With windows, fleet and alerts.
        references: Bundle digest -> its reference, None when it has none.
        clock: Seconds since the epoch.
        signals: Told `quality` after each change, `alerts` after an hour was judged.
    """

    def __init__(
        self, database: Database, references: References, clock: Clock, *, signals: Signals | None = None
    ) -> None:
        self._database = database
        self._clock = clock
        self._signals = signals

        @lru_cache(maxsize=64)
        def known(digest: str) -> tuple[Reference, OutputLayout] | None:
            try:
                reference = references(digest)
            except NotFoundError:  # a device may claim to run anything
                return None
            return None if reference is None else (reference, OutputLayout(reference.spec))

        self._known = known

    def tick(self) -> int:
        """Sum the windows that are new, then judge the hour that has ended; returns how many windows were summed."""
        summed = 0
        while True:
            read = self._sum()
            summed += read
            if read < _BATCH:
                break
        told = self._judge()
        if self._signals is not None and summed:
            self._signals.bump("quality")
        if self._signals is not None and told:
            self._signals.bump("alerts")
        return summed

    def _sum(self) -> int:
        with self._database.read() as session:
            found = windows_after(session, store.scan_row(session).read_through, _BATCH)
        if not found:
            return 0
        sums = self._sums(found)
        with self._database.write() as session:
            lock_for_transaction(session, "quality")
            row = store.scan_row(session)
            if row.read_through >= found[0].id:
                return 0  # another scan was faster
            row.read_through = found[-1].id
            session.merge(row)
            store.add_said(session, sums)
        return len(found)

    def _sums(self, windows: Sequence[StoredWindow]) -> Mapping[store.Key, tuple[int, npt.NDArray[np.int64]]]:
        sums: dict[store.Key, tuple[int, npt.NDArray[np.int64]]] = {}
        for window in windows:
            known = self._known(window.digest)
            if known is None or not window.n or window.spec_hash != known[0].spec.hash:
                continue
            try:
                cells = window.message.profile(known[0].spec).cells[known[1].cells]
            except ContentError:
                continue  # the drift scan counts damaged windows
            key = (window.slot, window.digest, window.device, window.start_ms // HOUR_MS * HOUR_MS)
            n, before = sums.get(key, (0, np.zeros(len(cells), np.int64)))
            sums[key] = (n + window.n, before + cells)
        return sums

    def _judge(self) -> bool:
        """Judge the bundles at the end of an hour, once; tells whether there was an hour to judge."""
        now = self._clock()
        hour_ms = (round(now * 1000) - GRACE_MS) // HOUR_MS * HOUR_MS
        with self._database.read() as session:
            if store.scan_row(session).watched_hour >= hour_ms:
                return False
        with self._database.write() as session:
            lock_for_transaction(session, "quality")
            row = store.scan_row(session)
            if row.watched_hour >= hour_ms:
                return False
            row.watched_hour = hour_ms
            session.merge(row)
            accepted = {one.id for one in fleet.devices(session) if one.state is DeviceState.ACCEPTED}
            watch_hour(session, end_ms=hour_ms, known=self._known, accepted=accepted, now=now)
        return True
