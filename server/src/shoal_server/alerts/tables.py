"""The table of alerts."""

from sqlalchemy import BigInteger, Column, Index, Integer, Text, text
from sqlmodel import Field, SQLModel

_NOT_RESOLVED = text("state <> 'resolved'")


class Alert(SQLModel, table=True):
    """One thing that people are told; at most one that is not resolved for each key."""

    __tablename__ = "alerts"
    __table_args__ = (
        Index("uq_alerts_open_key", "key", unique=True, sqlite_where=_NOT_RESOLVED, postgresql_where=_NOT_RESOLVED),
        {"sqlite_autoincrement": True},
    )
    id: int | None = Field(
        default=None, sa_column=Column(BigInteger().with_variant(Integer, "sqlite"), primary_key=True)
    )
    key: str
    """What makes two reports of one cause the same alert."""
    kind: str = Field(index=True)
    """For example `drift`, `rollout`, `device`."""
    subject: str = Field(index=True)
    """What it is about, such as `slot:quality` or `rollout:quality-1.4`."""
    severity: str
    title: str
    body: str = Field(sa_type=Text)
    state: str = Field(index=True)
    count: int = 1
    """How often it was raised."""
    raised_at: float
    updated_at: float
    acknowledged_at: float | None = None
    acknowledged_by: str | None = None
    resolved_at: float | None = None
    silenced_until: float | None = None
