"""The state of one rollout, as a value.

Owns what is remembered between two steps of the controller: the rollout, its stages, its members. Everything else is
derived from facts at each step, so a crash between two steps forgets nothing.

Times are seconds since the epoch, UTC.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from shoal_server.rollouts.gates import Counts, GateResult
from shoal_server.rollouts.machine import Event, RolloutState, StageEvent, StageState, next_stage_state, next_state
from shoal_server.rollouts.plan import Plan


@dataclass(frozen=True, kw_only=True)
class Member:
    """One device of a rollout, recorded when it was selected.

    Attributes:
        stage: From 0.
        stratum: By which it was sampled.
        late: Whether it entered the cohort after the rollout was completed.
        previous: Digest that was proven on it when it was offered the bundle; None: the slot was empty.
        previous_name: ``model:version`` of that, for people.
        attempt: Of the offer; grows with each retry.
        offered_at: When the assignment was written; None: not yet.
        generation: Of that assignment, or of the rollback's once `sent_back`.
        proven_at: When it was first seen to run the bundle with its trial passed.
        sent_back: Whether it was assigned its way back.
        fault: Why it failed, ``code: message`` as the device said; empty: it has not, or did not say.
    """

    device: str
    stage: int
    stratum: str = ""
    late: bool = False
    previous: str | None = None
    previous_name: str | None = None
    attempt: int = 0
    offered_at: float | None = None
    generation: int | None = None
    proven_at: float | None = None
    sent_back: bool = False
    fault: str = ""


@dataclass(frozen=True, kw_only=True)
class Stage:
    """How far one stage is.

    Attributes:
        opened_at: When its devices were first offered the bundle, or again after a resume.
        soak_until: When its soak is over; None: it is not soaking.
        deadline_at: When the rollout pauses if the stage has not passed.
        counts: Of its devices, at the last step.
        gates: Their answers at the last step.
        reason: Why it stands where it stands.
    """

    state: StageState = StageState.PENDING
    opened_at: float | None = None
    soak_until: float | None = None
    deadline_at: float | None = None
    counts: Counts = field(default_factory=Counts)
    gates: tuple[GateResult, ...] = ()
    reason: str = ""

    def after(self, event: StageEvent, **changes: Any) -> Stage:
        """Return the stage after an event, with further changes."""
        return replace(self, state=next_stage_state(self.state, event), **changes)


@dataclass(frozen=True, kw_only=True)
class Rollout:
    """One rollout between two steps of the controller.

    Attributes:
        plan: As checked at creation.
        digest: Of the bundle, resolved at creation.
        bundle_name: ``model:version`` of it.
        salt: Of the selection.
        reason: Why the rollout stands where it stands; never empty for a state that asks for a person.
        retry_wanted: Whether the next step lets failed devices try again.
    """

    plan: Plan
    digest: str
    bundle_name: str
    salt: str
    created_at: float
    created_by: str
    state: RolloutState = RolloutState.DRAFT
    reason: str = ""
    started_at: float | None = None
    completed_at: float | None = None
    ended_at: float | None = None
    retry_wanted: bool = False
    stages: tuple[Stage, ...] = ()
    members: Mapping[str, Member] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """The plan's name."""
        return self.plan.name

    @property
    def slot(self) -> str:
        """The plan's slot."""
        return self.plan.slot

    @property
    def current(self) -> int | None:
        """Return the first stage that has not passed, None when all have."""
        return next((number for number, stage in enumerate(self.stages) if stage.state is not StageState.PASSED), None)

    def members_of(self, stage: int) -> list[Member]:
        """Return the members of one stage, those who came late apart."""
        return [member for member in self.members.values() if member.stage == stage and not member.late]

    def touched(self) -> list[Member]:
        """Return the members that were offered the bundle, those included that wait for a further attempt."""
        return [member for member in self.members.values() if member.offered_at is not None or member.attempt > 0]

    def after(self, event: Event, **changes: Any) -> Rollout:
        """Return the rollout after an event, with further changes.

        Raises:
            IllegalEventError: The table has no such transition.
        """
        return replace(self, state=next_state(self.state, event), **changes)

    def with_stage(self, number: int, stage: Stage) -> Rollout:
        """Return the rollout with one stage replaced."""
        return replace(self, stages=(*self.stages[:number], stage, *self.stages[number + 1 :]))

    def with_members(self, changed: Mapping[str, Member]) -> Rollout:
        """Return the rollout with members added or replaced."""
        return replace(self, members={**self.members, **changed}) if changed else self

    def with_generations(self, generations: Mapping[str, int]) -> Rollout:
        """Return the rollout with the generations that its assignments were given."""
        return self.with_members(
            {device: replace(self.members[device], generation=generation) for device, generation in generations.items()}
        )

    def reopened(self, now: float) -> Rollout:
        """Return the rollout with every begun and unfinished stage to be settled, soaked and judged anew."""
        begun = (StageState.ROLLING, StageState.SOAKING, StageState.FAILED)
        stages = tuple(
            stage.after(StageEvent.REOPEN, soak_until=None, reason="judged anew", **opening(self, now))
            if stage.state in begun
            else stage
            for stage in self.stages
        )
        return replace(self, stages=stages)


def opening(rollout: Rollout, now: float) -> dict[str, float]:
    """Return the fields of a stage that is opened now."""
    return {"opened_at": now, "deadline_at": now + rollout.plan.deadline_s}
