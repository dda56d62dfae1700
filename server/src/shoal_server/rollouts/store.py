"""Rollouts, stored: the rows behind the value that the controller works on.

Owns loading and saving of `rollout.Rollout`, its history, and the deny list. A save writes only the members that have
changed, and makes the revision grow, by which a decision on an older state is noticed.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass, fields
from typing import Any, Literal

from sqlalchemy import bindparam, update
from sqlmodel import Session, col, select

from shoal_server.errors import NotFoundError
from shoal_server.rollouts.gates import Counts, GateResult
from shoal_server.rollouts.machine import ACTIVE, RolloutState, StageState
from shoal_server.rollouts.plan import parse_plan
from shoal_server.rollouts.rollout import Member, Rollout, Stage
from shoal_server.rollouts.tables import DenialRow, MemberRow, RolloutEventRow, RolloutRow

# Columns, not entities: the members of a large rollout are read at every tick.
_MEMBER_FIELDS = tuple(field.name for field in fields(Member))
_MEMBER = tuple(getattr(MemberRow, name) for name in _MEMBER_FIELDS)
_UPDATE_MEMBER = (
    update(MemberRow)
    .where(col(MemberRow.rollout) == bindparam("of_rollout"), col(MemberRow.device) == bindparam("of_device"))
    .values({name: bindparam(name) for name in _MEMBER_FIELDS if name != "device"})
)


@dataclass(frozen=True)
class Loaded:
    """A rollout as it was read.

    Attributes:
        revision: Of the row; a save is only right on the same one.
    """

    rollout: Rollout
    revision: int


def insert(session: Session, rollout: Rollout, plan: dict[str, Any]) -> None:
    """Store a new rollout with its members."""
    row = RolloutRow(
        name=rollout.name,
        slot=rollout.slot,
        state=rollout.state.value,
        digest=rollout.digest,
        bundle_name=rollout.bundle_name,
        salt=rollout.salt,
        reason=rollout.reason,
        plan=plan,
        stages=[_stage_json(stage) for stage in rollout.stages],
        created_at=rollout.created_at,
        created_by=rollout.created_by,
    )
    session.add(row)
    session.flush()
    session.add_all(_member_row(rollout.name, member) for member in rollout.members.values())
    session.flush()


def exists(session: Session, name: str) -> bool:
    """Tell whether a rollout of that name was ever made."""
    return session.get(RolloutRow, name) is not None


def load(session: Session, name: str, *, lock: Literal["none", "wait", "skip"] = "none") -> Loaded | None:
    """Return a rollout.

    Args:
        session: Of an open transaction.
        name: Of the rollout.
        lock: `wait` for its row, or `skip` it (None is returned) while somebody else has it locked. SQLite has one
            writer anyway.

    Raises:
        NotFoundError: There is no such rollout.
    """
    query = select(RolloutRow).where(RolloutRow.name == name)
    if lock != "none":
        query = query.with_for_update(skip_locked=lock == "skip")
    row = session.exec(query).first()
    if row is None:
        if lock == "skip" and exists(session, name):
            return None
        raise NotFoundError(f"there is no rollout {name!r:.80}", hint="shoalctl rollout list")
    found = session.execute(select(*_MEMBER).where(MemberRow.rollout == name).order_by(MemberRow.device))
    members = (Member(**dict(zip(_MEMBER_FIELDS, member, strict=True))) for member in found)
    return Loaded(_rollout(row, members), row.revision)


def read(session: Session, name: str) -> Rollout:
    """Return a rollout for looking at; raises `NotFoundError`."""
    loaded = load(session, name)
    assert loaded is not None
    return loaded.rollout


def save(session: Session, before: Rollout, after: Rollout) -> None:
    """Store what has changed; the caller holds the row's lock."""
    row = session.get_one(RolloutRow, after.name)
    row.state, row.reason, row.retry_wanted = after.state.value, after.reason, after.retry_wanted
    row.started_at, row.completed_at, row.ended_at = after.started_at, after.completed_at, after.ended_at
    if after.stages is not before.stages:
        row.stages = [_stage_json(stage) for stage in after.stages]
    row.revision += 1
    session.add(row)
    session.flush()
    changed = [member for device, member in after.members.items() if device in before.members]
    changed = [member for member in changed if before.members[member.device] is not member]
    joined = [member for device, member in after.members.items() if device not in before.members]
    if changed:
        session.connection().execute(_UPDATE_MEMBER, [_member_values(after.name, member) for member in changed])
    session.add_all(_member_row(after.name, member) for member in joined)
    session.flush()


def names(session: Session, states: Collection[RolloutState]) -> list[str]:
    """Return the names of rollouts in some states, the oldest first."""
    query = select(RolloutRow.name).where(col(RolloutRow.state).in_([state.value for state in states]))
    return list(session.exec(query.order_by(col(RolloutRow.created_at), RolloutRow.name)))


def recent(session: Session, *, before: tuple[float, str] | None = None, limit: int = 100) -> list[RolloutRow]:
    """Return rows for a list, the newest first, older than (created_at, name)."""
    query = select(RolloutRow).order_by(col(RolloutRow.created_at).desc(), col(RolloutRow.name).desc()).limit(limit)
    if before is not None:
        at, name = before
        query = query.where(
            (col(RolloutRow.created_at) < at) | ((col(RolloutRow.created_at) == at) & (col(RolloutRow.name) < name))
        )
    return list(session.exec(query))


def holders(session: Session, slot: str, *, apart_from: str = "") -> dict[str, str]:
    """Return which active rollout holds the slot on each device."""
    query = (
        select(MemberRow.device, MemberRow.rollout)
        .join(RolloutRow, col(RolloutRow.name) == MemberRow.rollout)
        .where(RolloutRow.slot == slot, RolloutRow.name != apart_from)
        .where(col(RolloutRow.state).in_([state.value for state in ACTIVE]))
    )
    return dict(session.exec(query).all())


def superseded(session: Session, rollout: Rollout) -> frozenset[str]:
    """Return the devices whose slot a newer rollout, completed or left, was the last to change."""
    lasting = (RolloutState.COMPLETED.value, RolloutState.CANCELLED.value)
    query = (
        select(MemberRow.device)
        .join(RolloutRow, col(RolloutRow.name) == MemberRow.rollout)
        .where(RolloutRow.slot == rollout.slot, RolloutRow.name != rollout.name)
        .where(col(RolloutRow.state).in_(lasting), col(RolloutRow.created_at) > rollout.created_at)
        .where(col(MemberRow.offered_at).is_not(None))
    )
    return frozenset(session.exec(query))


def newer_standing_cohorts(session: Session, rollout: Rollout) -> list[str]:
    """Return the cohorts whose standing assignment of the slot is newer than this completed rollout."""
    query = select(RolloutRow).where(
        RolloutRow.slot == rollout.slot,
        RolloutRow.state == RolloutState.COMPLETED.value,
        col(RolloutRow.completed_at) > (rollout.completed_at or 0.0),
    )
    plans = [parse_plan(row.plan) for row in session.exec(query)]
    return [plan.cohort for plan in plans if plan.standing]


def record(
    session: Session,
    *,
    rollout: str,
    at: float,
    actor: str,
    action: str,
    reason: str,
    stage: int | None,
    before: Any,
    after: Any,
) -> None:
    """Add an entry to a rollout's history."""
    session.add(
        RolloutEventRow(
            rollout=rollout,
            at=at,
            actor=actor,
            action=action,
            reason=reason,
            stage=stage,
            before=before,
            after=after,
        )
    )


def history(session: Session, name: str, *, after_id: int = 0, limit: int = 100) -> list[RolloutEventRow]:
    """Return a rollout's history, the oldest first, after one entry."""
    query = select(RolloutEventRow).where(RolloutEventRow.rollout == name, col(RolloutEventRow.id) > after_id)
    return list(session.exec(query.order_by(col(RolloutEventRow.id)).limit(limit)))


def denials(session: Session, slot: str) -> list[DenialRow]:
    """Return what is barred from a slot now."""
    query = select(DenialRow).where(DenialRow.slot == slot, col(DenialRow.lifted_at).is_(None))
    return list(session.exec(query.order_by(col(DenialRow.id))))


def deny(session: Session, rollout: Rollout, *, reason: str, now: float) -> None:
    """Bar a rollout's bundle from its slot and cohort."""
    session.add(
        DenialRow(
            slot=rollout.slot,
            digest=rollout.digest,
            cohort=rollout.plan.cohort,
            rollout=rollout.name,
            reason=reason,
            at=now,
        )
    )


def lift_denials(session: Session, *, slot: str, digest: str, reason: str, now: float) -> None:
    """Let a bundle into a slot again, in all cohorts."""
    for row in denials(session, slot):
        if row.digest == digest:
            row.lifted_at, row.lift_reason = now, reason
            session.add(row)


def _rollout(row: RolloutRow, members: Iterable[Member]) -> Rollout:
    return Rollout(
        plan=parse_plan(row.plan),
        digest=row.digest,
        bundle_name=row.bundle_name,
        salt=row.salt,
        created_at=row.created_at,
        created_by=row.created_by,
        state=RolloutState(row.state),
        reason=row.reason,
        started_at=row.started_at,
        completed_at=row.completed_at,
        ended_at=row.ended_at,
        retry_wanted=row.retry_wanted,
        stages=tuple(stage_from_json(stage) for stage in row.stages),
        members={member.device: member for member in members},
    )


def _member_row(rollout: str, member: Member) -> MemberRow:
    return MemberRow(rollout=rollout, **{name: getattr(member, name) for name in _MEMBER_FIELDS})


def _member_values(rollout: str, member: Member) -> dict[str, Any]:
    """Return the parameters of `_UPDATE_MEMBER`."""
    return {"of_rollout": rollout, "of_device": member.device} | {
        name: getattr(member, name) for name in _MEMBER_FIELDS if name != "device"
    }


def _stage_json(stage: Stage) -> dict[str, Any]:
    return {
        "state": stage.state.value,
        "opened_at": stage.opened_at,
        "soak_until": stage.soak_until,
        "deadline_at": stage.deadline_at,
        "counts": stage.counts.as_json(),
        "gates": [gate.as_json() for gate in stage.gates],
        "reason": stage.reason,
    }


def stage_from_json(stored: dict[str, Any]) -> Stage:
    """Return the stage that a row holds."""
    return Stage(
        **{
            **stored,
            "state": StageState(stored["state"]),
            "counts": Counts(**stored["counts"]),
            "gates": tuple(GateResult.from_json(gate) for gate in stored["gates"]),
        }
    )
