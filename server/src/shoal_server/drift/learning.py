"""Learning what to count of bundles that came without data: sketches of devices in, one reference for the fleet out.

Owns when enough devices have told, and the references that were learnt. Leaves the fitting to
`shoal_protocol.profile.learning` and telling devices to the contracts room.

Invariants: what was fixed for a bundle is never fixed anew, so its counts stay comparable; and sketches of one bundle,
whatever they say, hold up no other.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import lru_cache

import msgspec
from sqlalchemy import delete
from sqlalchemy.exc import OperationalError
from sqlmodel import Session, col, func, select

from shoal_protocol.bundle.schema import ModelSchema
from shoal_protocol.errors import ContentError
from shoal_protocol.mqtt.messages import Event
from shoal_protocol.profile.learning import learn
from shoal_protocol.profile.profile import ProfileSpec
from shoal_protocol.profile.reference import Reference, encode_reference, parse_reference
from shoal_protocol.profile.sketch import parse_sketches
from shoal_server.drift.tables import LearntRow, SketchRow
from shoal_server.errors import NotFoundError
from shoal_server.fleet import assignments
from shoal_server.fleet import store as fleet
from shoal_server.fleet.devices import DeviceState
from shoal_server.registry import store as registry
from shoal_server.signals import Signals
from shoal_server.storage.database import Clock, Database

_log = logging.getLogger(__name__)

FIRST_ROWS = "first_rows"
"""Kind of the event with a device's sketches: ``data.columns``."""

FEWEST_DEVICES = 3
"""So many are waited for, where there are so many: of fewer none can be told to be a liar."""

ENOUGH_DEVICES = 20
PATIENCE_S = 3600.0
"""After the first device told, others are waited for so long; all who run the bundle, or `ENOUGH_DEVICES`, end it."""

_CACHED = 64

ReferenceOf = Callable[[str], "Reference | None"]


def on_first_rows(session: Session, device: str, event: Event, now: float, *, own: ReferenceOf) -> None:
    """Keep what a device saw first of a bundle that is assigned to it and has no reference; else do nothing.

    Args:
        session: Of the transaction that takes the event in.
        device: Who tells.
        event: Of the kind `FIRST_ROWS`.
        now: Seconds since the epoch.
        own: Bundle digest -> the reference that it came with.
    """
    digest = event.digest
    if digest is None or digest not in {one.digest for one in assignments.targets(session, device).values()}:
        return
    try:
        columns = parse_sketches(event.data.get("columns"))
        known = own(digest) is not None
    except (ContentError, NotFoundError):
        return
    if columns and not known and session.get(LearntRow, digest) is None:
        body = msgspec.json.encode(columns)
        session.merge(SketchRow(digest=digest, device=device, columns=body, received_at=now))


def learnt_reference(session: Session, digest: str) -> Reference | None:
    """Return what was learnt of a bundle; none: nothing yet."""
    row = session.get(LearntRow, digest)
    return None if row is None else parse_reference(row.document)


class References:
    """References of bundles: those that they came with, else those that were learnt.

    Args:
        database: With what was learnt.
        own: Bundle digest -> the reference that it came with.
    """

    def __init__(self, database: Database, own: ReferenceOf) -> None:
        self._database = database
        self._own = own
        self._learnt = lru_cache(_CACHED)(self._read)

    def __call__(self, digest: str) -> Reference | None:
        """Return a bundle's reference; raises `NotFoundError` where there is no such bundle."""
        own = self._own(digest)
        if own is not None:
            return own
        try:
            return self._learnt(digest)
        except NotFoundError:  # not cached: it may be learnt any moment
            return None

    def _read(self, digest: str) -> Reference:
        with self._database.read() as session:
            found = learnt_reference(session, digest)
        if found is None:
            raise NotFoundError(f"nothing was learnt of {digest} yet")
        return found


class LearningScan:
    """The worker that fixes what is counted; `tick` is called in a loop.

    Args:
        database: With sketches and fleet.
        schemas: Bundle digest -> its schema.
        own: Bundle digest -> the reference that it came with.
        clock: Seconds since the epoch.
        signals: Told `counting` after something was fixed.
        patience_s: How long after the first device others are waited for.
    """

    def __init__(
        self,
        database: Database,
        schemas: Callable[[str], ModelSchema],
        own: ReferenceOf,
        clock: Clock,
        *,
        signals: Signals | None = None,
        patience_s: float = PATIENCE_S,
    ) -> None:
        self._database = database
        self._schemas = schemas
        self._own = own
        self._clock = clock
        self._signals = signals
        self._patience_s = patience_s

    def tick(self) -> int:
        """Fix the bundles of which enough was told; returns how many."""
        with self._database.read() as session:
            due = [digest for digest, told, first in _waiting(session) if self._is_enough(session, digest, told, first)]
        fixed = sum(self._fix(digest) for digest in due)
        if fixed and self._signals is not None:
            self._signals.bump("counting")
        return fixed

    def _is_enough(self, session: Session, digest: str, told: int, first_at: float) -> bool:
        if told >= ENOUGH_DEVICES or self._clock() >= first_at + self._patience_s:
            return True
        accepted = [one for one in fleet.devices(session) if one.state is DeviceState.ACCEPTED]
        runs = sum(any(report.active == digest for report in one.reported.values()) for one in accepted)
        return told >= max(runs, min(FEWEST_DEVICES, len(accepted)))

    def _fix(self, digest: str) -> bool:
        """Fix one bundle; tells whether it was. Sketches that nothing can be learnt of are dropped, not tried again."""
        learnt = None
        try:
            learnt = self._learn(digest)
        except (OSError, OperationalError):
            _log.exception("what to count of %s can't be learnt now, which is tried again", digest)
            return False
        except Exception:  # noqa: BLE001 - devices write the sketches: those of one bundle must not hold the others up
            _log.exception("nothing can be learnt of the sketches of %s, which are dropped", digest)
        with self._database.write() as session:
            if learnt is not None and session.get(LearntRow, digest) is None:
                session.add(learnt)
            session.execute(delete(SketchRow).where(col(SketchRow.digest) == digest))
        return learnt is not None

    def _learn(self, digest: str) -> LearntRow:
        """Fit cells to what was told; outside of any write transaction, since it takes a while."""
        with self._database.read() as session:
            rows = session.exec(select(SketchRow).where(SketchRow.digest == digest)).all()
            parent = self._parent(session, digest)
        told = [parse_sketches(msgspec.json.decode(row.columns)) for row in rows]
        document = encode_reference(learn(self._schemas(digest), told, parent=parent))
        return LearntRow(digest=digest, document=document, devices=len(rows), learnt_at=self._clock())

    def _parent(self, session: Session, digest: str) -> ProfileSpec | None:
        """Return the streams of the newest other version of the model that has some."""
        version = registry.version_of_digest(session, digest)
        others = [] if version is None else registry.versions(session, version.model, limit=_CACHED)
        for other in others:
            if other.digest != digest:
                found = self._own(other.digest) or learnt_reference(session, other.digest)
                if found is not None:
                    return found.spec
        return None


def _waiting(session: Session) -> list[tuple[str, int, float]]:
    """Return each bundle of which something was told: how many devices told, and when the first did."""
    columns = (SketchRow.digest, func.count(), func.min(SketchRow.received_at))
    return list(session.exec(select(*columns).group_by(SketchRow.digest).order_by(SketchRow.digest)).all())
