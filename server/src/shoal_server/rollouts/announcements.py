"""Rollouts as events for webhooks: which entry of a rollout's history is told outside, and in what words."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from sqlmodel import Session

from shoal_server.outbox import Event, EventType, announce
from shoal_server.outbox.event_types import RolloutData
from shoal_server.outbox.places import page_of
from shoal_server.rollouts.effects import Record
from shoal_server.rollouts.machine import RolloutState, StageState
from shoal_server.rollouts.rollout import Rollout

_STAGES: Mapping[str, EventType] = MappingProxyType(
    {
        f"rollout.stage.{StageState.PASSED}": EventType.ROLLOUT_STAGE_PASSED,
        f"rollout.stage.{StageState.FAILED}": EventType.ROLLOUT_STAGE_FAILED,
        f"rollout.stage.{StageState.AWAITING_APPROVAL}": EventType.ROLLOUT_AWAITING_APPROVAL,
    }
)
_STATES: Mapping[str, EventType] = MappingProxyType(
    {
        RolloutState.AWAITING_APPROVAL: EventType.ROLLOUT_AWAITING_APPROVAL,
        RolloutState.PAUSED: EventType.ROLLOUT_PAUSED,
        RolloutState.COMPLETED: EventType.ROLLOUT_COMPLETED,
        RolloutState.ROLLING_BACK: EventType.ROLLOUT_ROLLING_BACK,
        RolloutState.ROLLED_BACK: EventType.ROLLOUT_ROLLED_BACK,
        RolloutState.CANCELLED: EventType.ROLLOUT_ABORTED,
    }
)
_TITLES: Mapping[EventType, str] = MappingProxyType(
    {
        EventType.ROLLOUT_CREATED: "Rollout {name} was created",
        EventType.ROLLOUT_AWAITING_APPROVAL: "Rollout {name}{stage} waits for approval",
        EventType.ROLLOUT_STARTED: "Rollout {name} has started",
        EventType.ROLLOUT_STAGE_PASSED: "Rollout {name}{stage} passed",
        EventType.ROLLOUT_STAGE_FAILED: "Rollout {name}{stage} failed",
        EventType.ROLLOUT_PAUSED: "Rollout {name} is paused",
        EventType.ROLLOUT_RESUMED: "Rollout {name} goes on",
        EventType.ROLLOUT_ABORTED: "Rollout {name} was aborted",
        EventType.ROLLOUT_ROLLING_BACK: "Rollout {name} is being rolled back",
        EventType.ROLLOUT_ROLLED_BACK: "Rollout {name} was rolled back",
        EventType.ROLLOUT_COMPLETED: "Rollout {name} is completed",
    }
)


def event_types_of(entry: Record) -> list[EventType]:
    """Return the events that an entry of the history is; most are one or none."""
    if entry.stage is not None and entry.action in _STAGES:
        return [_STAGES[entry.action]]
    before, after = _state(entry.before), _state(entry.after)
    created = [EventType.ROLLOUT_CREATED] if entry.action == "rollout.create" else []
    if after == before:
        return created
    if after == RolloutState.RUNNING:
        resumed = before == RolloutState.PAUSED
        return [EventType.ROLLOUT_RESUMED if resumed else EventType.ROLLOUT_STARTED]
    if after == RolloutState.ROLLING_BACK and entry.action == "rollout.abort":
        return [EventType.ROLLOUT_ABORTED]
    return [*created, _STATES[after]] if after in _STATES else created


def announce_entry(session: Session, rollout: Rollout, entry: Record, *, actor: str, now: float) -> None:
    """Announce what an entry of a rollout's history says, in the transaction that writes it."""
    for type_ in event_types_of(entry):
        data = RolloutData(
            rollout=rollout.name,
            state=rollout.state.value,
            reason=entry.reason,
            actor=actor,
            stage=entry.stage,
            slot=rollout.slot,
            bundle=rollout.bundle_name,
            digest=rollout.digest,
            cohort=rollout.plan.cohort,
        )
        stage = f", stage {entry.stage}," if entry.stage is not None else ""
        where = f"slot {rollout.slot}, bundle {rollout.bundle_name}"
        event = Event(
            type=type_,
            subject=f"rollout:{rollout.name}",
            title=_TITLES[type_].format(name=rollout.name, stage=stage),
            text=f"{entry.reason} ({where})" if entry.reason else where.capitalize(),
            page=page_of(f"rollout:{rollout.name}"),
            data=data,
            at=now,
        )
        announce(session, event)


def _state(change: Any) -> str:
    """Return the rollout's state that one side of an entry tells; empty: none."""
    return str(change.get("state", "")) if isinstance(change, Mapping) else ""
