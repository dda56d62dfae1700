"""A test of one webhook: sent at once, once, and logged like any delivery."""

from __future__ import annotations

from sqlmodel import Session

from shoal_server.outbox import Event, EventType
from shoal_server.outbox.announce import event_row
from shoal_server.outbox.event_types import TestData
from shoal_server.outbox.tables import DeliveryRow, DeliveryState, EventRow, WebhookRow
from shoal_server.services import Services
from shoal_server.webhooks.courier import post
from shoal_server.webhooks.queue import Parcel


async def try_out(program: Services, row: WebhookRow, *, actor: str) -> tuple[DeliveryRow, EventRow]:
    """Send a test to a webhook.

    Args:
        program: Its sender, clock and address are used.
        row: The webhook, enabled or not.
        actor: Who asks for it.

    Returns:
        What to log, not stored yet.
    """
    now = program.clock()
    event = event_row(
        Event(
            type=EventType.WEBHOOK_TEST,
            subject=f"webhook:{row.name}",
            title=f"Test of the webhook {row.name}",
            text=f"Asked for by {actor}. If you can read this, events arrive here.",
            page=f"/webhooks/{row.name}",
            data=TestData(webhook=row.name, actor=actor),
            at=now,
        )
    )
    assert row.id is not None
    parcel = Parcel(
        delivery=0,
        webhook=row.id,
        name=row.name,
        url=row.url,
        format=row.format,
        secrets=(row.secret,),
        event=event,
        claim="",
    )
    answer = await post(program.webhooks, parcel, source=program.url, timestamp_s=int(now))
    state = DeliveryState.DELIVERED if answer.ok else DeliveryState.FAILED
    delivery = DeliveryRow(
        webhook=row.id,
        event=event.id,
        state=state.value,
        created_at=now,
        attempts=1,
        attempted_at=now,
        finished_at=program.clock(),
        status=answer.status,
        latency_ms=answer.latency_ms,
        error=answer.error,
        response_head=answer.head,
    )
    return delivery, event


def log(session: Session, delivery: DeliveryRow, event: EventRow) -> None:
    """Store what came of a test."""
    session.add_all([event, delivery])
    session.flush()
