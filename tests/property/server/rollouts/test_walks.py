"""Random walks: whatever devices, people and the clock do, what must hold holds."""

from collections.abc import Sequence
from contextlib import suppress

from hypothesis import event, given, settings
from hypothesis import strategies as st

from shoal_server.errors import ConflictError
from shoal_server.rollouts.commands import Verb
from shoal_server.rollouts.effects import Assign
from shoal_server.rollouts.gates import Difference, Evidence, Verdict
from shoal_server.rollouts.machine import FINAL, ROLLOUT_TABLE, STAGE_TABLE, RolloutState, StageState
from shoal_server.rollouts.rollout import Rollout
from shoal_server.testing.rollout_world import NEW, OLD, World, plan_of
from shoal_server.testing.simulated_devices import Behaviour, SimulatedDevice

_LEADS = {(start, end) for (start, _), end in ROLLOUT_TABLE.items()}
_STAGE_LEADS = {(start, end) for (start, _), end in STAGE_TABLE.items()}

_steps = st.one_of(
    *[st.tuples(st.just("ticks"), st.integers(1, 12))] * 4,
    st.sampled_from([Verb.APPROVE, Verb.APPROVE, Verb.RESUME, *sorted(Verb)]),
    st.tuples(st.sampled_from(["offline", "online", "relapse", "bar", "deaf"]), st.integers(0, 11)),
    st.tuples(st.just("evidence"), st.sampled_from([None, 0.0, 0.05, 0.3])),
    st.tuples(st.just("sleep"), st.sampled_from([5, 40, 4000])),
)
_plans = st.fixed_dictionaries(
    {
        "on_failure": st.sampled_from(["rollback", "pause"]),
        "rate": st.sampled_from([{}, {"in_flight": 2}, {"per_minute": 4}]),
        "approval": st.sampled_from(["none", "none", "none", "required"]),
        "gates": st.sampled_from([{}, {"output": {"drift_vs": "control"}}]),
        "stages": st.sampled_from(
            [
                [{"devices": {"percent": 100}, "soak": "3s"}],
                [
                    {"devices": {"percent": 10, "min": 2}, "soak": "2s"},
                    {"devices": {"percent": 50}, "soak": "2s", "approval": "required"},
                    {"devices": {"percent": 100}},
                ],
            ]
        ),
    }
)
_fleets = st.lists(st.sampled_from(sorted(Behaviour)), min_size=1, max_size=12)


@settings(max_examples=150, deadline=None)
@given(plan=_plans, behaviours=_fleets, walk=st.lists(_steps, min_size=12, max_size=60))
def test_random_walks(plan: dict[str, object], behaviours: Sequence[Behaviour], walk: Sequence[object]) -> None:
    devices = {
        f"cam-{number}": SimulatedDevice(f"cam-{number}", active=OLD, behaviours={NEW: behaviour})
        for number, behaviour in enumerate(behaviours)
    }
    world = World(devices, plan_of(**plan))
    for taken in walk:
        ticks = taken[1] if isinstance(taken, tuple) and taken[0] == "ticks" else 1
        for _ in range(ticks):
            before = world.rollout
            count = len(world.effects)
            _take(world, taken)
            assigned = [effect.device for effect in world.effects[count:] if isinstance(effect, Assign)]
            _check(before, world.rollout, assigned)
    event(f"ended {world.rollout.state}")


def _take(world: World, taken: object) -> None:
    name = f"cam-{taken[1]}" if isinstance(taken, tuple) else ""
    match taken:
        case ("ticks", _):
            world.tick()
        case Verb():
            with suppress(ConflictError):
                world.wish(taken, reason="because")
        case ("evidence", value):
            measured = None if value is None else Difference(value=value, low=value / 2, high=value, n=900, devices=12)
            world.evidence = Evidence(output=measured)
        case ("sleep", seconds):
            world.now += seconds
        case ("bar", _) if name in world.devices:
            world.barred ^= {name}
        case ("deaf", _) if name in world.devices:
            world.devices[name].deaf = not world.devices[name].deaf
        case ("relapse", _) if name in world.devices and world.devices[name].active == NEW:
            world.devices[name].relapse()
        case (where, _) if name in world.devices and where in ("offline", "online"):
            world.devices[name].online = where == "online"


def _check(before: Rollout, after: Rollout, assigned: list[str]) -> None:
    assert before.state is after.state or (before.state, after.state) in _LEADS
    for was, now in zip(before.stages, after.stages, strict=True):
        assert was.state is now.state or (was.state, now.state) in _STAGE_LEADS
        if was.state is StageState.SOAKING and now.state is StageState.PASSED:
            assert {gate.verdict for gate in now.gates} == {Verdict.PASS}
            assert now.counts.healthy > 0, "silence never passes"
        counts = now.counts
        assert counts.eligible >= counts.offered >= counts.reported
        assert counts.reported == counts.healthy + counts.failed + counts.lost
    assert len(assigned) == len(set(assigned)), "no device is assigned twice in one step"
    if assigned:
        assert before.state in (RolloutState.RUNNING, RolloutState.COMPLETED, RolloutState.ROLLING_BACK)
    if before.state is RolloutState.RUNNING:
        current = before.current
        reached = {device for device in assigned if current is not None and after.members[device].stage > current}
        assert not reached, "no device of a later stage is touched"
    if after.state is RolloutState.COMPLETED:
        assert all(stage.state is StageState.PASSED for stage in after.stages)
    if after.state in FINAL or after.state is RolloutState.PAUSED:
        assert after.reason
