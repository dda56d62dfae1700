"""Swapping models under load: no prediction dropped or mixed, memory handed back, every row counted."""

import gc
import threading
import weakref
from typing import Any

import numpy as np
import pytest

from fixtures_models import constant_model, constant_schema, make_bundle
from shoal_agent.errors import NoModelError
from shoal_agent.runtime.bundle_files import from_blobs
from shoal_agent.runtime.model import LoadedModel
from shoal_agent.runtime.slots import SlotTable
from shoal_protocol.profile.grid import NumericGrid
from shoal_protocol.profile.profile import ProfileSpec, Stream

SPEC = ProfileSpec((Stream("value", "output", NumericGrid(0.0, 1.0), "value"),))
X = np.ones((1, 2), np.float32)
BATCH = np.ones((3, 2), np.float32)


def load(number: int) -> LoadedModel:
    digest, blobs = make_bundle(
        constant_model(float(number)), constant_schema(), spec=SPEC, version=f"{number}.0", task="regression"
    )
    return LoadedModel.load(from_blobs(digest, lambda name, _: blobs[name]))


class Loads:
    """How often free memory was handed back."""

    def __init__(self) -> None:
        self.times = 0

    def __call__(self) -> None:
        self.times += 1


def test_a_hundred_swaps_under_four_threads_drop_and_mix_nothing() -> None:
    releases = Loads()
    slots = SlotTable(release=releases)
    slots.install("quality", load(0))
    models = [load(number) for number in range(1, 101)]
    gone = [weakref.ref(model) for model in models]
    handle = slots.model("quality")
    stop, errors, counts = threading.Event(), [], [0] * 4

    def ask(thread: int) -> None:
        while not stop.is_set():
            for x in (X, BATCH):
                answer = handle.predict({"x": x})
                if answer["value"].tolist() != [[float(answer.version)]] * len(x):
                    errors.append((answer.version, answer["value"].tolist()))
                counts[thread] += len(x)

    threads = [threading.Thread(target=ask, args=(at,)) for at in range(4)]
    for thread in threads:
        thread.start()
    while models:
        slots.install("quality", models.pop(0))
    stop.set()
    for thread in threads:
        thread.join()
    assert errors == []
    observed = slots.observed()
    answered = [one.observer.close_window() for one in observed]
    assert sum(summary.n for summary in answered) == sum(counts) > 0
    assert all(summary.errors == 0 for summary in answered)
    del observed
    assert [ref() for ref in gone[:-1]] == [None] * 99
    assert releases.times >= 1


def test_the_old_session_is_freed_by_the_swap_and_its_rows_are_still_counted() -> None:
    slots = SlotTable(release=lambda: None)
    slots.install("quality", load(1))
    slots.model("quality").predict({"x": X})
    model: Any = slots.get("quality")
    session = weakref.ref(model.engine)
    del model
    slots.install("quality", load(2))
    gc.collect()
    assert session() is None
    active, leaving = slots.observed()
    assert (active.version, active.is_active) == ("2.0", True)
    assert (leaving.version, leaving.is_active) == ("1.0", False)
    assert leaving.observer.close_window().n == 1
    slots.forget(leaving)
    slots.forget(active)
    assert [one.version for one in slots.observed()] == ["2.0"]


def test_a_call_in_flight_keeps_its_model_and_is_counted() -> None:
    slots = SlotTable(drain_s=0.01, release=lambda: None)
    slots.install("quality", load(1))
    held = slots.get("quality")  # as a call in flight holds it
    slots.install("quality", load(2))
    assert held is not None
    assert held.predict({"x": X})["value"].tolist() == [[1.0]]
    leaving = slots.observed()[1]
    slots.forget(leaving)  # too early: it is still in use
    assert len(slots.observed()) == 2
    del held
    leaving = slots.observed()[1]
    assert leaving.observer.close_window().n == 1
    slots.forget(leaving)
    assert len(slots.observed()) == 1


def test_a_slot_without_a_model_says_so() -> None:
    slots = SlotTable(release=lambda: None)
    handle = slots.model("quality")
    with pytest.raises(NoModelError, match="'quality' has no model"):
        handle.predict({"x": X})
    slots.install("quality", load(3))
    assert handle.predict({"x": X}).version == "3.0"
    assert handle.predict_rows([{"x": [1.0, 1.0]}]).version == "3.0"
    slots.remove("quality")
    slots.remove("never")
    assert slots.names() == ()
    with pytest.raises(NoModelError):
        handle.predict({"x": X})
