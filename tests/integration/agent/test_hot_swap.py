"""Swapping models under load: no prediction dropped or mixed, memory handed back, every row counted."""

import gc
import http.client
import json
import threading
import weakref
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest

from fixtures_models import constant_model, constant_schema, make_bundle
from shoal_agent.errors import NoModelError
from shoal_agent.runtime.bundle_files import from_blobs
from shoal_agent.runtime.model import LoadedModel
from shoal_agent.runtime.slots import SlotTable
from shoal_agent.runtime.windows import ClosedWindow, WindowClock
from shoal_agent.serving.front import Front
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


def swap_meanwhile(
    slots: SlotTable, models: list[LoadedModel], stop: threading.Event, *work: Callable[[], None]
) -> None:
    """Install one model after the other while threads work, each until it is told to stop."""
    threads = [threading.Thread(target=each) for each in work]
    for thread in threads:
        thread.start()
    while models:
        slots.install("quality", models.pop(0))
    stop.set()
    for thread in threads:
        thread.join()


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

    swap_meanwhile(slots, models, stop, *(partial(ask, at) for at in range(4)))
    assert errors == []
    observed = slots.observed()
    answered = [one.observer.close_window() for one in observed]
    assert sum(summary.n for summary in answered) == sum(counts) > 0
    assert all(summary.errors == 0 for summary in answered)
    del observed
    assert [ref() for ref in gone[:-1]] == [None] * 99
    assert releases.times >= 1


def two_more_answers(counts: list[int], wrong: list[Any]) -> None:
    """Wait until every caller was answered by the present model; the first answer may be the last one's."""
    wanted, pause = [count + 2 for count in counts], threading.Event()
    while not wrong and any(count < want for count, want in zip(counts, wanted, strict=True)):
        pause.wait(0.001)


def test_a_hundred_swaps_under_callers_in_process_and_over_http() -> None:  # noqa: C901 - two kinds of callers
    slots = SlotTable(release=lambda: None)
    slots.install("quality", load(0))
    digests = {f"{number}.0": model.digest for number, model in ((n, load(n)) for n in (0, 1))}
    models = [load(number % 2) for number in range(1, 101)]
    handle = slots.model("quality")
    front = Front("127.0.0.1:0")
    (url,) = front.start(slots)
    stop, wrong = threading.Event(), []
    seen: list[set[str]] = [set() for _ in range(4)]
    counts = [0] * 4
    body = json.dumps({"inputs": [{"name": "x", "shape": [1, 2], "datatype": "FP32", "data": [1.0, 1.0]}]})

    def ask_in_process(at: int) -> None:
        while not stop.is_set():
            counts[at] += 1
            try:
                answer = handle.predict({"x": X})
            except NoModelError as error:
                wrong.append((at, "dropped", str(error)))
                return
            seen[at].add(answer.version)
            if answer["value"].tolist() != [[float(answer.version)]] or answer.digest != digests[answer.version]:
                wrong.append((at, answer.version, answer["value"].tolist()))

    def ask_over_http(at: int) -> None:
        client = http.client.HTTPConnection(url.removeprefix("http://"), timeout=30)
        while not stop.is_set():
            client.request("POST", "/v2/models/quality/infer", body)
            reply = client.getresponse()
            answer = json.loads(reply.read())
            counts[at] += 1
            if reply.status != 200:
                wrong.append((at, reply.status, answer))
                continue
            version = answer["model_version"]
            seen[at].add(version)
            if answer["outputs"][0]["data"] != [float(version)] or answer["parameters"]["digest"] != digests[version]:
                wrong.append((at, version, answer))
        client.close()

    asks = (ask_in_process, ask_in_process, ask_over_http, ask_over_http)
    threads = [threading.Thread(target=ask, args=(at,)) for at, ask in enumerate(asks)]
    for thread in threads:
        thread.start()
    for done in range(100):
        if done % 10 < 2:
            two_more_answers(counts, wrong)
        slots.install("quality", models.pop(0))
    stop.set()
    for thread in threads:
        thread.join()
    front.stop()
    assert wrong == []
    assert all(versions == {"0.0", "1.0"} for versions in seen)
    summaries = [one.observer.close_window() for one in slots.observed()]
    assert (sum(one.rows for one in summaries), sum(one.errors + one.refused for one in summaries)) == (sum(counts), 0)


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


class Rows:
    """A sink of windows that keeps their sum."""

    def __init__(self) -> None:
        self.n = 0

    def append(self, window: ClosedWindow) -> None:
        self.n += window.n


def test_every_row_is_in_one_window_however_models_are_swapped_and_windows_closed() -> None:
    slots, rows = SlotTable(release=lambda: None), Rows()
    slots.install("quality", load(0))
    models = [load(number) for number in range(1, 61)]
    handle, clock = slots.model("quality"), WindowClock(slots, rows, window_s=3600.0)
    stop, counts = threading.Event(), [0] * 4

    def ask(thread: int) -> None:
        while not stop.is_set():
            handle.predict({"x": BATCH if thread % 2 else X})
            counts[thread] += 3 if thread % 2 else 1
            if thread > 1:
                stop.wait(0.002)

    def close() -> None:
        while not stop.is_set():
            clock.close_all()

    swap_meanwhile(slots, models, stop, close, *(partial(ask, at) for at in range(4)))
    clock.close_all()
    assert rows.n == sum(counts) > 0


def test_rows_counted_after_the_last_look_are_not_forgotten_with_their_model() -> None:
    slots = SlotTable(drain_s=0.01, release=lambda: None)
    slots.install("quality", load(1))
    held = slots.get("quality")  # as a call in flight holds it
    slots.install("quality", load(2))
    leaving = slots.observed()[1]
    assert leaving.observer.close_window().n == 0  # the window closes,
    assert held is not None
    held.predict({"x": X})  # the call ends, and with it the model,
    del held
    slots.observed()
    slots.forget(leaving)  # and only now does the clock come to say that it closed the window
    assert [one.observer.close_window().n for one in slots.observed()] == [0, 1]


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


def test_a_mistyped_slot_is_told_which_there_are() -> None:
    slots = SlotTable(release=lambda: None)
    slots.install("quality", load(3))
    slots.install("anomaly", load(4))
    with pytest.raises(
        NoModelError, match="'qualty' has no model; the slots that have one: 'anomaly', 'quality'"
    ) as it:
        slots.model("qualty").predict({"x": X})
    assert it.value.hint.startswith("is one of those meant?")


def test_a_program_waits_for_its_first_model() -> None:
    slots = SlotTable()
    handle = slots.model("quality")
    assert repr(handle) == "<slot quality: no model>"
    with pytest.raises(NoModelError, match="'quality' has no model"):
        handle.wait(0.0)
    rollout = threading.Timer(0.2, slots.install, ("quality", load(4)))
    rollout.start()
    handle.wait(60.0)
    rollout.join()
    assert handle.predict({"x": X}).version == "4.0"
    assert repr(handle).endswith(":4.0>")
