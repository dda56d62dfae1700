"""Three rollouts to look at: completed, rolled back by its output gate, and soaking. Data, and how they are stored.

Times are seconds from the moment of seeding.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from sqlmodel import Session

from shoal_server.access import audit
from shoal_server.rollouts import store as rollouts
from shoal_server.rollouts.gates import Counts, GateResult, Verdict
from shoal_server.rollouts.machine import RolloutState, StageState
from shoal_server.rollouts.plan import parse_plan
from shoal_server.rollouts.rollout import Member, Rollout, Stage

SITES = ("bern", "basel", "geneva")
DEVICES = tuple(f"cam-{SITES[at % 3]}-{at // 3 + 1:02}" for at in range(30))
_FIRST_OF_STAGE = (0, 3, 12)
_DAY = 86_400


def gate(
    name: str, verdict: str, value: float | None, threshold: float, reason: str, *, n: int = 9, devices: int = 9
) -> GateResult:
    """One gate's answer."""
    return GateResult(
        gate=name,
        verdict=Verdict(verdict),
        value=value,
        bound=None if value is None else value * 0.8,
        threshold=threshold,
        n=n,
        devices=devices,
        reason=reason,
    )


def plan_of(name: str, version: str) -> dict[str, Any]:
    """A plan of three stages with every gate that there is."""
    return {
        "name": name,
        "bundle": f"meter-reader:{version}",
        "cohort": "site in (bern, basel, geneva)",
        "stages": [
            {"devices": {"percent": 10, "min": 3}, "soak": "30m"},
            {"devices": {"percent": 40}, "soak": "2h", "approval": "required"},
            {"devices": {"percent": 100}},
        ],
        "gates": {
            "install": {"failed": "<= 5%", "lost": "<= 2%"},
            "errors": {"vs": "control", "increase": "<= 1pp"},
            "output": {"drift_vs": "control"},
        },
    }


_PASSED = (
    gate("install", "pass", 0.0, 0.05, "0 of 9 devices: 0 (threshold 0.05): passed on few devices"),
    gate("lost", "pass", 0.0, 0.02, "0 of 9 devices: 0 (threshold 0.02): passed on few devices"),
    gate("errors", "pass", 0.001, 0.01, "0.001 (threshold 0.01); against 21 devices not yet updated", n=4310),
    gate("output", "pass", 0.021, 0.1, "0.021 (threshold 0.1); against 21 devices not yet updated; label", n=4310),
)
_STRANGE = "0.41 (threshold 0.1), with 95 % confidence above 0.33"
_FAILED = (
    gate("install", "pass", 0.0, 0.05, "0 of 3 devices: 0 (threshold 0.05): passed on few devices", n=3, devices=3),
    gate("lost", "pass", 0.0, 0.02, "0 of 3 devices: 0 (threshold 0.02): passed on few devices", n=3, devices=3),
    gate("errors", "inconclusive", None, 0.01, "no predictions of the bundle can be compared yet", n=0, devices=0),
    gate(
        "output",
        "fail",
        0.41,
        0.1,
        f"{_STRANGE}; against 27 devices not yet updated; label: 3",
        n=1211,
        devices=3,
    ),
)
_UNDECIDED = (
    replace(
        _PASSED[0],
        verdict=Verdict.INCONCLUSIVE,
        value=1 / 6,
        reason="1 of 6 devices: 0.167 (threshold 0.05): beyond the threshold, not yet proven",
    ),
    *_PASSED[1:],
)


def _all_healthy(devices: int) -> Counts:
    return Counts(eligible=devices, offered=devices, reported=devices, healthy=devices)


def _passed(devices: int) -> Stage:
    return Stage(state=StageState.PASSED, counts=_all_healthy(devices), gates=_PASSED, opened_at=-4000)


_BAD = Stage(
    state=StageState.FAILED,
    counts=_all_healthy(3),
    gates=_FAILED,
    reason="the gate output failed",
)
_SOAKING = Stage(
    state=StageState.SOAKING,
    opened_at=-900,
    soak_until=1730,
    deadline_at=_DAY,
    counts=Counts(eligible=9, offered=8, reported=7, healthy=5, failed=1, lost=1, working=1, out_of_reach=1),
    gates=_UNDECIDED,
    reason="soaking: 1 gate has not passed",
)


@dataclass(frozen=True, kw_only=True)
class _Story:
    """A rollout; `offered` devices have been offered the bundle."""

    name: str
    version: str
    state: RolloutState
    stages: tuple[Stage, ...]
    created: float
    offered: int = len(DEVICES)
    started: float | None = None
    completed: float | None = None
    ended: float | None = None
    reason: str = ""


_STORIES = (
    _Story(
        name="meter-1.0",
        version="1.0.0",
        state=RolloutState.COMPLETED,
        stages=(_passed(3), _passed(9), _passed(18)),
        created=-2 * _DAY,
        completed=-_DAY,
    ),
    _Story(
        name="meter-1.2",
        version="1.2.0",
        state=RolloutState.ROLLED_BACK,
        stages=(_BAD, Stage(), Stage()),
        created=-7200,
        offered=3,
        ended=-6000,
        reason=f"stage 1: the gate output failed: {_STRANGE}",
    ),
    _Story(
        name="meter-1.1",
        version="1.1.0",
        state=RolloutState.RUNNING,
        stages=(_passed(3), _SOAKING, Stage()),
        created=-1500,
        offered=12,
        started=-1490,
    ),
)


def add_rollouts(session: Session, digests: dict[str, str], now: float) -> None:
    """Store all of them, with their history and audit."""
    for story in _STORIES:
        _insert(session, _rollout(story, digests[story.version], digests["1.0.0"], now))


def _rollout(story: _Story, digest: str, previous: str, now: float) -> Rollout:
    def at(offset: float | None) -> float | None:
        return None if offset is None else now + offset

    stages = tuple(
        replace(one, opened_at=at(one.opened_at), soak_until=at(one.soak_until), deadline_at=at(one.deadline_at))
        for one in story.stages
    )
    return Rollout(
        plan=parse_plan(plan_of(story.name, story.version)),
        digest=digest,
        bundle_name=f"meter-reader:{story.version}",
        salt=story.name,
        state=story.state,
        reason=story.reason,
        created_at=now + story.created,
        created_by="person:olga",
        started_at=at(story.started),
        completed_at=at(story.completed),
        ended_at=at(story.ended),
        members={device: _member(place, device, story, previous, now) for place, device in enumerate(DEVICES)},
        stages=stages,
    )


def _member(place: int, device: str, story: _Story, previous: str, now: float) -> Member:
    offered = place < story.offered
    created = now + story.created
    return Member(
        device=device,
        stage=sum(place >= first for first in _FIRST_OF_STAGE) - 1,
        previous=previous,
        previous_name="meter-reader:1.0.0",
        offered_at=created - 1200 if offered else None,
        proven_at=created - 1100 if offered else None,
    )


def _insert(session: Session, rollout: Rollout) -> None:
    version = rollout.bundle_name.partition(":")[2]
    rollouts.insert(session, rollout, plan_of(rollout.name, version))
    rollouts.save(session, replace(rollout, stages=()), rollout)
    for minutes, action, reason in (
        (0, "rollout.create", "selected 30 devices in 3 stages"),
        (1, "rollout.stage.open", "3 devices are offered the bundle"),
        (20, "rollout.stage.passed", rollout.reason or "every gate passed"),
    ):
        rollouts.record(
            session,
            rollout=rollout.name,
            at=rollout.created_at + 60 * minutes,
            actor="person:olga" if not minutes else "server",
            action=action,
            reason=reason,
            stage=1 if minutes else None,
            before=None,
            after={"state": rollout.state},
        )
    audit.record(
        session,
        actor="person:olga",
        action="rollout.create",
        subject=f"rollout:{rollout.name}",
        after={"bundle": rollout.bundle_name},
        now=rollout.created_at,
    )
