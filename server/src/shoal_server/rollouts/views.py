"""Rollouts as HTTP tells them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from shoal_server.rollouts.creation import Draft
from shoal_server.rollouts.machine import RolloutState
from shoal_server.rollouts.outcomes import faults
from shoal_server.rollouts.plan import Plan, StagePlan
from shoal_server.rollouts.rollout import Member, Rollout, Stage
from shoal_server.rollouts.tables import RolloutEventRow, RolloutRow
from shoal_server.timestamps import rfc3339

MOST_FAULTS = 20
"""Reasons for failing that are told one by one: a device writes what it likes into them."""


def rollout_json(rollout: Rollout) -> dict[str, Any]:
    """Return one rollout with its stages; the form of `shoalctl rollout status --json`."""
    return {
        "name": rollout.name,
        "state": rollout.state.value,
        "reason": reason(rollout),
        "slot": rollout.slot,
        "bundle": rollout.bundle_name,
        "digest": rollout.digest,
        "cohort": rollout.plan.cohort,
        "created_at": rfc3339(rollout.created_at),
        "created_by": rollout.created_by,
        "started_at": rfc3339(rollout.started_at),
        "completed_at": rfc3339(rollout.completed_at),
        "ended_at": rfc3339(rollout.ended_at),
        "standing": rollout.plan.standing,
        "members": len(rollout.members),
        "late": sum(member.late for member in rollout.members.values()),
        "stages": [
            {**stage_json(number, planned, stage), "faults": faults_json(rollout.members_of(number - 1))}
            for number, (planned, stage) in enumerate(zip(rollout.plan.stages, rollout.stages, strict=True), start=1)
        ],
    }


def reason(rollout: Rollout) -> str:
    """Return why a rollout stands where it stands; while it runs, what its present stage waits for."""
    number = rollout.current
    if rollout.state is RolloutState.RUNNING and number is not None and rollout.stages[number].reason:
        return f"stage {number + 1}: {rollout.stages[number].reason}"
    return rollout.reason


def stage_json(number: int, planned: StagePlan, stage: Stage) -> dict[str, Any]:
    """Return one stage with its denominators and gates."""
    return {
        "stage": number,
        "state": stage.state.value,
        "reason": stage.reason,
        **planned_json(planned),
        "opened_at": rfc3339(stage.opened_at),
        "soak_until": rfc3339(stage.soak_until),
        "deadline_at": rfc3339(stage.deadline_at),
        **stage.counts.as_json(),
        "gates": [gate.as_json() for gate in stage.gates],
    }


def planned_json(planned: StagePlan) -> dict[str, Any]:
    """Return what a plan says of a stage."""
    return {
        "percent": round(planned.share * 100, 6),
        "min": planned.at_least,
        "soak_s": planned.soak_s,
        "approval": planned.approval,
    }


def faults_json(members: Iterable[Member]) -> list[dict[str, Any]]:
    """Return why devices failed, the most frequent reason first, with the devices that gave it; the rarest in one."""
    found = list(faults(members).items())
    rest = [device for _, devices in found[MOST_FAULTS:] for device in devices]
    if rest:
        found[MOST_FAULTS:] = [(f"{len(found) - MOST_FAULTS} other reasons", rest)]
    return [{"fault": fault, "devices": len(devices), "examples": devices[:5]} for fault, devices in found]


def members_json(rollout: Rollout) -> list[dict[str, Any]]:
    """Return every member: which stage, since when, and its way back."""
    return [
        {
            "device": member.device,
            "stage": member.stage + 1,
            "stratum": member.stratum,
            "late": member.late,
            "previous": member.previous,
            "previous_name": member.previous_name,
            "attempt": member.attempt,
            "offered_at": rfc3339(member.offered_at),
            "generation": member.generation,
            "proven_at": rfc3339(member.proven_at),
            "returning": member.sent_back,
            "fault": member.fault,
        }
        for member in rollout.members.values()
    ]


def dry_run_json(made: Draft) -> dict[str, Any]:
    """Return what would be done: the exact devices of each stage."""
    rollout = made.rollout
    return {
        "dry_run": True,
        "name": rollout.name,
        "slot": rollout.slot,
        "bundle": rollout.bundle_name,
        "digest": rollout.digest,
        "notes": list(made.notes),
        "stages": [
            {
                "stage": number + 1,
                **planned_json(planned),
                "devices": [member.device for member in rollout.members_of(number)],
            }
            for number, planned in enumerate(rollout.plan.stages)
        ],
    }


def row_json(row: RolloutRow, plan: Plan) -> dict[str, Any]:
    """Return one line of a list."""
    return {
        "name": row.name,
        "state": row.state,
        "reason": row.reason,
        "slot": row.slot,
        "bundle": row.bundle_name,
        "digest": row.digest,
        "cohort": plan.cohort,
        "stages": [{"state": stage["state"], **stage["counts"]} for stage in row.stages],
        "created_at": rfc3339(row.created_at),
        "created_by": row.created_by,
        "completed_at": rfc3339(row.completed_at),
        "ended_at": rfc3339(row.ended_at),
    }


def event_json(row: RolloutEventRow) -> dict[str, Any]:
    """Return one entry of a history."""
    return {
        "id": row.id,
        "at": rfc3339(row.at),
        "actor": row.actor,
        "action": row.action,
        "stage": row.stage,
        "reason": row.reason,
        "before": row.before,
        "after": row.after,
    }
