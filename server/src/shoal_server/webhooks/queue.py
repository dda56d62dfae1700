"""Deliveries as a queue: which webhook has something to be sent, who sends it, what came of it, what is forgotten.

Owns the claim by which one worker at a time sends to a webhook: a mark on its row with an end, so that two workers
don't send the same twice, not even when one of them was stopped for a while and goes on. A server that starts lets go
what the one before had claimed. What was sent by a worker that died before it could say so is sent again with the same
id: at least once, never less.

Every function takes the session of an open transaction.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from sqlalchemy import ColumnElement, and_, delete, exists, or_, update
from sqlmodel import Session, col, func, select

from shoal_server.outbox.tables import DeliveryRow, DeliveryState, EventRow, WebhookRow
from shoal_server.webhooks.schedule import (
    GIVE_UP_S,
    HELD_ATTEMPTS,
    LONGEST_PAUSE_S,
    Uniform,
    disabling_reason,
    is_given_up,
    pause_s,
)
from shoal_server.webhooks.sender import Answer

LEASE_S = 120.0
"""Longer than any attempt takes, with the lookup of a name that a resolver doesn't answer."""
KEPT_S = 14 * 86_400.0
MAX_KEPT, MAX_WAITING = 1_000, 10_000
"""Deliveries of one webhook at most: those that are over, and those that wait."""


class Outcome(StrEnum):
    """What an attempt did to a delivery."""

    DELIVERED = "delivered"  # it is over, well
    RETRY = "retry"  # it failed and is tried again
    GIVEN_UP = "given_up"  # it failed and is over
    LOST = "lost"  # somebody else had taken it over meanwhile


@dataclass(frozen=True, kw_only=True)
class Parcel:
    """One delivery that this worker alone may try now."""

    delivery: int
    webhook: int
    name: str
    url: str
    format: str
    secrets: tuple[str, ...]
    event: EventRow
    claim: str


@dataclass(frozen=True, kw_only=True)
class Settled:
    """What came of a parcel, and why its webhook was disabled by it; empty: it wasn't."""

    outcome: Outcome
    disabled: str = ""


def due(session: Session, *, now: float) -> list[int]:
    """Return the webhooks that somebody should send something to."""
    waiting = exists().where(
        col(DeliveryRow.webhook) == col(WebhookRow.id),
        col(DeliveryRow.state) == DeliveryState.PENDING,
        or_(col(DeliveryRow.attempts) < HELD_ATTEMPTS, _has_come(DeliveryRow.next_at, now, LONGEST_PAUSE_S)),
    )
    free = and_(
        col(WebhookRow.enabled),
        _has_come(WebhookRow.claimed_until, now, LEASE_S),
        _has_come(WebhookRow.retry_at, now, LONGEST_PAUSE_S),
    )
    return [hook for hook in session.exec(select(WebhookRow.id).where(free, waiting)) if hook is not None]


def claim(session: Session, webhook: int, *, token: str, now: float) -> Parcel | None:
    """Take the next delivery of a webhook, or nothing: there is none, or somebody else is at it.

    Args:
        session: Of an open write transaction.
        webhook: Its id.
        token: New and unique.
        now: Seconds since the epoch.
    """
    wanted = select(WebhookRow).where(
        WebhookRow.id == webhook,
        col(WebhookRow.enabled),
        _has_come(WebhookRow.claimed_until, now, LEASE_S),
        _has_come(WebhookRow.retry_at, now, LONGEST_PAUSE_S),
    )
    row = session.exec(wanted.with_for_update(skip_locked=True)).first()
    delivery = None if row is None else _next(session, row, now)
    if row is None or delivery is None:
        return None
    event = session.get(EventRow, delivery.event)
    if event is None:  # forgotten while somebody asked for it once more
        delivery.state, delivery.finished_at, delivery.error = DeliveryState.FAILED.value, now, "its event is gone"
        return None
    row.claim, row.claimed_until = token, now + LEASE_S
    delivery.attempts += 1
    delivery.attempted_at = now
    session.flush()
    assert delivery.id is not None
    old = (row.old_secret,) if row.old_secret and now < row.old_secret_until else ()
    return Parcel(
        delivery=delivery.id,
        webhook=webhook,
        name=row.name,
        url=row.url,
        format=row.format,
        secrets=(row.secret, *old),
        event=event,
        claim=token,
    )


def settle(session: Session, parcel: Parcel, answer: Answer, *, now: float, uniform: Uniform) -> Settled:
    """Write down what came of an attempt, and let the webhook go.

    Args:
        session: Of an open write transaction.
        parcel: What was tried.
        answer: What came.
        now: Seconds since the epoch.
        uniform: Source of randomness for the pause.
    """
    row = session.get(WebhookRow, parcel.webhook, with_for_update=True)
    delivery = session.get(DeliveryRow, parcel.delivery, with_for_update=True)
    if row is None or delivery is None or row.claim != parcel.claim:
        return Settled(outcome=Outcome.LOST)
    row.claim, row.claimed_until = "", 0.0
    delivery.status, delivery.latency_ms = answer.status, answer.latency_ms
    delivery.error, delivery.response_head = answer.error, answer.head
    if answer.ok:
        delivery.state, delivery.finished_at = DeliveryState.DELIVERED.value, now
        row.failures, row.failing_since, row.retry_at, row.delivered_at = 0, None, 0.0, now
        return Settled(outcome=Outcome.DELIVERED)
    row.failures += 1
    row.failing_since = now if row.failing_since is None else row.failing_since
    row.retry_at = now + pause_s(row.failures, uniform, asked_s=answer.retry_after_s)
    delivery.next_at = now + pause_s(delivery.attempts, uniform)
    reason = disabling_reason(
        status=answer.status,
        attempts=delivery.attempts,
        created_at=delivery.created_at,
        failing_since=row.failing_since,
        now=now,
    )
    if reason:
        disable(session, row, reason=reason, now=now)
    elif is_given_up(created_at=delivery.created_at, now=now):
        delivery.state, delivery.finished_at = DeliveryState.FAILED.value, now
    over = delivery.state != DeliveryState.PENDING
    return Settled(outcome=Outcome.GIVEN_UP if over else Outcome.RETRY, disabled=reason)


def release(session: Session, parcel: Parcel) -> None:
    """Give a parcel back untried, since the program ends: the next worker begins where this one did."""
    row = session.get(WebhookRow, parcel.webhook, with_for_update=True)
    delivery = session.get(DeliveryRow, parcel.delivery, with_for_update=True)
    if row is not None and delivery is not None and row.claim == parcel.claim:
        row.claim, row.claimed_until = "", 0.0
        delivery.attempts -= 1
        session.flush()


def forget_claims(session: Session) -> None:
    """Let go what the server before this one had claimed: it is gone, since one at a time works on a database."""
    session.execute(update(WebhookRow).values(claim="", claimed_until=0.0))


def disable(session: Session, row: WebhookRow, *, reason: str, now: float) -> None:
    """Stop sending to a webhook; what waited for it is given up, and can be sent again by hand."""
    row.enabled, row.disabled_reason = False, reason
    row.claim, row.claimed_until = "", 0.0
    session.flush()
    waiting = and_(col(DeliveryRow.webhook) == row.id, col(DeliveryRow.state) == DeliveryState.PENDING)
    give_up(session, waiting, why="the webhook was disabled", now=now)


def give_up(session: Session, which: ColumnElement[bool], *, why: str, now: float) -> None:
    """End some deliveries; those that were tried keep the error of their last attempt."""
    ended = {"state": DeliveryState.FAILED.value, "finished_at": now}
    session.flush()
    session.execute(update(DeliveryRow).where(which, col(DeliveryRow.error) == "").values(**ended, error=why))
    session.execute(update(DeliveryRow).where(which).values(**ended))


def prune(session: Session, *, now: float) -> None:
    """Give up what waited for a day, and forget what nobody will look at any more."""
    pending = col(DeliveryRow.state) == DeliveryState.PENDING
    give_up(
        session,
        and_(pending, col(DeliveryRow.created_at) < now - GIVE_UP_S),
        why="its turn did not come within a day: the receiver took nothing",
        now=now,
    )
    hooks = [hook for hook in session.exec(select(WebhookRow.id)) if hook is not None]
    for hook in hooks:
        of_hook = col(DeliveryRow.webhook) == hook
        oldest_waiting = _nth_newest(session, and_(of_hook, pending), MAX_WAITING)
        if oldest_waiting is not None:
            too_many = and_(of_hook, pending, col(DeliveryRow.id) <= oldest_waiting)
            give_up(session, too_many, why=f"more than {MAX_WAITING} events waited", now=now)
        oldest_kept = _nth_newest(session, and_(of_hook, ~pending), MAX_KEPT)
        if oldest_kept is not None:
            session.execute(delete(DeliveryRow).where(of_hook, ~pending, col(DeliveryRow.id) <= oldest_kept))
    gone = col(DeliveryRow.webhook).not_in(hooks)
    session.execute(delete(DeliveryRow).where(or_(gone, and_(~pending, col(DeliveryRow.created_at) < now - KEPT_S))))
    told = exists().where(col(DeliveryRow.event) == col(EventRow.id))
    session.execute(delete(EventRow).where(~told))


def waiting(session: Session) -> int:
    """Count the deliveries that are to be sent."""
    query = select(func.count()).select_from(DeliveryRow).where(DeliveryRow.state == DeliveryState.PENDING)
    return session.exec(query).one()


def _next(session: Session, row: WebhookRow, now: float) -> DeliveryRow | None:
    """Return the delivery whose turn it is: the oldest, but one that was set aside only at its own time.

    While nothing gets through, the oldest that was not set aside tries the line.
    """
    pending = select(DeliveryRow).where(DeliveryRow.webhook == row.id, DeliveryRow.state == DeliveryState.PENDING)
    pending = pending.order_by(col(DeliveryRow.id)).limit(1)
    aside = col(DeliveryRow.attempts) >= HELD_ATTEMPTS
    first = session.exec(pending.where(~aside)).first()
    if first is not None and row.failures:
        return first
    set_aside = pending.where(aside, _has_come(DeliveryRow.next_at, now, LONGEST_PAUSE_S))
    return session.exec(set_aside).first() or first


def _nth_newest(session: Session, which: ColumnElement[bool], n: int) -> int | None:
    """Return the id of the newest delivery that is one too many; None: there are at most `n`."""
    return session.exec(
        select(DeliveryRow.id).where(which).order_by(col(DeliveryRow.id).desc()).offset(n).limit(1)
    ).first()


def _has_come(column: object, now: float, longest_s: float) -> ColumnElement[bool]:
    """Compare an instant with now; one further ahead than was ever meant is of a clock that was set back since."""
    return or_(col(column) <= now, col(column) > now + 2 * longest_s)
