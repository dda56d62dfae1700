"""The worker that keeps what devices count in step with what was learnt and what was set.

Level-triggered: whatever changed, the document that an assigned bundle should be counted by is made anew from the
tables, and where that differs from what assignments name, these change. So nothing is lost between two ticks. A bundle
whose document can't be made is left as it is, and holds up no other.
"""

from __future__ import annotations

import logging

from sqlmodel import Session, func, select

from shoal_protocol.canonical import sha256_digest
from shoal_protocol.errors import ShoalError
from shoal_protocol.profile.counting import Counting, encode_counting
from shoal_server.contracts.served import served_rules
from shoal_server.contracts.tables import ModelContractRow
from shoal_server.drift.learning import learnt_reference
from shoal_server.drift.tables import LearntRow
from shoal_server.fleet.assignments import name_counting
from shoal_server.fleet.counting import assigned_bundles, save_counting
from shoal_server.fleet.tables import DesiredRow
from shoal_server.signals import Signals
from shoal_server.storage.database import Clock, Database

_log = logging.getLogger(__name__)


class CountingUpkeep:
    """The worker; `tick` is called in a loop.

    Args:
        database: With assignments, what was learnt, and what was set.
        clock: Seconds since the epoch.
        signals: Told `desired` after assignments changed.
    """

    def __init__(self, database: Database, clock: Clock, *, signals: Signals | None = None) -> None:
        self._database = database
        self._clock = clock
        self._signals = signals
        self._seen: tuple[object, ...] = ()

    def tick(self) -> int:
        """Bring assignments into step; returns how many bundles are counted otherwise now."""
        with self._database.read() as session:
            state = _state(session)
            wrong = [] if state == self._seen else self._wrong(session)
        for bundle in wrong:
            with self._database.write() as session:
                now = self._clock()
                digest = save_counting(session, bundle, _document(session, bundle), now=now)
                name_counting(session, bundle, digest, now=now)
        self._seen = state if not wrong else ()
        if wrong and self._signals is not None:
            self._signals.bump("desired")
        return len(wrong)

    def _wrong(self, session: Session) -> list[str]:
        """Return the assigned bundles that some assignment has counted otherwise than is wanted."""
        wrong = []
        for bundle, named in sorted(assigned_bundles(session).items()):
            try:
                wanted = _digest(_document(session, bundle))
            except (ShoalError, ArithmeticError, ValueError):  # stored by an earlier version, which checked less
                _log.exception("what to count of %s can't be written; it is counted as before", bundle)
                continue
            if named != {wanted}:
                wrong.append(bundle)
        return wrong


def _document(session: Session, bundle: str) -> bytes | None:
    """Return what a bundle should be counted by; none: by itself alone."""
    learnt, rules = learnt_reference(session, bundle), served_rules(session, bundle)
    if learnt is None and not rules:
        return None
    return encode_counting(Counting(bundle, None if learnt is None else learnt.spec, rules))


def _digest(document: bytes | None) -> str:
    return "" if document is None else sha256_digest(document)


def _state(session: Session) -> tuple[object, ...]:
    """Return what changes whenever a document may have to."""
    columns = (
        func.max(DesiredRow.changed_at),
        func.count(),
        select(func.max(LearntRow.learnt_at)).scalar_subquery(),
        select(func.max(ModelContractRow.set_at)).scalar_subquery(),
        select(func.count()).select_from(ModelContractRow).scalar_subquery(),
    )
    return tuple(session.exec(select(*columns).select_from(DesiredRow)).one())  # type: ignore[call-overload]  # many
