"""The audit: one row for every change, chained by hashes so that a removed or edited row is noticed.

Owns the table and its chain. A row is recorded in the transaction of the change it tells of: both happen or neither.
What is not covered: whoever can write the whole table can also rewrite the whole chain, so `head` is worth keeping
somewhere else.
"""

import hashlib
import json
from collections.abc import Iterator
from typing import Any

from sqlalchemy import JSON, Column
from sqlmodel import Field, Session, SQLModel, col, select

from shoal_protocol.canonical import canonical_bytes
from shoal_server.storage.database import lock_for_transaction

_BEGINNING = "0" * 64
_BATCH = 1000


class AuditRow(SQLModel, table=True):
    """One change: who did what to what, and the hash of it together with the row before."""

    __tablename__ = "audit"
    id: int = Field(primary_key=True, sa_column_kwargs={"autoincrement": False})
    at: float
    actor: str = Field(index=True)
    action: str
    subject: str = Field(index=True)
    before: Any = Field(default=None, sa_column=Column(JSON(none_as_null=True), nullable=True))
    after: Any = Field(default=None, sa_column=Column(JSON(none_as_null=True), nullable=True))
    request_id: str
    previous_hash: str
    hash: str


def record(
    session: Session,
    *,
    actor: str,
    action: str,
    subject: str,
    before: Any = None,
    after: Any = None,
    request_id: str = "",
    now: float,
) -> AuditRow:
    """Add a row to the chain, inside the caller's transaction.

    Args:
        session: a session of `Database.write()`.
        actor: `Principal.actor`, or `server` for what no person asked for.
        action: verb with its noun, such as `rollout.pause`.
        subject: what was changed, such as `device:cam-7`.
        before: the state that was, as far as it says something; JSON, no secrets.
        after: the state that is.
        request_id: of the request that caused it.
        now: seconds since the epoch, UTC.
    """
    lock_for_transaction(session, "audit")
    session.flush()
    last = head(session)
    row = AuditRow(
        id=1 if last is None else last.id + 1,
        at=now,
        actor=actor,
        action=action,
        subject=subject,
        before=_plain(before),
        after=_plain(after),
        request_id=request_id,
        previous_hash=_BEGINNING if last is None else last.hash,
        hash="",
    )
    row.hash = _hash(row)
    session.add(row)
    session.flush()
    return row


def head(session: Session) -> AuditRow | None:
    """Return the newest row, None before the first."""
    return session.exec(select(AuditRow).order_by(col(AuditRow.id).desc()).limit(1)).first()


def rows(
    session: Session, *, before_id: int | None = None, subject: str | None = None, limit: int = 100
) -> list[AuditRow]:
    """Return up to `limit` rows, the newest first, older than row `before_id`."""
    query = select(AuditRow).order_by(col(AuditRow.id).desc()).limit(limit)
    if before_id is not None:
        query = query.where(col(AuditRow.id) < before_id)
    if subject is not None:
        query = query.where(AuditRow.subject == subject)
    return list(session.exec(query))


def first_break(session: Session) -> int | None:
    """Return the id of the first row that doesn't fit the chain, None when all do."""
    expected_id, previous = 1, _BEGINNING
    for row in _in_order(session):
        if row.id != expected_id or row.previous_hash != previous or row.hash != _hash(row):
            return expected_id
        expected_id, previous = row.id + 1, row.hash
    return None


def _in_order(session: Session) -> Iterator[AuditRow]:
    last = 0
    while True:
        query = select(AuditRow).where(col(AuditRow.id) > last).order_by(col(AuditRow.id)).limit(_BATCH)
        batch = list(session.exec(query))
        if not batch:
            return
        yield from batch
        last = batch[-1].id


def _plain(value: Any) -> Any:
    """Reduce to what JSON gives back, so that the hash is the same after it was stored."""
    return json.loads(json.dumps(value))


def _hash(row: AuditRow) -> str:
    covered = row.model_dump(exclude={"hash"})
    return hashlib.sha256(canonical_bytes(covered)).hexdigest()
