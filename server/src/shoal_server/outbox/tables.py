"""The tables of webhooks, of the events that somebody wants, and of their deliveries.

Deliveries name webhook and event without foreign keys, on purpose: a webhook that is deleted at the very moment must
never make the transaction fail that announces something. `webhooks.queue.prune` takes what is left over.
"""

from enum import StrEnum
from typing import Any

from sqlalchemy import JSON, BigInteger, Column, Index, Integer, Text
from sqlmodel import Field, SQLModel


def _key() -> Any:
    return Field(default=None, sa_column=Column(BigInteger().with_variant(Integer, "sqlite"), primary_key=True))


class DeliveryState(StrEnum):
    """Where one delivery is."""

    PENDING = "pending"  # to be sent, perhaps again
    DELIVERED = "delivered"  # the receiver answered 2xx
    FAILED = "failed"  # given up, or the webhook was disabled; can be sent again by hand


class WebhookRow(SQLModel, table=True):
    """A receiver of events, with what it wants and how it is doing."""

    __tablename__ = "webhooks"
    __table_args__ = ({"sqlite_autoincrement": True},)
    id: int | None = _key()
    name: str = Field(unique=True)
    url: str = Field(sa_type=Text)
    """Often a secret by itself, as Slack's are; shown whole to admins only."""
    format: str
    types: list[str] = Field(sa_column=Column(JSON, nullable=False))
    min_severity: str | None = None
    enabled: bool = True
    disabled_reason: str = ""
    """Why the server disabled it; empty: a person did, or it is enabled."""
    secret: str
    """Signs what is sent, so it can't be stored as a hash."""
    old_secret: str = ""
    old_secret_until: float = 0.0
    revision: int = 1
    """Grows with every edit; its entity tag."""
    created_at: float
    created_by: str
    failures: int = 0
    """Attempts that failed since the last that succeeded."""
    failing_since: float | None = None
    delivered_at: float | None = None
    retry_at: float = 0.0
    """No attempt before this."""
    claim: str = ""
    """Of the worker that is sending to it now."""
    claimed_until: float = 0.0


class EventRow(SQLModel, table=True):
    """Something that happened, as `event_types.Event` describes it; kept while a delivery of it is."""

    __tablename__ = "webhook_events"
    id: str = Field(primary_key=True)
    type: str
    subject: str
    at: float
    severity: str | None = None
    title: str
    text: str = Field(sa_type=Text)
    page: str
    data: dict[str, Any] = Field(sa_column=Column(JSON, nullable=False))


class DeliveryRow(SQLModel, table=True):
    """One event for one webhook, and what came of it."""

    __tablename__ = "webhook_deliveries"
    __table_args__ = (
        Index(None, "webhook", "state", "id"),
        {"sqlite_autoincrement": True},
    )
    id: int | None = _key()
    webhook: int = Field(sa_type=BigInteger)
    event: str = Field(index=True)
    state: str = DeliveryState.PENDING.value
    created_at: float
    attempts: int = 0
    next_at: float = 0.0
    """Of one that was set aside: no attempt before this."""
    attempted_at: float | None = None
    finished_at: float | None = None
    status: int | None = None
    """HTTP status of the last answer; None: none came."""
    latency_ms: int | None = None
    error: str = ""
    response_head: str = Field(default="", sa_type=Text)
    redelivery_of: int | None = Field(default=None, sa_type=BigInteger)
