"""Says that something happened, inside the transaction that makes it happen.

Owns the outbox pattern: event and deliveries are rows of the same commit as the change, so what was rolled back is
never told and what was committed always is, whatever becomes of the process. An event that nobody wants leaves no row.
Leaves the sending to the worker in `webhooks`.
"""

from __future__ import annotations

import uuid

import msgspec
from sqlmodel import Session, col, select

from shoal_server.outbox.event_types import Event
from shoal_server.outbox.filters import wants
from shoal_server.outbox.tables import DeliveryRow, EventRow, WebhookRow

MAX_TITLE, MAX_TEXT = 300, 20_000


def announce(session: Session, event: Event) -> int:
    """Write an event for every webhook that wants it; returns how many do.

    Args:
        session: Of the open write transaction that makes it happen.
        event: What happened.
    """
    enabled = select(WebhookRow.id, WebhookRow.types, WebhookRow.min_severity).where(col(WebhookRow.enabled))
    name, severity = event.type.value, event.severity
    hooks = [
        hook
        for hook, types, least in session.exec(enabled).all()
        if hook is not None and wants(types, least, name=name, severity=severity)
    ]
    if hooks:
        row = event_row(event)
        session.add(row)
        session.flush()
        session.add_all(DeliveryRow(webhook=hook, event=row.id, created_at=event.at) for hook in sorted(hooks))
        session.flush()
    return len(hooks)


def event_row(event: Event) -> EventRow:
    """Return an event as it is stored, under a new id, which stays the same however often it is sent."""
    return EventRow(
        id=f"evt_{uuid.uuid4().hex}",
        type=event.type.value,
        subject=event.subject,
        at=event.at,
        severity=event.severity,
        title=_storable(event.title)[:MAX_TITLE],
        text=_storable(event.text)[:MAX_TEXT],
        page=event.page,
        data=msgspec.to_builtins(event.data),
    )


def _storable(text: str) -> str:
    return text.replace("\0", "")  # PostgreSQL takes none
