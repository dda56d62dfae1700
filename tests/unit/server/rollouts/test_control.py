"""Whom the canary devices are compared with."""

from typing import Any

from shoal_server.rollouts.control import Question, question
from shoal_server.rollouts.machine import RolloutState, StageState
from shoal_server.testing.rollout_world import NEW, OLD, World, plan_of
from shoal_server.testing.simulated_devices import SimulatedDevice, fleet_of

GATES = {"errors": {"vs": "control", "increase": "<= 1pp"}}


def _asked(world: World, stage: int) -> Question:
    for _ in range(100):
        if world.rollout.stages[stage].state is StageState.SOAKING:
            break
        world.tick()
    asked = question(world.rollout, world.facts())
    assert asked is not None
    return asked


def _world(**changes: Any) -> World:
    return World(fleet_of(10, active=OLD), plan_of(**{"gates": GATES, **changes}))


def test_nothing_is_asked_without_such_a_gate_or_without_a_canary() -> None:
    world = _world(gates={})
    world.run(6)
    assert question(world.rollout, world.facts()) is None
    world = _world()
    world.run(2)
    assert question(world.rollout, world.facts()) is None


def test_devices_not_yet_updated_are_the_control() -> None:
    asked = _asked(world := _world(), 0)
    assert set(asked.canary) == {member.device for member in world.rollout.members_of(0)}
    assert set(asked.control) == set(world.devices) - set(asked.canary)
    assert (asked.control_digest, asked.previous_digest, asked.digest) == (OLD, OLD, NEW)
    assert asked.since == world.rollout.stages[0].opened_at


def test_in_the_last_stage_devices_of_earlier_stages_are() -> None:
    world = _world(gates={**GATES, "errors": {"vs": "control", "increase": "<= 100%", "min_predictions": 1}})
    from shoal_server.rollouts.gates import Difference, Evidence

    world.evidence = Evidence(errors=Difference(value=0.0, low=0.0, high=0.0, n=9000, devices=10))
    asked = _asked(world, 1)
    assert set(asked.control) == {member.device for member in world.rollout.members_of(0)}
    assert (asked.control_digest, asked.against) == (NEW, "3 devices of earlier stages")


def test_with_nobody_else_the_reference_is() -> None:
    asked = _asked(_world(stages=[{"devices": {"percent": 100}, "soak": "60s"}]), 0)
    assert (asked.control, asked.control_digest, asked.against) == ((), None, "the bundle's own reference")


def test_the_largest_group_of_one_bundle_is_the_control() -> None:
    devices = fleet_of(12, active=OLD)
    third = "sha256:" + "3" * 64
    for number in range(3):
        devices[f"odd-{number}"] = SimulatedDevice(f"odd-{number}", active=third)
    asked = _asked(World(devices, plan_of(gates=GATES)), 0)
    assert asked.control_digest == OLD
    assert not any(name.startswith("odd") for name in asked.control)


def test_the_same_question_comes_at_every_step() -> None:
    world = _world()
    first = _asked(world, 0)
    assert question(world.rollout, world.facts()) == first
    assert world.rollout.state is RolloutState.RUNNING
