"""What people may want of a rollout."""

from typing import Any

import pytest

from shoal_server.errors import ConflictError
from shoal_server.rollouts.commands import Verb
from shoal_server.rollouts.effects import Deny, Record
from shoal_server.rollouts.machine import IllegalEventError, RolloutState, StageState
from shoal_server.testing.rollout_world import NEW, OLD, World, plan_of
from shoal_server.testing.simulated_devices import fleet_of


def _world(**changes: Any) -> World:
    return World(fleet_of(10, active=OLD), plan_of(**changes))


def _in_state(state: RolloutState) -> World:
    world = _world(approval="required" if state is RolloutState.AWAITING_APPROVAL else None)
    match state:
        case RolloutState.RUNNING:
            world.run(5)
        case RolloutState.PAUSED:
            world.run(5)
            world.wish(Verb.PAUSE)
        case RolloutState.COMPLETED:
            world.run(until=RolloutState.COMPLETED)
        case RolloutState.ROLLING_BACK | RolloutState.ROLLED_BACK:
            world.run(5)
            world.wish(Verb.ABORT)
            if state is RolloutState.ROLLED_BACK:
                world.run(until=RolloutState.ROLLED_BACK)
        case RolloutState.CANCELLED:
            world.wish(Verb.CANCEL)
    assert world.rollout.state is state
    return world


@pytest.mark.parametrize(
    ("state", "verb", "expected"),
    [
        (RolloutState.AWAITING_APPROVAL, Verb.APPROVE, RolloutState.SCHEDULED),
        (RolloutState.AWAITING_APPROVAL, Verb.CANCEL, RolloutState.CANCELLED),
        (RolloutState.AWAITING_APPROVAL, Verb.ABORT, RolloutState.CANCELLED),
        (RolloutState.SCHEDULED, Verb.CANCEL, RolloutState.CANCELLED),
        (RolloutState.SCHEDULED, Verb.ABORT, RolloutState.CANCELLED),
        (RolloutState.RUNNING, Verb.PAUSE, RolloutState.PAUSED),
        (RolloutState.RUNNING, Verb.ABORT, RolloutState.ROLLING_BACK),
        (RolloutState.RUNNING, Verb.RESUME, RolloutState.RUNNING),
        (RolloutState.PAUSED, Verb.PAUSE, RolloutState.PAUSED),
        (RolloutState.PAUSED, Verb.RESUME, RolloutState.RUNNING),
        (RolloutState.PAUSED, Verb.ABORT, RolloutState.ROLLING_BACK),
        (RolloutState.COMPLETED, Verb.UNDO, RolloutState.ROLLING_BACK),
        (RolloutState.ROLLING_BACK, Verb.ABORT, RolloutState.ROLLING_BACK),
        (RolloutState.ROLLED_BACK, Verb.ABORT, RolloutState.ROLLED_BACK),
        (RolloutState.CANCELLED, Verb.CANCEL, RolloutState.CANCELLED),
        (RolloutState.CANCELLED, Verb.ABORT, RolloutState.CANCELLED),
    ],
)
def test_verbs(state: RolloutState, verb: Verb, expected: RolloutState) -> None:
    world = _in_state(state)
    world.wish(verb, reason="why")
    assert world.rollout.state is expected


@pytest.mark.parametrize(
    ("state", "verb"),
    [
        (RolloutState.COMPLETED, Verb.PAUSE),
        (RolloutState.COMPLETED, Verb.ABORT),
        (RolloutState.ROLLING_BACK, Verb.PAUSE),
        (RolloutState.ROLLED_BACK, Verb.RESUME),
        (RolloutState.SCHEDULED, Verb.PAUSE),
        (RolloutState.RUNNING, Verb.UNDO),
        (RolloutState.RUNNING, Verb.CANCEL),
        (RolloutState.PAUSED, Verb.PROMOTE),
    ],
)
def test_what_is_not_possible_changes_nothing(state: RolloutState, verb: Verb) -> None:
    world = _in_state(state)
    before = world.rollout
    with pytest.raises(IllegalEventError) as refused:
        world.wish(verb)
    assert world.rollout is before
    assert refused.value.hint


@pytest.mark.parametrize("verb", [Verb.PAUSE, Verb.ABORT])
def test_asking_twice_does_no_harm(verb: Verb) -> None:
    world = _in_state(RolloutState.RUNNING)
    assert world.wish(verb)
    before = world.rollout
    assert world.wish(verb) == []
    assert world.rollout is before


def test_abort_and_leave_ends_it_without_taking_anything_back() -> None:
    world = _in_state(RolloutState.RUNNING)
    world.wish(Verb.ABORT, leave=True, reason="good enough")
    assert (world.rollout.state, world.rollout.reason) == (
        RolloutState.CANCELLED,
        "abort by person:ada: good enough",
    )
    assert len(world.running(NEW)) == 3
    assert not [effect for effect in world.effects if isinstance(effect, Deny)]


def test_the_record_says_who_what_and_why() -> None:
    world = _in_state(RolloutState.RUNNING)
    record = world.wish(Verb.PAUSE, reason="lunch")[0]
    assert isinstance(record, Record)
    assert (record.action, record.actor, record.reason) == ("rollout.pause", "person:ada", "lunch")
    assert record.before == {"state": "running"}
    assert record.after["state"] == "paused"


def test_undo_denies_the_bundle_with_the_reason() -> None:
    world = _in_state(RolloutState.COMPLETED)
    denied = [effect for effect in world.wish(Verb.UNDO, reason="wrong site") if isinstance(effect, Deny)]
    assert [(effect.digest, effect.reason) for effect in denied] == [
        (NEW, "rollout quality-1.1: undo by person:ada: wrong site")
    ]


def test_promote_ends_a_soak_early_and_the_gates_still_judge() -> None:
    world = _world(stages=[{"devices": {"percent": 100}, "soak": "1h"}], deadline="1d")
    world.run(20)
    world.wish(Verb.PROMOTE)
    assert world.run(until=RolloutState.COMPLETED, ticks=3) is RolloutState.COMPLETED


def test_promote_and_approve_need_something_to_act_on() -> None:
    world = _in_state(RolloutState.RUNNING)
    world.wish(Verb.RETRY)
    assert world.rollout.stages[0].state is StageState.ROLLING
    with pytest.raises(ConflictError, match="no stage of the rollout quality-1.1 is soaking now"):
        world.wish(Verb.PROMOTE)
    with pytest.raises(ConflictError, match="nothing of the rollout quality-1.1 waits for approval now"):
        world.wish(Verb.APPROVE)
