"""A shadow model on a device: brought in beside the active one, compared with it, and never in its way."""

from __future__ import annotations

import threading

import numpy as np
import pytest

from agent_bundles import bundle_files, odd_model
from shoal_agent.runtime.shadow import QUEUE_ROWS, Shadow
from shoal_protocol.mqtt.topics import Up


def answer(agent) -> float:
    return float(agent.model("quality").predict({"x": np.ones((1, 2), np.float32)})["y"][0, 0])


def shadows(world):
    return [sums for window in world.server.of(Up.PROFILE) for sums in window.shadows]


def shadow_state(world) -> str:
    report = world.report()
    return report.shadow.state if report is not None and report.shadow is not None else ""


@pytest.fixture
def pair(world):
    """A world whose device runs weight 3 with a shadow of weight 5: (world, agent, active, shadow)."""
    first, second = world.pack(3.0, "1.0"), world.pack(5.0, "1.1")
    world.server.assign("quality", first, shadow=second)
    agent = world.agent(shadow_share=1.0)
    agent.start()
    world.committed(first)
    world.until(lambda: shadow_state(world) == "running", "the shadow")
    yield world, agent, first, second
    agent.stop()


def beside(agent) -> list[Shadow]:
    return [one for one in agent.slots.get("quality").followers if isinstance(one, Shadow)]


def test_a_shadow_sees_the_same_rows_and_answers_nobody(pair):
    world, agent, first, second = pair
    before = sum(sums.rows for sums in shadows(world))
    assert {answer(agent) for _ in range(20)} == {3.0}
    world.until(lambda: sum(sums.rows for sums in shadows(world)) >= before + 20, "20 compared rows")
    told = shadows(world)
    assert {sums.digest for sums in told} == {second}
    assert all(sums.agreed == 0 and not sums.errors and not sums.dropped for sums in told)
    differences = [sums.differences for sums in told]
    rows = sum(one.n for one in differences)
    assert sum(one.absolute for one in differences) == pytest.approx(2.0 * rows)
    assert sum(map(sum, (sums.shadow_latency for sums in told))) == sum(sums.rows for sums in told)
    assert agent.status()["slots"]["quality"]["shadow"] == {"digest": second, "state": "running", "error": None}
    assert agent.status()["slots"]["quality"]["active"] == first
    assert {window.digest for window in world.server.of(Up.PROFILE)} == {first}


def test_taking_the_wish_away_ends_the_shadow_and_its_files_go(pair):
    world, agent, first, second = pair
    name = second.removeprefix("sha256:")
    assert (world.state / "bundles" / f"{name}.json").exists()
    world.assign(first)
    world.until(lambda: world.report().shadow is None, "no shadow")
    world.until(lambda: not (world.state / "bundles" / f"{name}.json").exists(), "its files to go")
    assert answer(agent) == 3.0
    assert beside(agent) == []


def test_a_shadow_goes_on_beside_the_next_active_model_and_ends_when_it_is_that_model(pair):
    world, agent, _, second = pair
    third = world.pack(7.0, "1.2")
    world.server.assign("quality", third, shadow=second)
    world.committed(third)
    world.until(lambda: beside(agent), "the shadow beside the new model")
    assert answer(agent) == 7.0
    world.server.assign("quality", second, shadow=second)
    world.committed(second)
    world.until(lambda: world.report().shadow is None, "no shadow of itself")
    assert answer(agent) == 5.0


def test_a_shadow_runs_again_after_a_restart(pair):
    world, agent, _, second = pair
    agent.stop()
    with world.agent(shadow_share=1.0) as again:
        world.until(lambda: again.status()["slots"]["quality"]["shadow"]["state"] == "running", "it runs again")
        assert again.status()["slots"]["quality"]["shadow"]["digest"] == second


def test_a_shadow_that_fails_its_self_test_is_told_and_the_active_model_unharmed(world):
    world.run_real_self_tests()
    good, bad = world.pack(3.0, "1.0"), world.pack(5.0, "1.1", golden_weight=9.0)
    world.server.assign("quality", good, shadow=bad)
    with world.agent(shadow_share=1.0) as agent:
        world.committed(good)
        world.until(lambda: shadow_state(world) == "failed", "the fault")
        assert world.report().shadow.error.digest == bad
        assert (answer(agent), world.report().error) == (3.0, None)


def test_a_shadow_of_other_inputs_is_refused_and_names_them(world):
    good = world.pack(3.0, "1.0")
    wide = world.server.release(world.server.add_bundle(bundle_files(5.0, version="1.1", columns=3)), "quality", "1.1")
    world.server.assign("quality", good, shadow=wide)
    with world.agent(shadow_share=1.0):
        world.committed(good)
        world.until(lambda: shadow_state(world) == "failed", "the fault")
        error = world.report().shadow.error
        assert error.code == "shadow_inputs"
        assert "'x'" in error.message


def test_a_shadow_that_hangs_drops_rows_and_delays_no_answer(pair):
    world, agent, _, _ = pair
    (shadow,) = beside(agent)
    leave = threading.Event()
    real = shadow.model.run
    shadow.model.run = lambda feeds: leave.wait(30) and real(feeds)
    calls = QUEUE_ROWS + 200
    assert {answer(agent) for _ in range(calls)} == {3.0}
    dropped = lambda: sum(sums.dropped for sums in shadows(world))  # noqa: E731
    world.until(lambda: dropped() >= 199, "the dropped rows are told")  # one call is in the shadow's hands
    leave.set()
    world.until(lambda: dropped() + sum(sums.rows for sums in shadows(world)) >= calls, "every row is accounted for")


def test_a_shadow_whose_call_never_ends_is_cut_off_told_and_leaves_no_thread(world, monkeypatch):
    monkeypatch.setattr("shoal_agent.updating.shadows.HANG_S", 0.2)
    files = bundle_files(5.0, version="1.1") | {"model/model.onnx": odd_model(5.0, odd="hangs")}
    first, second = world.pack(3.0, "1.0"), world.server.add_bundle(files)
    world.server.assign("quality", first, shadow=world.server.release(second, "quality", "1.1"))
    with world.agent(shadow_share=1.0) as agent:
        world.until(lambda: shadow_state(world) == "running", "the shadow")
        (shadow,) = beside(agent)
        agent.model("quality").predict({"x": np.full((1, 2), 200.0, np.float32)})
        world.until(lambda: shadow_state(world) == "failed", "the shadow's end")
        assert world.report().shadow.error.code == "shadow_hang"
        assert not shadow._thread.is_alive()
        assert answer(agent) == 3.0
