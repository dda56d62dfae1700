"""What the observer counts besides the grids, and its bounds."""

import random

import numpy as np
import pytest

from fixtures_models import linear_spec
from shoal_agent.runtime.observer import BLOCK_ROWS, MIN_CALL_ROWS, Observer
from shoal_protocol.profile.codec import LATENCY_EDGES_US
from shoal_protocol.profile.grid import CategoricalGrid
from shoal_protocol.profile.profile import ProfileSpec, Stream

SPEC = linear_spec(2, 2)
FAST, SLOW_NS = 1_000, 10_000_000_000


def arrays(rows: int) -> list[np.ndarray]:
    x = np.arange(rows * 2, dtype=np.float32).reshape(rows, 2)
    return [x, np.zeros(rows, np.int64), np.full((rows, 2), 0.5, np.float32)]


def test_latencies_fall_into_the_counts_up_to_their_edge() -> None:
    observer = Observer(None)
    for us in (0, 10, 10.001, 11_000_000):
        observer.answered([], 1, round(us * 1000))
    latency = observer.close_window().latency
    assert len(latency) == len(LATENCY_EDGES_US) + 1
    assert (latency[0], latency[1], latency[-1]) == (2, 1, 1)
    assert observer.totals().latency_sum_s == pytest.approx(11.000020001)


def test_errors_and_refusals_are_counted_apart() -> None:
    observer = Observer(SPEC)
    assert observer.close_window().is_silent
    observer.failed()
    observer.refused()
    observer.refused()
    summary = observer.close_window()
    assert (summary.errors, summary.refused, summary.n, summary.is_silent) == (1, 2, 0, False)
    assert observer.close_window().is_silent
    assert (observer.totals().errors, observer.totals().refused) == (1, 2)


def test_a_small_batch_is_counted_whole_however_fast_it_was() -> None:
    observer = Observer(SPEC)
    observer.answered(arrays(MIN_CALL_ROWS), MIN_CALL_ROWS, FAST)
    assert observer.close_window().n == MIN_CALL_ROWS


def test_a_large_fast_batch_is_sampled_and_a_slow_one_counted_whole() -> None:
    observer = Observer(SPEC)
    observer.answered(arrays(4096), 4096, FAST)
    sampled = observer.close_window()
    assert sampled.n == MIN_CALL_ROWS
    assert sampled.rows == 4096
    observer.answered(arrays(4096), 4096, SLOW_NS)
    whole = observer.close_window()
    assert (whole.n, whole.rows) == (4096, 4096)


def test_a_sample_takes_every_row_equally_often() -> None:
    rows = 4 * MIN_CALL_ROWS + 3
    observer = Observer(SPEC, chance=random.Random(5))
    taken = np.zeros(rows, int)
    keep = observer._keep
    observer._keep = lambda tensors, answered: (  # type: ignore[method-assign]
        np.add.at(taken, (tensors[0][:, 0] / 2).astype(int), 1),
        keep(tensors, answered),
    )
    for _ in range(5000):
        observer.answered(arrays(rows), rows, FAST)
    assert taken.mean() == pytest.approx(1000, rel=0.02)
    assert taken.min() > 850
    assert taken.max() < 1150


def test_an_output_without_an_entry_a_row_is_left_out_and_fails_nothing() -> None:
    observer = Observer(SPEC)
    x, label, _ = arrays(3)
    observer.answered([x, label, np.zeros((1, 2), np.float32)], 3, FAST)
    summary = observer.close_window()
    assert (summary.n, summary.rows, summary.calls) == (0, 3, 1)


def test_rows_that_can_not_be_counted_cost_no_answer(caplog: pytest.LogCaptureFixture) -> None:
    observer = Observer(SPEC)
    observer.answered(arrays(3), 3, FAST)
    counter = observer._counter
    assert counter is not None
    counter._categorical = [(9, 0, 4, lambda array: array)]  # a tap that is not there
    summary = observer.close_window()
    assert (summary.n, summary.rows, summary.profile.cells.sum()) == (0, 3, 0)
    assert "3 rows could not be counted" in caplog.text


def test_text_of_fewer_columns_than_the_reference_names_costs_no_answer(caplog: pytest.LogCaptureFixture) -> None:
    observer = Observer(ProfileSpec((Stream("c", "input", CategoricalGrid(("a",)), "t", 3),)))
    observer.answered([np.array([["a"]], dtype=object)], 1, 1000)
    assert "could not be observed" in caplog.text
    assert observer.close_window().calls == 1


def test_pending_rows_are_bounded() -> None:
    observer = Observer(SPEC)
    for _ in range(BLOCK_ROWS * 2):
        observer.answered(arrays(1), 1, FAST)
        assert len(observer._batches) <= BLOCK_ROWS
        assert len(observer._latencies) <= BLOCK_ROWS + 1
    assert observer.close_window().n == BLOCK_ROWS * 2
