"""A whole agent on a device with wishes of its own: another execution provider, room for one model only."""

from __future__ import annotations

import numpy as np

from shoal_agent.domain.providers import CPU
from shoal_agent.errors import NoModelError


def answer(agent) -> float:
    return float(agent.model("quality").predict({"x": np.ones((1, 2), np.float32)})["y"][0, 0])


def test_a_provider_that_is_missing_is_told_by_the_status(world):
    first = world.pack(3.0, "1.0")
    world.server.assign("quality", first)
    with world.agent(providers=("CUDAExecutionProvider", CPU)) as agent:
        world.committed(first)
        engine = agent.status()["slots"]["quality"]["engine"]
    assert engine["providers"] == [CPU]
    assert engine["fallback"] == "the onnxruntime here has no CUDAExecutionProvider"


def test_without_the_processor_in_the_list_the_bundle_is_refused_with_the_reason(world):
    first = world.pack(3.0, "1.0")
    world.server.assign("quality", first)
    with world.agent(providers=("CUDAExecutionProvider",)):
        world.until(lambda: world.report() is not None and world.report().error is not None, "the refusal")
    assert "providers = CUDAExecutionProvider; the onnxruntime here has CPU" in world.report().error.message


def test_one_model_at_a_time_through_updates_and_a_failure(world):
    first, second = world.pack(3.0, "1.0"), world.pack(5.0, "1.1")
    world.server.assign("quality", first)
    with world.agent(activation_mode="stop-then-load") as agent:
        world.committed(first)
        gaps, load = [], agent._parts.transactions._around.host.load

        def watched(digest):
            try:
                answer(agent)
            except NoModelError:
                gaps.append(digest)
            return load(digest)

        agent._parts.transactions._around.host.load = watched
        world.assign(second)
        world.committed(second)
        assert (answer(agent), gaps) == (5.0, [second])
        agent.roll_back("quality")
        world.until(lambda: gaps == [second, first] and agent.slots.get("quality") is not None, "the previous model")
        assert answer(agent) == 3.0
