"""Tables of rollouts, their members and history, and of denied bundles."""

from typing import Any

from sqlalchemy import JSON, BigInteger, Column
from sqlmodel import Field, SQLModel


class RolloutRow(SQLModel, table=True):
    """One rollout, as `rollout.Rollout` describes it; its members apart."""

    __tablename__ = "rollouts"
    name: str = Field(primary_key=True)
    slot: str = Field(index=True)
    state: str = Field(index=True)
    digest: str
    bundle_name: str
    salt: str
    reason: str
    plan: dict[str, Any] = Field(sa_column=Column(JSON, nullable=False))
    """As it was sent."""
    stages: list[Any] = Field(sa_column=Column(JSON, nullable=False))
    created_at: float
    created_by: str
    started_at: float | None = None
    completed_at: float | None = None
    ended_at: float | None = None
    retry_wanted: bool = False
    revision: int = 0
    """Grows with every save."""


class MemberRow(SQLModel, table=True):
    """One device of a rollout, as `rollout.Member` describes it."""

    __tablename__ = "rollout_members"
    rollout: str = Field(primary_key=True, foreign_key="rollouts.name")
    device: str = Field(primary_key=True, index=True)
    stage: int
    stratum: str
    late: bool = False
    previous: str | None = None
    previous_name: str | None = None
    attempt: int = 0
    offered_at: float | None = None
    generation: int | None = Field(default=None, sa_type=BigInteger)
    proven_at: float | None = None
    sent_back: bool = False
    fault: str = ""


class RolloutEventRow(SQLModel, table=True):
    """One entry of a rollout's history."""

    __tablename__ = "rollout_events"
    id: int | None = Field(default=None, primary_key=True)
    rollout: str = Field(index=True, foreign_key="rollouts.name")
    at: float
    actor: str
    action: str
    stage: int | None = None
    reason: str
    before: Any = Field(default=None, sa_column=Column(JSON(none_as_null=True), nullable=True))
    after: Any = Field(default=None, sa_column=Column(JSON(none_as_null=True), nullable=True))


class DenialRow(SQLModel, table=True):
    """A bundle that a rollback barred from a slot of a cohort."""

    __tablename__ = "denials"
    id: int | None = Field(default=None, primary_key=True)
    slot: str = Field(index=True)
    digest: str
    cohort: str
    rollout: str
    reason: str
    at: float
    lifted_at: float | None = None
    lift_reason: str = ""
