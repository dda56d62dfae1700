"""Webhooks and the log of their deliveries, stored: made, edited, taken away, listed, sent again by hand.

Owns the rules of what a webhook may be. Leaves sending to `courier` and the queue to `queue`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from sqlalchemy import delete
from sqlmodel import Session, col, func, select

from shoal_protocol.errors import CallerError
from shoal_server.errors import ConflictError, NotFoundError, PreconditionError
from shoal_server.outbox.filters import parse_min_severity, parse_patterns
from shoal_server.outbox.tables import DeliveryRow, DeliveryState, EventRow, WebhookRow
from shoal_server.storage.database import lock_for_transaction
from shoal_server.webhooks.bodies import parse_format
from shoal_server.webhooks.signature import new_secret

MAX_WEBHOOKS = 100
OLD_SECRET_S = 86_400.0
"""For so long after a change of secret, both sign."""
_NAME_RE = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}")


@dataclass(frozen=True, kw_only=True)
class Wish:
    """What a webhook shall be.

    Attributes:
        types: Patterns of event types.
        min_severity: Of alerts; None: all.
    """

    url: str
    types: tuple[str, ...]
    min_severity: str | None
    format: str
    enabled: bool

    def checked(self) -> Wish:
        """Return it in its canonical form; raises `CallerError` for what can't be."""
        return Wish(
            url=self.url,
            types=parse_patterns(self.types),
            min_severity=parse_min_severity(self.min_severity),
            format=parse_format(self.format).value,
            enabled=self.enabled,
        )


def create(session: Session, name: str, wish: Wish, *, by: str, now: float) -> WebhookRow:
    """Store a new webhook with a new secret.

    Raises:
        CallerError: The name or the wish has a form that is not allowed.
        ConflictError: The name is taken, or there are too many.
    """
    if _NAME_RE.fullmatch(name) is None:
        raise CallerError(
            f"{name!r:.80} is no name for a webhook", hint="up to 63 of a-z, 0-9, '.', '_' and '-', such as chat-alerts"
        )
    lock_for_transaction(session, "webhooks")
    if session.exec(select(WebhookRow.id).where(WebhookRow.name == name)).first() is not None:
        raise ConflictError(f"there is already a webhook {name}", hint=f"change it: shoalctl webhook edit {name}")
    if session.exec(select(func.count()).select_from(WebhookRow)).one() >= MAX_WEBHOOKS:
        raise ConflictError(f"there are {MAX_WEBHOOKS} webhooks, which is as many as there can be")
    wish = wish.checked()
    row = WebhookRow(
        name=name,
        url=wish.url,
        format=wish.format,
        types=list(wish.types),
        min_severity=wish.min_severity,
        enabled=wish.enabled,
        secret=new_secret(),
        created_at=now,
        created_by=by,
    )
    session.add(row)
    session.flush()
    return row


def edit(session: Session, row: WebhookRow, wish: Wish) -> None:
    """Change a webhook; one that is enabled again begins afresh.

    Raises:
        CallerError: The wish has a form that is not allowed.
    """
    wish = wish.checked()
    if (wish.enabled and not row.enabled) or wish.url != row.url:
        row.failures, row.failing_since, row.retry_at = 0, None, 0.0
    if wish.enabled:
        row.disabled_reason = ""
    row.url, row.format, row.enabled = wish.url, wish.format, wish.enabled
    row.types, row.min_severity = list(wish.types), wish.min_severity
    row.revision += 1
    session.add(row)
    session.flush()


def rotate(session: Session, row: WebhookRow, *, now: float) -> None:
    """Give a webhook a new secret; the old one signs too for a day."""
    row.old_secret, row.old_secret_until = row.secret, now + OLD_SECRET_S
    row.secret = new_secret()
    row.revision += 1
    session.add(row)
    session.flush()


def remove(session: Session, row: WebhookRow) -> None:
    """Delete a webhook with its log."""
    session.execute(delete(DeliveryRow).where(col(DeliveryRow.webhook) == row.id))
    session.delete(row)
    session.flush()


def get(session: Session, name: str) -> WebhookRow:
    """Return a webhook; raises `NotFoundError`."""
    return _found(session.exec(select(WebhookRow).where(WebhookRow.name == name)).first(), name)


def locked(session: Session, name: str) -> WebhookRow:
    """Return a webhook to be changed, which no other transaction changes meanwhile; raises `NotFoundError`."""
    return _found(session.exec(select(WebhookRow).where(WebhookRow.name == name).with_for_update()).first(), name)


def check_tag(row: WebhookRow, tag: str) -> None:
    """Refuse an edit of a state that is no longer the present one; raises `PreconditionError`."""
    if tag.strip() not in {entity_tag(row), "*"}:
        raise PreconditionError(
            f"the webhook {row.name} was changed meanwhile: its entity tag is {entity_tag(row)}, not {tag:.40}",
            hint="read it again, then decide again",
        )


def entity_tag(row: WebhookRow) -> str:
    """Return the entity tag of what people edit of a webhook."""
    return f'"{row.id}-{row.revision}"'


def webhooks(session: Session) -> list[WebhookRow]:
    """Return all webhooks, by name."""
    return list(session.exec(select(WebhookRow).order_by(WebhookRow.name)))


def deliveries(
    session: Session,
    row: WebhookRow,
    *,
    state: DeliveryState | None = None,
    before_id: int | None = None,
    limit: int = 100,
) -> list[tuple[DeliveryRow, EventRow]]:
    """Return deliveries with their events, the newest first, older than delivery `before_id`."""
    query = select(DeliveryRow, EventRow).where(
        DeliveryRow.webhook == row.id, col(EventRow.id) == col(DeliveryRow.event)
    )
    if state is not None:
        query = query.where(DeliveryRow.state == state)
    if before_id is not None:
        query = query.where(col(DeliveryRow.id) < before_id)
    return [(found, event) for found, event in session.exec(query.order_by(col(DeliveryRow.id).desc()).limit(limit))]


def delivery(session: Session, row: WebhookRow, delivery_id: int) -> tuple[DeliveryRow, EventRow]:
    """Return one delivery of a webhook with its event; raises `NotFoundError`."""
    found = session.get(DeliveryRow, delivery_id)
    event = None if found is None or found.webhook != row.id else session.get(EventRow, found.event)
    if found is None or event is None:
        raise NotFoundError(
            f"the webhook {row.name} has no delivery {delivery_id}", hint=f"shoalctl webhook deliveries {row.name}"
        )
    return found, event


def redeliver(session: Session, row: WebhookRow, delivery_id: int, *, now: float) -> tuple[DeliveryRow, EventRow]:
    """Have an event sent once more, with the id that it always had; the earlier delivery stays in the log.

    Raises:
        NotFoundError: There is no such delivery.
        ConflictError: The webhook is disabled, or the delivery still waits for its turn.
    """
    earlier, event = delivery(session, row, delivery_id)
    if not row.enabled:
        raise ConflictError(
            f"the webhook {row.name} is disabled", hint=f"enable it first: shoalctl webhook edit {row.name} --enable"
        )
    if earlier.state == DeliveryState.PENDING:
        raise ConflictError(f"delivery {delivery_id} still waits for its turn; it needs no help")
    again = DeliveryRow(webhook=earlier.webhook, event=earlier.event, created_at=now, redelivery_of=earlier.id)
    session.add(again)
    session.flush()
    return again, event


def _found(row: WebhookRow | None, name: str) -> WebhookRow:
    if row is None:
        raise NotFoundError(f"there is no webhook {name!r:.80}", hint="shoalctl webhook list")
    return row
