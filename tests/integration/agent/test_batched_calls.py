"""Micro-batching with a real model under threads: every call gets the bytes that it gets alone."""

from __future__ import annotations

import logging
import threading

import numpy as np
import pytest

from fixtures_models import constant_model, constant_schema, linear_bundle, make_bundle
from shoal_agent.runtime.batching import Batching
from shoal_agent.runtime.bundle_files import from_blobs
from shoal_agent.runtime.errors import InputError
from shoal_agent.runtime.model import LoadedModel

THREADS, CALLS = 6, 100
TOGETHER = Batching(max_rows=16, max_delay_s=0.002)


def _load(bundle: tuple[str, dict[str, bytes]], batching: Batching | None) -> LoadedModel:
    return LoadedModel.load(from_blobs(bundle[0], lambda name, _: bundle[1][name]), batching=batching)


def test_every_call_of_many_threads_gets_what_it_gets_alone_and_is_counted_once() -> None:
    bundle = linear_bundle()
    model, alone = _load(bundle, TOGETHER), _load(bundle, None)
    assert (model.batching, alone.batching) == (TOGETHER, None)
    rows = np.random.default_rng(7).normal(size=(THREADS * CALLS * 3, 4)).astype(np.float32)
    wrong: list[int] = []

    def ask(thread: int) -> None:
        for call in range(CALLS):
            at = (thread * CALLS + call) * 3
            some = rows[at : at + 1 + call % 3]
            got, wanted = model.predict({"x": some}), alone.predict({"x": some})
            if any(got[name].tobytes() != wanted[name].tobytes() for name in wanted):
                wrong.append(at)

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not wrong
    mine, other = model.observer.close_window(), alone.observer.close_window()
    assert mine.profile == other.profile
    assert int(mine.latency.sum()) == THREADS * CALLS


def test_an_input_that_does_not_fit_is_refused_as_without() -> None:
    model = _load(linear_bundle(), TOGETHER)
    with pytest.raises(InputError, match=r"'x': expected float32\[N, 4\], got float32\[1, 5\]"):
        model.predict({"x": np.zeros((1, 5), np.float32)})


def test_a_bundle_without_golden_rows_is_not_batched_and_that_is_told(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        assert _load(make_bundle(constant_model(1.0), constant_schema()), TOGETHER).batching is None
    assert "answers each call by itself: its golden rows are missing" in caplog.text
