"""Whole rollouts against simulated devices, and the traps that others fell into."""

from dataclasses import replace
from typing import Any

import pytest

from shoal_protocol.trust.assignment import SlotTarget
from shoal_server.rollouts.commands import Verb
from shoal_server.rollouts.effects import Assign, Deny, Notify, Record
from shoal_server.rollouts.gates import Difference, Evidence
from shoal_server.rollouts.machine import RolloutState, StageState
from shoal_server.rollouts.views import faults_json
from shoal_server.testing.rollout_world import NEW, OLD, World, plan_of
from shoal_server.testing.simulated_devices import Behaviour, SimulatedDevice, fleet_of

GOOD_OUTPUT = Evidence(output=Difference(value=0.01, low=-0.02, high=0.04, n=900, devices=10))
BAD_OUTPUT = Evidence(output=Difference(value=0.5, low=0.4, high=0.6, n=900, devices=3, detail="most in label"))


def _world(count: int = 10, behaviour: Behaviour = Behaviour.GOOD, **changes: Any) -> World:
    return World(fleet_of(count, active=OLD, behaviours={NEW: behaviour}), plan_of(**changes))


def _stage_states(world: World) -> list[StageState]:
    return [stage.state for stage in world.rollout.stages]


def _actions(world: World) -> list[str]:
    return [effect.action for effect in world.effects if isinstance(effect, Record)]


def test_a_good_bundle_reaches_all_by_stages() -> None:
    world = _world()
    assert world.run(until=RolloutState.COMPLETED) is RolloutState.COMPLETED
    assert world.running(NEW) == set(world.devices)
    assert _actions(world) == [
        "rollout.running",
        *["rollout.stage.rolling", "rollout.stage.soaking", "rollout.stage.passed"] * 2,
        "rollout.completed",
    ]
    assert [stage.counts.healthy for stage in world.rollout.stages] == [3, 7]


def test_a_bundle_that_fails_is_stopped_at_its_canaries_and_taken_back() -> None:
    world = _world(behaviour=Behaviour.FAILS)
    assert world.run(until=RolloutState.ROLLED_BACK) is RolloutState.ROLLED_BACK
    assert world.running(OLD) == set(world.devices)
    assert len(world.rollout.touched()) == 3
    assert "stage 1, gate install: 3 of 3 devices" in world.rollout.reason
    assert [effect for effect in world.effects if isinstance(effect, Deny)]
    assert [effect.severity for effect in world.effects if isinstance(effect, Notify)] == ["critical", "critical"]


def test_why_devices_failed_is_told_and_stays_known_when_they_have_returned() -> None:
    world = _world(behaviour=Behaviour.FAILS)
    world.run(until=RolloutState.ROLLED_BACK)
    assert "; golden_rows: differs" in world.rollout.reason
    assert {member.fault for member in world.rollout.members_of(0)} == {"golden_rows: differs"}
    assert faults_json(world.rollout.members_of(0)) == [
        {
            "fault": "golden_rows: differs",
            "devices": 3,
            "examples": sorted(member.device for member in world.rollout.touched()),
        }
    ]


def test_devices_that_each_write_another_reason_fill_no_page() -> None:
    world = _world(40, behaviour=Behaviour.FAILS, stages=[{"devices": {"percent": 100}, "soak": "1m"}])
    world.run(until=RolloutState.ROLLED_BACK)
    members = [
        replace(member, fault=f"{'often' if at < 3 else at}") for at, member in enumerate(world.rollout.members_of(0))
    ]
    told = faults_json(members)
    assert (len(told), told[0]["fault"], told[0]["devices"]) == (21, "often", 3)
    assert told[-1]["fault"] == f"{len(members) - 3 - 19} other reasons"
    assert sum(one["devices"] for one in told) == len(members)


def test_the_plans_windows_go_with_every_offer_and_with_no_way_back() -> None:
    world = _world(behaviour=Behaviour.FAILS, windows=["Sun 02:00-04:00"])
    world.run(until=RolloutState.ROLLED_BACK)
    assigned = [effect.target for effect in world.effects if isinstance(effect, Assign)]
    assert {target.windows for target in assigned if target.digest == NEW} == {("Sun 02:00-04:00",)}
    assert {target.windows for target in assigned if target.digest == OLD} == {None}


def test_what_devices_wait_for_is_told_while_the_stage_waits_and_when_it_is_late() -> None:
    world = _world(behaviour=Behaviour.WAITS)
    for _ in range(20):
        world.tick()
    told = "0 of 3 devices run it; 3 under way (3 wait: held)"
    assert world.rollout.stages[0].reason == told
    assert world.run(seconds=300.0, until=RolloutState.PAUSED) is RolloutState.PAUSED
    assert told in world.rollout.reason


def test_a_stage_repeats_no_more_than_some_words_of_devices() -> None:
    stages = [{"devices": {"percent": 100}, "soak": "1m"}]
    world = _world(40, behaviour=Behaviour.WAITS, stages=stages)
    for at, device in enumerate(world.devices.values()):
        device.waits_for = f"reason-{max(at, 2)}"
    for _ in range(20):
        world.tick()
    told = world.rollout.stages[0].reason
    assert "3 wait: reason-2" in told
    assert told.count("wait") == 20
    assert told.endswith("18 for other reasons)")


def test_bad_predictions_are_stopped_by_the_output_gate() -> None:
    world = _world(gates={"output": {"drift_vs": "control"}})
    world.evidence = BAD_OUTPUT
    assert world.run(until=RolloutState.ROLLED_BACK) is RolloutState.ROLLED_BACK
    assert world.running(OLD) == set(world.devices)
    back = [effect for effect in world.effects if isinstance(effect, Assign)][3:]
    assert {effect.target.digest for effect in back} == {OLD}
    assert {effect.target.name for effect in back} == {"quality:1.0.0"}
    assert "gate output" in world.rollout.reason
    assert "most in label" in world.rollout.reason


def test_on_failure_pause_leaves_the_devices_and_says_why() -> None:
    world = _world(behaviour=Behaviour.FAILS, on_failure="pause")
    assert world.run(until=RolloutState.PAUSED) is RolloutState.PAUSED
    assert "gate install" in world.rollout.reason
    assert not [effect for effect in world.effects if isinstance(effect, Deny)]
    assert [effect.kind for effect in world.effects if isinstance(effect, Notify)] == ["rollout.paused"]


def test_first_deployment_is_taken_back_by_emptying_the_slot() -> None:
    world = World(fleet_of(5, active=None), plan_of(gates={"output": {"drift_vs": "control"}}))
    world.evidence = BAD_OUTPUT
    assert world.run(until=RolloutState.ROLLED_BACK) is RolloutState.ROLLED_BACK
    assert {device.active for device in world.devices.values()} == {None}


# The traps at the end of the design, one by one --------------------------------------------------------------------


def test_trap_completion_is_not_success() -> None:
    """85 % fine and 15 % failed must not pass a plan that allows 5 %."""
    devices = fleet_of(100, active=OLD)
    for name in list(devices)[:15]:
        devices[name] = SimulatedDevice(name, active=OLD, behaviours={NEW: Behaviour.FAILS})
    world = World(devices, plan_of(stages=[{"devices": {"percent": 100}, "soak": "6s"}]))
    assert world.run(until=RolloutState.ROLLED_BACK) is RolloutState.ROLLED_BACK


def test_trap_resume_after_a_failure_judges_again() -> None:
    world = _world(behaviour=Behaviour.FAILS, on_failure="pause")
    world.run(until=RolloutState.PAUSED)
    world.wish(Verb.RESUME)
    assert _stage_states(world) == [StageState.ROLLING, StageState.PENDING]
    assert world.run(until=RolloutState.PAUSED) is RolloutState.PAUSED
    assert _stage_states(world) == [StageState.FAILED, StageState.PENDING]
    assert len(world.rollout.touched()) == 3


def test_trap_a_resumed_soak_begins_anew() -> None:
    world = _world(stages=[{"devices": {"percent": 100}, "soak": "10s"}])
    while _stage_states(world) != [StageState.SOAKING]:
        world.tick()
    world.run(9)
    world.wish(Verb.PAUSE)
    world.now += 1000
    world.wish(Verb.RESUME)
    world.run(5)
    assert _stage_states(world) == [StageState.SOAKING]
    assert world.run(until=RolloutState.COMPLETED) is RolloutState.COMPLETED


def test_trap_silent_devices_do_not_dilute() -> None:
    """Two of three that can be reached fail; 97 are offline and change nothing about that."""
    devices = fleet_of(100, active=OLD, behaviours={NEW: Behaviour.FAILS})
    for name in list(devices)[3:]:
        devices[name].online = False
    world = World(devices, plan_of(stages=[{"devices": {"percent": 100}, "soak": "6s"}]))
    assert world.run(until=RolloutState.ROLLED_BACK) is RolloutState.ROLLED_BACK
    assert world.rollout.stages[0].counts.out_of_reach == 97


def test_trap_an_empty_group_is_no_success() -> None:
    devices = fleet_of(10, active=OLD)
    for device in devices.values():
        device.online = False
    world = World(devices, plan_of(deadline="1m"))
    assert world.run(until=RolloutState.PAUSED) is RolloutState.PAUSED
    assert world.rollout.reason == (
        "stage 1 has not passed within its deadline of 1m: 0 of 3 devices run it; 3 out of reach"
    )


def test_trap_devices_that_all_became_ineligible_are_no_success() -> None:
    world = _world(deadline="1m")
    world.barred = set(world.devices)
    assert world.run(until=RolloutState.PAUSED) is RolloutState.PAUSED
    assert not world.rollout.touched()


def test_trap_a_run_cut_short_before_its_first_measurement_is_no_success() -> None:
    world = _world(gates={"output": {"drift_vs": "control"}})
    while _stage_states(world)[0] is not StageState.SOAKING:
        world.tick()
    world.wish(Verb.PROMOTE)
    world.run(100)
    assert world.rollout.state is RolloutState.RUNNING
    assert _stage_states(world)[0] is StageState.SOAKING
    assert "no predictions of the bundle can be compared yet" in world.rollout.stages[0].reason


def test_trap_no_values_are_neither_failure_nor_success() -> None:
    world = _world(gates={"output": {"drift_vs": "control"}}, deadline="1m")
    assert world.run(until=RolloutState.PAUSED) is RolloutState.PAUSED
    assert "output: no predictions" in world.rollout.reason
    world.evidence = GOOD_OUTPUT
    world.wish(Verb.RESUME)
    assert world.run(until=RolloutState.COMPLETED) is RolloutState.COMPLETED


def test_trap_a_silent_device_does_not_hold_the_rollout_for_ever() -> None:
    devices = fleet_of(100, active=OLD)
    devices["cam-7"] = SimulatedDevice("cam-7", active=OLD, behaviours={NEW: Behaviour.HANGS})
    world = World(devices, plan_of(stages=[{"devices": {"percent": 100}, "soak": "6s"}]))
    assert world.run(until=RolloutState.COMPLETED) is RolloutState.COMPLETED
    counts = world.rollout.stages[0].counts
    assert (counts.lost, counts.healthy) == (1, 99)


def test_trap_lost_devices_beyond_their_threshold_stop_it() -> None:
    world = _world(behaviour=Behaviour.HANGS)
    assert world.run(until=RolloutState.ROLLING_BACK) is RolloutState.ROLLING_BACK
    assert "gate lost" in world.rollout.reason
    world.run(200)
    assert world.rollout.state is RolloutState.ROLLED_BACK
    assert "out of reach, their assignment stands: cam-" in world.rollout.reason
    assert {world.desired[member.device].digest for member in world.rollout.touched()} == {OLD}


def test_trap_the_reason_for_an_abort_is_shown() -> None:
    world = _world()
    world.run(5)
    world.wish(Verb.ABORT, reason="the belt stands still")
    assert world.rollout.reason == "abort by person:ada: the belt stands still"
    world.run(until=RolloutState.ROLLED_BACK)
    assert world.rollout.reason.startswith("abort by person:ada: the belt stands still")


# Pace, order, offline devices ----------------------------------------------------------------------------------------


def test_offers_keep_to_the_rate() -> None:
    world = _world(100, stages=[{"devices": {"percent": 100}, "soak": "6s"}], rate={"per_minute": 10})
    offered = [sum(isinstance(effect, Assign) for effect in world.tick()) for _ in range(130)]
    assert max(sum(offered[start : start + 60]) for start in range(70)) == 10
    assert sum(offered) >= 20


def test_a_clock_that_was_set_back_does_not_stop_the_offers() -> None:
    world = _world(100, stages=[{"devices": {"percent": 100}, "soak": "6s"}], rate={"per_minute": 10})
    world.run(5)
    world.now -= 86_400.0
    world.run(5)
    assert len(world.rollout.touched()) == 20


def test_offers_grow_with_passed_stages() -> None:
    stages = [{"devices": {"percent": 10}, "soak": "1s"}, {"devices": {"percent": 100}, "soak": "1s"}]
    world = _world(100, stages=stages, rate={"per_minute": 10, "growth": 2})
    bursts = [sum(isinstance(effect, Assign) for effect in world.tick()) for _ in range(120)]
    assert max(sum(bursts[start : start + 60]) for start in range(60)) == 20


def test_no_more_than_so_many_are_in_flight() -> None:
    world = _world(50, Behaviour.SLOW, rate={"in_flight": 4}, stages=[{"devices": {"percent": 100}}])
    world.run(30)
    assert len(world.rollout.touched()) == 4


def test_a_device_that_was_offline_is_offered_it_when_it_is_back() -> None:
    devices = fleet_of(10, active=OLD)
    devices["cam-7"].online = False
    world = World(devices, plan_of(stages=[{"devices": {"percent": 100}, "soak": "6s"}]))
    assert world.run(until=RolloutState.COMPLETED) is RolloutState.COMPLETED
    assert world.running(NEW) == set(world.devices) - {"cam-7"}
    devices["cam-7"].online = True
    world.run(5)
    assert world.running(NEW) == set(world.devices)


def test_a_passed_stage_that_relapses_still_stops_the_rollout() -> None:
    world = _world(stages=[{"devices": {"percent": 50}, "soak": "2s"}, {"devices": {"percent": 100}, "soak": "60s"}])
    while _stage_states(world) != [StageState.PASSED, StageState.SOAKING]:
        world.tick()
    for member in world.rollout.members_of(0):
        world.devices[member.device].relapse()
    assert world.run(until=RolloutState.ROLLED_BACK) is RolloutState.ROLLED_BACK
    assert _stage_states(world)[0] is StageState.FAILED
    assert "stage 1, gate install" in world.rollout.reason


def test_a_stage_that_adds_nobody_passes_at_once_and_says_so() -> None:
    stages = [
        {"devices": {"percent": 5, "min": 3}, "soak": "6s"},
        {"devices": {"percent": 25}, "soak": "6s"},
        {"devices": {"percent": 100}, "soak": "6s"},
    ]
    world = _world(10, stages=stages)
    world.run(until=RolloutState.COMPLETED)
    assert world.rollout.stages[1].reason == "adds no device to the stage before"
    assert world.running(NEW) == set(world.devices)


def test_a_rollback_ends_by_reports_not_by_hope() -> None:
    world = _world()
    world.run(5)
    stuck = world.rollout.touched()[0].device
    world.devices[stuck].deaf = True
    world.wish(Verb.ABORT)
    world.run(30)
    assert world.rollout.state is RolloutState.ROLLING_BACK
    assert world.rollout.reason.endswith(f"waiting for {stuck} to return")
    world.devices[stuck].deaf = False
    world.run(5)
    assert world.rollout.state is RolloutState.ROLLED_BACK


def test_a_rollback_knows_no_rate() -> None:
    world = _world(100, stages=[{"devices": {"percent": 100}, "soak": "60s"}])
    world.run(10)
    world.rollout = replace(
        world.rollout, plan=replace(world.rollout.plan, rate=replace(world.rollout.plan.rate, per_minute=1))
    )
    world.wish(Verb.ABORT)
    assert sum(isinstance(effect, Assign) for effect in world.tick()) == 100


def test_a_device_never_returns_to_a_denied_bundle() -> None:
    world = _world()
    world.run(5)
    world.denied = {"cam-0": frozenset({OLD}), **{name: frozenset({OLD}) for name in world.devices}}
    world.wish(Verb.ABORT)
    world.run(until=RolloutState.ROLLED_BACK)
    assert {world.desired[member.device].digest for member in world.rollout.touched()} == {None}


def test_undo_leaves_alone_what_something_newer_has_changed() -> None:
    world = _world()
    world.run(until=RolloutState.COMPLETED)
    newer = "sha256:" + "3" * 64
    world.desired["cam-3"] = SlotTarget(digest=newer, name="quality:2.0.0")
    world.generations["cam-3"] += 1
    world.run(3)
    world.wish(Verb.UNDO)
    world.run(until=RolloutState.ROLLED_BACK)
    assert world.devices["cam-3"].active == newer
    assert world.running(OLD) == set(world.devices) - {"cam-3"}


def test_retry_lets_failed_devices_try_again_with_a_larger_attempt() -> None:
    devices = fleet_of(10, active=OLD)
    world = World(devices, plan_of(on_failure="pause"))
    first = [member.device for member in world.rollout.members_of(0)]
    for name in first:
        devices[name].behaviours = {NEW: Behaviour.FAILS}
    world.run(until=RolloutState.PAUSED)
    for name in first:
        devices[name].behaviours = {}
    world.wish(Verb.RETRY)
    assert world.run(until=RolloutState.COMPLETED) is RolloutState.COMPLETED
    assert {world.desired[name].attempt for name in first} == {2}
    assert {world.desired[name].attempt for name in set(devices) - set(first)} == {1}
    assert {member.fault for member in world.rollout.members.values()} == {""}


def test_an_abort_right_after_a_retry_takes_back_who_waits_for_its_next_attempt() -> None:
    devices = fleet_of(10, active=OLD)
    world = World(devices, plan_of(on_failure="pause"))
    first = [member.device for member in world.rollout.members_of(0)]
    for name in first:
        devices[name].behaviours = {NEW: Behaviour.FAILS}
    world.run(until=RolloutState.PAUSED)
    newer = SlotTarget(digest="sha256:" + "3" * 64, name="quality:2.0.0")
    world.desired[first[1]] = newer
    world.wish(Verb.RETRY)
    devices[first[0]].online = devices[first[1]].online = False
    world.tick()
    world.wish(Verb.ABORT)
    assert world.run(until=RolloutState.ROLLED_BACK) is RolloutState.ROLLED_BACK
    assert world.desired[first[0]].digest == OLD
    assert world.desired[first[1]] == newer


def test_a_new_rollout_of_a_bundle_that_failed_before_grows_the_attempt() -> None:
    devices = fleet_of(3, active=OLD)
    for device in devices.values():
        device.bad, device.target = {NEW: 0}, NEW
    world = World(devices, plan_of())
    assert world.run(until=RolloutState.COMPLETED) is RolloutState.COMPLETED
    assert {target.attempt for target in world.desired.values()} == {1}


def test_newcomers_join_a_running_dynamic_rollout_in_a_later_stage() -> None:
    world = _world(dynamic=True)
    while _stage_states(world)[0] is not StageState.SOAKING:
        world.tick()
    world.devices["new-1"] = SimulatedDevice("new-1", active=OLD)
    world.newcomers = ("new-1",)
    world.run(until=RolloutState.COMPLETED)
    assert world.rollout.members["new-1"].stage == 1
    assert world.devices["new-1"].active == NEW


def test_newcomers_do_not_join_a_rollout_that_is_not_dynamic() -> None:
    world = _world(standing=False)
    world.devices["new-1"] = SimulatedDevice("new-1", active=OLD)
    world.newcomers = ("new-1",)
    world.run(until=RolloutState.COMPLETED)
    world.run(20)
    assert world.devices["new-1"].active == OLD


def test_a_completed_rollout_is_the_standing_assignment_of_its_cohort() -> None:
    world = _world(rate={"per_minute": 2}, stages=[{"devices": {"percent": 100}, "soak": "1s"}])
    world.run(1000, until=RolloutState.COMPLETED)
    for number in range(4):
        world.devices[f"new-{number}"] = SimulatedDevice(f"new-{number}", active=None)
    world.newcomers = tuple(f"new-{number}" for number in range(4))
    world.now += 100
    world.run(10)
    assert sum(name.startswith("new-") for name in world.running(NEW)) == 2, "at the rollout's rate"
    world.run(130)
    assert sum(name.startswith("new-") for name in world.running(NEW)) == 4
    assert all(world.rollout.members[name].late for name in world.newcomers)


def test_a_stage_waits_for_its_approval_without_a_deadline() -> None:
    stages = [
        {"devices": {"percent": 20}, "soak": "1s"},
        {"devices": {"percent": 100}, "soak": "1s", "approval": "required"},
    ]
    world = _world(stages=stages, deadline="30s")
    world.run(300)
    assert (world.rollout.state, world.rollout.reason) == (RolloutState.RUNNING, "stage 2 waits for approval")
    world.wish(Verb.APPROVE)
    assert world.run(until=RolloutState.COMPLETED) is RolloutState.COMPLETED


def test_a_scheduled_rollout_waits_for_its_time() -> None:
    world = _world(start="2027-01-15T08:01:00Z")
    world.run(30)
    assert world.rollout.state is RolloutState.SCHEDULED
    world.run(60)
    assert world.rollout.state is not RolloutState.SCHEDULED


def test_slow_devices_make_it_pause_at_the_deadline_with_the_reason() -> None:
    world = _world(behaviour=Behaviour.SLOW, deadline="1m")
    assert world.run(until=RolloutState.PAUSED) is RolloutState.PAUSED
    assert world.rollout.reason.endswith("deadline of 1m: 0 of 3 devices run it; 3 under way")


def test_a_paused_rollout_decides_nothing() -> None:
    world = _world(behaviour=Behaviour.FAILS)
    world.run(3)
    world.wish(Verb.PAUSE, reason="lunch")
    before = world.rollout
    assert [effect for _ in range(50) for effect in world.tick()] == []
    assert world.rollout == before


def test_nothing_to_do_is_the_same_value_and_no_effects() -> None:
    world = _world()
    world.run(until=RolloutState.COMPLETED)
    before = world.rollout
    assert world.tick() == []
    assert world.rollout is before


@pytest.mark.parametrize("count", [1, 2])
def test_tiny_fleets_can_be_rolled_out_too(count: int) -> None:
    world = _world(count)
    assert world.run(until=RolloutState.COMPLETED) is RolloutState.COMPLETED
