"""Whom the canary devices are compared with.

Owns the choice of canary and control of the present stage. Control are the devices of the cohort that were not yet
offered the bundle; when none are left, the devices of earlier, passed stages; when there are none either, the bundle's
own reference.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from shoal_server.rollouts.machine import StageState
from shoal_server.rollouts.outcomes import DeviceFact, Facts
from shoal_server.rollouts.rollout import Rollout


@dataclass(frozen=True, kw_only=True)
class Question:
    """What the telemetry is asked about a stage.

    Attributes:
        slot: Of the rollout.
        digest: Of the new bundle.
        canary: Devices of the stage that were offered it.
        control: Devices to compare with; none: the bundle's own reference.
        control_digest: What those run.
        previous_digest: What most canary devices ran before; None: nothing.
        since: Seconds since the epoch; windows that began earlier do not count.
        against: What the control is, in words.
    """

    slot: str
    digest: str
    canary: tuple[str, ...]
    control: tuple[str, ...]
    control_digest: str | None
    previous_digest: str | None
    since: float
    against: str


def question(rollout: Rollout, facts: Facts) -> Question | None:
    """Return what has to be measured for the present stage, None when nothing has to be."""
    gates, number = rollout.plan.gates, rollout.current
    if (gates.errors, gates.output, gates.accuracy) == (None, None, None) or number is None:
        return None
    stage = rollout.stages[number]
    if stage.state not in (StageState.ROLLING, StageState.SOAKING) or stage.opened_at is None:
        return None
    canary = [member for member in rollout.members_of(number) if member.offered_at is not None]
    canary = [member for member in canary if _weighs(facts.devices.get(member.device))]
    if not canary:
        return None
    control, digest, against = _control(rollout, facts, number)
    before = Counter(member.previous for member in canary)
    return Question(
        slot=rollout.slot,
        digest=rollout.digest,
        canary=tuple(sorted(member.device for member in canary)),
        control=control,
        control_digest=digest,
        previous_digest=before.most_common(1)[0][0],
        since=stage.opened_at,
        against=against,
    )


def _control(rollout: Rollout, facts: Facts, current: int) -> tuple[tuple[str, ...], str | None, str]:
    offered = {member.device for member in rollout.touched()}
    running: dict[str, list[str]] = {}
    for device, fact in facts.devices.items():
        if device not in offered and _weighs(fact) and (digest := _proven(fact)) not in (None, rollout.digest):
            running.setdefault(str(digest), []).append(device)
    if running:
        # The largest group, the same one at every step.
        digest, devices = max(running.items(), key=lambda item: (len(item[1]), item[0]))
        return tuple(sorted(devices)), digest, f"{len(devices)} devices not yet updated"
    earlier = [
        member.device
        for member in rollout.touched()
        if member.stage < current and _proven(facts.devices.get(member.device)) == rollout.digest
    ]
    if earlier:
        return tuple(sorted(earlier)), rollout.digest, f"{len(earlier)} devices of earlier stages"
    return (), None, "the bundle's own reference"


def _weighs(fact: DeviceFact | None) -> bool:
    return fact is not None and fact.accepted


def _proven(fact: DeviceFact | None) -> str | None:
    if fact is None or fact.report is None or fact.report.active != fact.report.proven:
        return None
    return fact.report.active
