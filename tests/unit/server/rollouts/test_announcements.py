"""Which entries of a rollout's history are told outside."""

from collections.abc import Callable
from typing import Any

import pytest

from shoal_server.outbox import EventType
from shoal_server.rollouts.announcements import event_types_of
from shoal_server.rollouts.commands import Verb
from shoal_server.rollouts.effects import Record
from shoal_server.rollouts.machine import RolloutState
from shoal_server.testing.rollout_world import NEW, OLD, World, plan_of
from shoal_server.testing.simulated_devices import Behaviour, fleet_of


def _world(behaviour: Behaviour = Behaviour.GOOD, **changes: Any) -> World:
    return World(fleet_of(10, active=OLD, behaviours={NEW: behaviour}), plan_of(**changes))


def _told(world: World) -> list[str]:
    entries = [effect for effect in world.effects if isinstance(effect, Record)]
    return [type_.value.removeprefix("rollout.") for entry in entries for type_ in event_types_of(entry)]


def _good(world: World) -> None:
    world.run(until=RolloutState.COMPLETED)


def _paused_and_resumed(world: World) -> None:
    world.run(5)
    world.wish(Verb.PAUSE)
    world.wish(Verb.PAUSE)
    world.wish(Verb.RESUME)


def _aborted(world: World) -> None:
    world.run(5)
    world.wish(Verb.ABORT)
    world.run(until=RolloutState.ROLLED_BACK)


def _left(world: World) -> None:
    world.run(5)
    world.wish(Verb.ABORT, leave=True)


def _undone(world: World) -> None:
    _good(world)
    world.wish(Verb.UNDO)
    world.run(until=RolloutState.ROLLED_BACK)


@pytest.mark.parametrize(
    ("story", "told"),
    [
        (_good, ["started", "stage_passed", "stage_passed", "completed"]),
        (_paused_and_resumed, ["started", "paused", "resumed"]),
        (_aborted, ["started", "aborted", "rolled_back"]),
        (_left, ["started", "aborted"]),
        (_undone, ["started", "stage_passed", "stage_passed", "completed", "rolling_back", "rolled_back"]),
    ],
)
def test_a_rollouts_story_is_told_once_each(story: Callable[[World], None], told: list[str]) -> None:
    stages = [{"devices": {"percent": 40}, "soak": "1s"}, {"devices": {"percent": 100}, "soak": "1s"}]
    world = _world(stages=stages)
    story(world)
    assert _told(world) == told


def test_a_bad_bundle_is_told_as_a_failed_stage_and_a_way_back() -> None:
    world = _world(Behaviour.FAILS)
    world.run(until=RolloutState.ROLLED_BACK)
    assert _told(world) == ["started", "stage_failed", "rolling_back", "rolled_back"]


def test_a_plan_that_wants_approval_says_that_it_waits() -> None:
    created = Record(action="rollout.create", reason="", after={"state": RolloutState.AWAITING_APPROVAL})
    assert event_types_of(created) == [EventType.ROLLOUT_CREATED, EventType.ROLLOUT_AWAITING_APPROVAL]
    world = _world(approval="required")
    world.wish(Verb.APPROVE)
    assert _told(world) == []
    world.run(2)
    assert _told(world) == ["started"]


def test_a_stage_that_wants_approval_says_that_it_waits() -> None:
    stages = [
        {"devices": {"percent": 40}, "soak": "1s"},
        {"devices": {"percent": 100}, "soak": "1s", "approval": "required"},
    ]
    world = _world(stages=stages)
    world.run(60)
    assert _told(world) == ["started", "stage_passed", "awaiting_approval"]
    world.wish(Verb.APPROVE)
    world.run(until=RolloutState.COMPLETED)
    assert _told(world)[3:] == ["stage_passed", "completed"]


def test_who_cancels_before_it_began_aborts_it() -> None:
    world = _world()
    world.wish(Verb.CANCEL)
    assert _told(world) == ["aborted"]
