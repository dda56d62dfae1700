"""The worker that looks once a minute at the last hour's broken rules, and tells people.

Keeps nothing between two looks: an alert is raised while its rule is broken, keeps saying how many rows do so now
without telling anybody again, and is resolved when an hour without is over.
"""

from __future__ import annotations

from collections.abc import Callable

from sqlmodel import Session

from shoal_protocol.bundle.schema import ModelSchema
from shoal_server.alerts import store as alerts
from shoal_server.contracts.report import gather
from shoal_server.contracts.sums import alerts_of
from shoal_server.signals import Signals
from shoal_server.storage.database import Clock, Database

CONTRACTS_S = 10.0
"""Pause between two looks, seconds."""

SPAN_S = 3600.0
_KIND = "contract"


class ContractScan:
    """The worker; `tick` is called in a loop.

    Args:
        database: With windows, fleet and alerts.
        schemas: Bundle digest -> its schema.
        clock: Seconds since the epoch.
        signals: Told `alerts` after a change.
    """

    def __init__(
        self, database: Database, schemas: Callable[[str], ModelSchema], clock: Clock, *, signals: Signals | None = None
    ) -> None:
        self._database = database
        self._schemas = schemas
        self._clock = clock
        self._signals = signals

    def tick(self) -> int:
        """Raise alerts of rules that are newly broken, resolve those that are kept again; returns how many."""
        now = self._clock()
        with self._database.read() as session:
            found = gather(session, self._schemas, start_ms=round(1000 * (now - SPAN_S)), end_ms=round(1000 * now) + 1)
            told = alerts.unresolved_keys(session, kind=_KIND)
        broken = {
            key: (one.slot, *texts)
            for one in found
            for key, texts in alerts_of(one.slot, one.digest, one.rules, told=told).items()
        }
        news = sorted(broken.keys() ^ told)
        if not broken and not news:
            return 0
        with self._database.write() as session:
            for key in sorted(broken.keys() & told):
                _, title, body = broken[key]
                alerts.retell(session, key, title=title, body=body, now=now)
            for key in news:
                if key in broken:
                    _tell(session, key, *broken[key], now=now)
                else:
                    alerts.resolve_alert(session, key, now=now)
        if news and self._signals is not None:
            self._signals.bump("alerts")
        return len(news)


def _tell(session: Session, key: str, slot: str, title: str, body: str, *, now: float) -> None:
    subject = f"slot:{slot}"
    alerts.raise_alert(
        session, kind=_KIND, subject=subject, title=title, body=body, severity="warning", key=key, now=now
    )
