"""A rollout as its pages show it: stages, gates, what became of each device, what can be asked for. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from shoal_server.rollouts.commands import Verb
from shoal_server.rollouts.gates import GateResult
from shoal_server.rollouts.machine import ROLLOUT_TABLE, Event, RolloutState, StageState
from shoal_server.rollouts.outcomes import DeviceFact, is_silent, outcome
from shoal_server.rollouts.rollout import Member, Rollout, Stage
from shoal_server.rollouts.store import stage_from_json
from shoal_server.rollouts.tables import RolloutRow
from shoal_server.rollouts.way_back import OUT_OF_REACH_S, has_returned
from shoal_server.web import words
from shoal_server.web.charts import Segment, segments

_ENDED = frozenset({RolloutState.ROLLING_BACK, RolloutState.ROLLED_BACK, RolloutState.CANCELLED})
_URGENCY = {word: at for at, word in enumerate(("failed", "lost", "out_of_reach", "on_its_way_back", "working"))}
KINDS = ("healthy", "failed", "lost", "working", "queued", "out_of_reach")
"""Parts of a stage's bar, in the order in which they are drawn; together they are all eligible devices."""


@dataclass(frozen=True)
class GateView:
    """One gate's answer in words."""

    name: str
    question: str
    measured: str
    bound: str
    threshold: str
    evidence: str
    result: GateResult


@dataclass(frozen=True)
class StageView:
    """One stage as the page shows it; `number` counts from 1."""

    number: int
    stage: Stage
    share: float
    soak_s: float
    members: int
    segments: list[Segment]
    gates: list[GateView]

    @property
    def reasons(self) -> set[str]:
        """What the gates say, so that it isn't said twice."""
        return {gate.result.reason for gate in self.gates}


@dataclass(frozen=True)
class Action:
    """One thing that can be asked of a rollout now."""

    verb: Verb
    button: str
    title: str
    text: str
    kind: str = ""


_TAKE_BACK = (
    "Every device that got the bundle goes back to its own last good one, and the bundle is denied to this cohort."
)
_ACTIONS: Mapping[Verb, tuple[str, str, str]] = MappingProxyType(
    {
        Verb.APPROVE: ("Approve", "It goes on with the next step at once.", "primary"),
        Verb.RESUME: ("Resume", "The present stage settles and soaks anew, and its gates are judged anew.", "primary"),
        Verb.PAUSE: ("Pause", "No further device is offered the bundle. Devices keep what they have.", ""),
        Verb.PROMOTE: ("End the soak", "The soak ends now. The gates are still judged; none is skipped.", ""),
        Verb.RETRY: ("Try failed devices again", "Devices that failed are offered the bundle once more.", ""),
        Verb.CANCEL: ("Cancel", "It ends before it ran; nothing was changed.", "danger"),
        Verb.ABORT: ("Abort and roll back", _TAKE_BACK, "danger"),
        Verb.UNDO: ("Undo", _TAKE_BACK, "danger"),
    }
)
"""Of each verb: its button, what it does, its look."""


def summary(row: RolloutRow) -> dict[str, Any]:
    """Return what a list shows of a rollout."""
    stages = [stage_from_json(stage) for stage in row.stages]
    passed = sum(stage.state is StageState.PASSED for stage in stages)
    totals = {kind: sum(getattr(stage.counts, kind) for stage in stages) for kind in (*KINDS, "eligible", "offered")}
    eligible = max(totals["eligible"], 1)
    return {
        "row": row,
        "passed": passed,
        "stages": len(stages),
        "totals": totals,
        "segments": segments(totals, KINDS, total=eligible),
        "taken_back": RolloutState(row.state) in {RolloutState.ROLLING_BACK, RolloutState.ROLLED_BACK},
    }


def stage_views(rollout: Rollout) -> list[StageView]:
    """Return the stages of a rollout in words and parts of bars."""
    shown = []
    for number, (stage, plan) in enumerate(zip(rollout.stages, rollout.plan.stages, strict=True)):
        counts = stage.counts.as_json()
        shown.append(
            StageView(
                number=number + 1,
                stage=stage,
                share=plan.share,
                soak_s=plan.soak_s,
                members=len(rollout.members_of(number)),
                segments=segments(counts, KINDS, total=stage.counts.eligible),
                gates=[gate_view(gate) for gate in stage.gates],
            )
        )
    return shown


def gate_view(gate: GateResult) -> GateView:
    """Put one gate's answer into words."""
    question, unit = _QUESTIONS.get(gate.gate, (gate.gate, words.amount))
    evidence = words.plural(gate.devices, "device")
    if gate.gate not in _COUNTS_DEVICES:
        what = "label" if gate.gate == "accuracy_feedback" else "prediction"
        evidence = f"{words.plural(gate.n, what)} on {evidence}"
    threshold = unit(gate.threshold)
    return GateView(
        name=gate.gate,
        question=question,
        measured=unit(gate.value),
        bound=unit(gate.bound),
        threshold=f"at least {threshold}" if gate.gate.startswith("accuracy_") else threshold,
        evidence=evidence,
        result=gate,
    )


def _points(share: float | None) -> str:
    return "–" if share is None else f"{share * 100:+.3g} pp"


_COUNTS_DEVICES = frozenset({"install", "lost"})
_QUESTIONS = MappingProxyType(
    {
        "install": ("Share of devices that refused the bundle or took it back", words.percent),
        "lost": ("Share of devices that fell silent after taking it", words.percent),
        "accuracy_estimated": ("Accuracy that its confidences promise", words.percent),
        "accuracy_feedback": ("Accuracy by true labels that came back", words.percent),
        "errors": ("Rise of failed predictions against the control", _points),
        "output": ("Shift of the predictions against the control, beyond what was expected", words.amount),
    }
)


def actions(rollout: Rollout) -> list[Action]:
    """Return what can be asked of a rollout now, as its table says."""
    possible = {event for state, event in ROLLOUT_TABLE if state is rollout.state}
    number = rollout.current
    stage = None if number is None else rollout.stages[number].state
    useful = {
        Verb.APPROVE: rollout.state is RolloutState.AWAITING_APPROVAL or stage is StageState.AWAITING_APPROVAL,
        Verb.PROMOTE: stage is StageState.SOAKING,
        Verb.RETRY: any(stage.counts.failed for stage in rollout.stages),
    }
    return [action_of(verb, rollout) for verb in _ACTIONS if Event(verb.value) in possible and useful.get(verb, True)]


def fate(member: Member, fact: DeviceFact | None, rollout: Rollout, now: float) -> str:
    """Say in one word what became of a member; after a rollback, whether it went its way back.

    A device that something newer was assigned to has moved on: that it no longer runs this bundle is no failure.
    """
    if member.offered_at is None and not member.sent_back and rollout.state in _ENDED:
        return "not_offered"
    if not member.sent_back:
        if rollout.state is RolloutState.COMPLETED and _was_taken_over(fact, rollout.digest):
            return "moved_on"
        known = outcome(member, fact, digest=rollout.digest, lost_after_s=rollout.plan.lost_after_s, now=now)
        return known.value
    if fact is None or not fact.accepted:
        return "gone"
    if has_returned(member, fact, rollout.digest):
        return "returned"
    return "out_of_reach" if is_silent(fact, since=0.0, longer_than_s=OUT_OF_REACH_S, now=now) else "on_its_way_back"


def _was_taken_over(fact: DeviceFact | None, digest: str) -> bool:
    """Tell whether something newer than the completed rollout says what a device should run."""
    return fact is not None and fact.desired is not None and fact.desired.digest != digest


def by_urgency(fates: Iterable[tuple[Member, str]]) -> list[tuple[Member, str]]:
    """Order members so that those which need a look come first."""
    return sorted(fates, key=lambda pair: (_URGENCY.get(pair[1], len(_URGENCY)), pair[0].stage, pair[0].device))


def action_of(verb: Verb, rollout: Rollout) -> Action:
    """Return how one verb is shown."""
    button, text, kind = _ACTIONS[verb]
    return Action(verb, button, f"{button}: {rollout.name}?", text, kind)
