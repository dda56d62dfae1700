"""Micro-batching over a graph that the test holds up: who waits, for what, and who gets which rows."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pytest

from fixtures_models import linear_model, mean_centred_model
from shoal_agent.runtime.batching import Batcher, Batching, is_exact_together
from shoal_agent.runtime.engine import Engine

PATIENT = Batching(max_rows=8, max_delay_s=30.0)


class HeldGraph:
    """Doubles its input; every run waits for its turn."""

    def __init__(self) -> None:
        self.runs: list[int] = []
        self.entered = threading.Semaphore(0)
        self.turn = threading.Semaphore(0)

    def run(self, feeds: Mapping[str, Any]) -> Sequence[Any]:
        self.runs.append(len(feeds["x"]))
        self.entered.release()
        assert self.turn.acquire(timeout=30)
        if (feeds["x"] < 0).any():
            raise ValueError("a negative number")
        return [feeds["x"] * 2]


class Caller(threading.Thread):
    """One call on a thread of its own."""

    def __init__(self, batcher: Batcher, *values: float) -> None:
        super().__init__(daemon=True)
        self._batcher = batcher
        self._feeds = {"x": np.array(values, np.float32).reshape(-1, 1)}
        self.answer: list[float] = []
        self.error: Exception | None = None
        self.start()

    def run(self) -> None:
        try:
            self.answer = self._batcher.run(self._feeds, len(self._feeds["x"]))[0].reshape(-1).tolist()
        except ValueError as error:
            self.error = error


def _gathered(batcher: Batcher, *calls: tuple[float, ...]) -> list[Caller]:
    """Start calls one after the other while another is under way, each once the one before has joined."""
    callers, rows = [], 0
    for values in calls:
        callers.append(Caller(batcher, *values))
        rows += len(values)
        wanted = rows
        with batcher._changed:
            while batcher._open is None or batcher._open.rows < wanted:
                batcher._changed.wait(0.001)
    return callers


def test_calls_that_find_another_under_way_are_answered_by_one_run():
    graph = HeldGraph()
    batcher = Batcher(graph.run, PATIENT)
    first = Caller(batcher, 1.0)
    graph.entered.acquire()
    others = _gathered(batcher, (2.0,), (3.0, 4.0), (5.0,))
    graph.turn.release(2)
    for caller in (first, *others):
        caller.join(30)
    assert graph.runs == [1, 4]
    assert [caller.answer for caller in (first, *others)] == [[2.0], [4.0], [6.0, 8.0], [10.0]]


def test_a_call_alone_runs_at_once_and_by_itself():
    graph = HeldGraph()
    batcher = Batcher(graph.run, PATIENT)
    graph.turn.release(2)
    assert Caller(batcher, 1.0).join(30) is None
    assert Caller(batcher, 2.0).join(30) is None
    assert graph.runs == [1, 1]


def test_a_group_runs_after_its_delay_or_when_it_is_full_though_the_first_call_goes_on():
    graph = HeldGraph()
    batcher = Batcher(graph.run, Batching(max_rows=3, max_delay_s=30.0))
    held = Caller(batcher, 1.0)
    graph.entered.acquire()
    full = [*_gathered(batcher, (2.0,)), Caller(batcher, 3.0, 4.0)]
    graph.entered.acquire()
    assert graph.runs == [1, 3]
    hasty = Batcher(graph.run, Batching(max_rows=3, max_delay_s=0.0))
    pair = [Caller(hasty, 1.0)]
    graph.entered.acquire()
    pair.append(Caller(hasty, 2.0))
    graph.entered.acquire()
    graph.turn.release(4)
    for caller in (held, *full, *pair):
        caller.join(30)
    assert [caller.answer for caller in (*full, *pair)] == [[4.0], [6.0, 8.0], [2.0], [4.0]]


def test_only_the_guilty_call_of_a_group_is_told_its_error():
    graph = HeldGraph()
    batcher = Batcher(graph.run, PATIENT)
    first = Caller(batcher, 1.0)
    graph.entered.acquire()
    good, bad = _gathered(batcher, (2.0,), (-1.0,))
    graph.turn.release(10)
    for caller in (first, good, bad):
        caller.join(30)
    assert (good.answer, str(bad.error)) == ([4.0], "a negative number")


def test_calls_of_other_shapes_or_too_many_rows_run_alone():
    batcher = Batcher(lambda feeds: [feeds["x"]], PATIENT)
    assert batcher._key({"x": np.zeros((8, 1))}, 8) is None
    assert batcher._key({"x": np.zeros((2, 1)), "y": np.zeros((3, 1))}, 2) is None
    assert batcher._key({"x": np.zeros((2, 1))}, 2) != batcher._key({"x": np.zeros((2, 2))}, 2)


@pytest.mark.parametrize(("model", "exact"), [(linear_model(), True), (mean_centred_model(), False)])
def test_a_graph_whose_rows_depend_on_their_neighbours_is_never_batched(model, exact):
    rows = {"x": np.random.default_rng(0).normal(size=(6, 4)).astype(np.float32)}
    assert is_exact_together(Engine(model), rows, rows=8) is exact


def test_without_rows_to_try_nothing_is_batched():
    assert not is_exact_together(Engine(linear_model()), {"x": np.zeros((0, 4), np.float32)}, rows=8)
