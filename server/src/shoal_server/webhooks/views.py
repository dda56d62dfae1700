"""Webhooks and deliveries as HTTP tells them."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit

from shoal_server.outbox.event_types import EventType
from shoal_server.outbox.tables import DeliveryRow, EventRow, WebhookRow
from shoal_server.timestamps import rfc3339
from shoal_server.webhooks.store import entity_tag


def webhook_json(row: WebhookRow, *, whole: bool) -> dict[str, Any]:
    """Return a webhook without its secret.

    Args:
        row: As stored.
        whole: Whether the reader may see the path of its URL, which is often a secret by itself.
    """
    return {
        "name": row.name,
        "url": row.url if whole else masked(row.url),
        "types": list(row.types),
        "min_severity": row.min_severity,
        "format": row.format,
        "enabled": row.enabled,
        "disabled_reason": row.disabled_reason,
        "created_at": rfc3339(row.created_at),
        "created_by": row.created_by,
        "delivered_at": rfc3339(row.delivered_at),
        "failing_since": rfc3339(row.failing_since),
        "failures": row.failures,
        "retry_at": rfc3339(row.retry_at or None),
        "etag": entity_tag(row),
    }


def audited(row: WebhookRow) -> dict[str, Any]:
    """Return what the audit keeps of a webhook: no secret, nothing of its URL but the host."""
    names = ("types", "min_severity", "format", "enabled")
    return {"url": masked(row.url), **{name: getattr(row, name) for name in names}}


def masked(url: str) -> str:
    """Return a URL without what could be a secret.

    >>> masked("https://hooks.example.com/services/T0/B0/xyz")
    'https://hooks.example.com/…'
    """
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}/…" if parts.path.strip("/") or parts.query else url


def delivery_json(row: DeliveryRow, event: EventRow) -> dict[str, Any]:
    """Return one line of the log."""
    return {
        "id": row.id,
        "event": event.id,
        "type": EventType(event.type).wire_name,
        "subject": event.subject,
        "title": event.title,
        "at": rfc3339(event.at),
        "state": row.state,
        "attempts": row.attempts,
        "status": row.status,
        "latency_ms": row.latency_ms,
        "error": row.error,
        "response_head": row.response_head,
        "attempted_at": rfc3339(row.attempted_at),
        "finished_at": rfc3339(row.finished_at),
        "redelivery_of": row.redelivery_of,
    }
