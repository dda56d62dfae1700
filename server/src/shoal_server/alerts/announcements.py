"""Alerts as events for webhooks: the same words that people read everywhere else."""

from __future__ import annotations

from sqlmodel import Session

from shoal_server.alerts.tables import Alert
from shoal_server.outbox import Event, EventType, announce
from shoal_server.outbox.event_types import AlertData
from shoal_server.outbox.places import page_of
from shoal_server.timestamps import rfc3339


def announce_alert(session: Session, alert: Alert, type_: EventType, *, now: float) -> None:
    """Announce what became of an alert, in the transaction that stored it."""
    assert alert.id is not None
    data = AlertData(
        alert=alert.id,
        kind=alert.kind,
        about=alert.subject,
        severity=str(alert.severity),
        state=str(alert.state),
        count=alert.count,
        raised_at=rfc3339(alert.raised_at) or "",
        key=alert.key,
    )
    announce(
        session,
        Event(
            type=type_,
            subject=f"alert:{alert.id}",
            title=alert.title,
            text=alert.body,
            page=page_of(alert.subject) or "/alerts",
            severity=str(alert.severity),
            data=data,
            at=now,
        ),
    )
