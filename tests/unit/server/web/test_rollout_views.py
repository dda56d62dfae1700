"""A rollout in words: what became of a device, what can be asked for."""

from dataclasses import replace
from typing import Any

import pytest

from dashboard_rollouts import gate, plan_of
from shoal_protocol.mqtt.messages import SlotReport
from shoal_protocol.trust.assignment import SlotTarget
from shoal_server.rollouts.commands import Verb
from shoal_server.rollouts.gates import Counts
from shoal_server.rollouts.machine import FINAL, RolloutState, StageState
from shoal_server.rollouts.outcomes import DeviceFact
from shoal_server.rollouts.plan import parse_plan
from shoal_server.rollouts.rollout import Member, Rollout, Stage
from shoal_server.web.rollout_views import actions, by_urgency, fate, gate_view, stage_views

NEW, OLD = "sha256:" + "1" * 64, "sha256:" + "0" * 64
NOW = 1000.0
OFFERED = Member(device="cam-1", stage=0, offered_at=900.0, generation=4, previous=OLD)


def _rollout(state: RolloutState = RolloutState.RUNNING, stage: StageState = StageState.ROLLING) -> Rollout:
    return Rollout(
        plan=parse_plan(plan_of("r", "1.1.0")),
        digest=NEW,
        bundle_name="meter-reader:1.1.0",
        salt="r",
        created_at=800.0,
        created_by="person:olga",
        state=state,
        stages=(Stage(state=stage), Stage(), Stage()),
        members={"cam-1": OFFERED},
    )


def _fact(active: str | None, **changes: Any) -> DeviceFact:
    report = SlotReport(state="idle", active=active, proven=active)
    known = {"online": True, "last_seen_at": NOW, "generation_reported": 4, "report": report, **changes}
    return DeviceFact(**known)


@pytest.mark.parametrize(
    ("member", "fact", "word"),
    [
        (OFFERED, _fact(NEW), "healthy"),
        (replace(OFFERED, sent_back=True), _fact(OLD), "returned"),
        (replace(OFFERED, sent_back=True), _fact(NEW), "on_its_way_back"),
        (replace(OFFERED, sent_back=True), _fact(OLD, generation_reported=3), "on_its_way_back"),
        (replace(OFFERED, sent_back=True), _fact(NEW, online=False, last_seen_at=0.0), "out_of_reach"),
        (replace(OFFERED, sent_back=True), None, "gone"),
        (replace(OFFERED, offered_at=None), _fact(OLD), "not_offered"),
    ],
)
def test_a_rollback_is_told_device_by_device(member: Member, fact: DeviceFact | None, word: str) -> None:
    state = RolloutState.RUNNING if word == "healthy" else RolloutState.ROLLING_BACK
    assert fate(member, fact, _rollout(state), NOW) == word


@pytest.mark.parametrize(
    ("desired", "state", "word"),
    [
        (OLD, RolloutState.COMPLETED, "moved_on"),
        (NEW, RolloutState.COMPLETED, "failed"),
        (OLD, RolloutState.RUNNING, "failed"),
    ],
)
def test_a_device_that_something_newer_was_assigned_to_has_not_failed(
    desired: str, state: RolloutState, word: str
) -> None:
    had_it = replace(OFFERED, proven_at=950.0)
    fact = _fact(OLD, desired=SlotTarget(digest=desired, name="meter-reader:1.2.0"))
    assert fate(had_it, fact, _rollout(state), NOW) == word


def test_who_needs_a_look_comes_first() -> None:
    words = ["healthy", "working", "failed", "lost"]
    found = by_urgency([(replace(OFFERED, device=word), word) for word in words])
    assert [word for _member, word in found] == ["failed", "lost", "working", "healthy"]


def test_only_what_is_possible_and_useful_is_offered() -> None:
    def verbs(*known: Any) -> list[Verb]:
        return [action.verb for action in actions(_rollout(*known))]

    assert verbs() == [Verb.PAUSE, Verb.ABORT]
    assert verbs(RolloutState.RUNNING, StageState.SOAKING) == [Verb.PAUSE, Verb.PROMOTE, Verb.ABORT]
    assert Verb.APPROVE in verbs(RolloutState.RUNNING, StageState.AWAITING_APPROVAL)
    assert verbs(RolloutState.PAUSED) == [Verb.RESUME, Verb.ABORT]
    assert verbs(RolloutState.COMPLETED) == [Verb.UNDO]
    assert verbs(RolloutState.SCHEDULED) == [Verb.CANCEL]
    assert [verbs(state) for state in FINAL] == [[]] * len(FINAL)


def test_numbers_of_a_gate_have_their_unit() -> None:
    install = gate_view(gate("install", "pass", 0.05, 0.1, "fine"))
    assert (install.measured, install.threshold, install.evidence) == ("5 %", "10 %", "9 devices")
    errors = gate_view(gate("errors", "fail", 0.031, 0.01, "more", n=1200))
    assert (errors.measured, errors.threshold, errors.evidence) == (
        "+3.1 pp",
        "+1 pp",
        "1,200 predictions on 9 devices",
    )
    nothing = gate_view(gate("output", "inconclusive", None, 0.1, "nothing yet", n=0, devices=0))
    assert (nothing.measured, nothing.bound) == ("–", "–")


def test_parts_of_a_stage_fill_its_bar() -> None:
    counts = Counts(eligible=8, offered=6, reported=4, healthy=2, failed=1, lost=1, working=2, queued=1, out_of_reach=1)
    rollout = _rollout()
    view = stage_views(rollout.with_stage(0, replace(rollout.stages[0], counts=counts)))[0]
    assert sum(part.width for part in view.segments) == pytest.approx(100)
    assert [part.kind for part in view.segments] == ["healthy", "failed", "lost", "working", "queued", "out_of_reach"]
