"""Windows on the clock."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from fixtures_models import linear_spec
from shoal_agent.runtime.observer import Array, Observer
from shoal_agent.runtime.slots import Observed
from shoal_agent.runtime.windows import Clocks, ClosedWindow, WindowClock

MONDAY = 1_700_000_000.0  # a multiple of 10 s and of 0.5 s


@dataclass
class Slots:
    observed_ones: list[Observed]
    forgotten: list[Observed] = field(default_factory=list)

    def observed(self) -> list[Observed]:
        return list(self.observed_ones)

    def forget(self, observed: Observed) -> None:
        self.forgotten.append(observed)


@dataclass
class Sink:
    windows: list[ClosedWindow] = field(default_factory=list)

    def append(self, window: ClosedWindow) -> None:
        self.windows.append(window)


@dataclass
class Time:
    wall: float = MONDAY
    monotonic: float = 100.0

    def pass_(self, seconds: float) -> None:
        self.wall += seconds
        self.monotonic += seconds

    def clocks(self) -> Clocks:
        return Clocks(lambda: self.wall, lambda: self.monotonic, lambda: self.monotonic / 10)


def observed(*, is_active: bool = True, is_gone: bool = False, digest: str = "sha256:" + "a" * 64) -> Observed:
    return Observed("quality", "quality", "1.0.0", digest, Observer(linear_spec(1, 2)), is_active, is_gone)


def predict(one: Observed, times: int = 1) -> None:
    for _ in range(times):
        x = np.zeros((1, 1), np.float32)
        one.observer.answered([x, np.zeros(1, np.int64), np.full((1, 2), 0.5, np.float32)], 1, 30_000)


def setup(*ones: Observed, window_s: float = 10.0, at: float = 0.0) -> tuple[WindowClock, Time, Sink, Slots]:
    time, sink, slots = Time(), Sink(), Slots(list(ones))
    time.pass_(at)
    clock = WindowClock(slots, sink, window_s=window_s, clocks=time.clocks(), resident=lambda: 1000)
    return clock, time, sink, slots


def test_windows_lie_on_multiples_of_their_length() -> None:
    one = observed()
    clock, time, sink, _ = setup(one, at=4.0)
    assert clock.due_in_s() == 6.0
    predict(one, 3)
    time.pass_(5.9)
    assert clock.tick() == 0
    time.pass_(0.2)
    assert clock.tick() == 1
    predict(one)
    time.pass_(9.95)
    assert clock.tick() == 1
    assert [(w.start_ms, w.length_ms, w.n) for w in sink.windows] == [
        (int((MONDAY + 4) * 1000), 6000, 3),
        (int((MONDAY + 10) * 1000), 10_000, 1),
    ]


def test_half_a_second_is_a_window() -> None:
    one = observed()
    clock, time, sink, _ = setup(one, window_s=0.5)
    for _ in range(4):
        predict(one)
        time.pass_(clock.due_in_s())
        assert clock.tick() == 1
    assert [w.start_ms % 500 for w in sink.windows] == [0] * 4
    assert [w.length_ms for w in sink.windows] == [500] * 4


def test_a_window_tells_what_happened() -> None:
    one = observed()
    clock, time, sink, _ = setup(one)
    predict(one, 2)
    one.observer.failed()
    one.observer.refused()
    time.pass_(10)
    clock.tick()
    window = sink.windows[0]
    assert (window.slot, window.digest, window.spec_hash) == ("quality", one.digest, one.observer.spec.hash)
    assert (window.n, window.errors, window.profile.n) == (2, 1, 2)
    assert sum(window.latency) == 2
    assert window.resources == {"cpu_s": 1.0, "rss_bytes": 1000.0, "rows": 2.0, "refused": 1.0}


def test_silence_leaves_no_window() -> None:
    clock, time, sink, _ = setup(observed())
    time.pass_(10)
    assert clock.tick() == 0
    assert sink.windows == []


def test_a_replaced_model_is_closed_once_and_forgotten() -> None:
    old, new = observed(is_active=False, is_gone=True, digest="sha256:" + "b" * 64), observed()
    clock, time, sink, slots = setup(old, new)
    predict(old)
    predict(new)
    time.pass_(10)
    assert clock.tick() == 2
    assert slots.forgotten == [old]
    assert [w.digest for w in sink.windows] == [old.digest, new.digest]


def test_a_replaced_model_that_may_still_answer_is_not_forgotten() -> None:
    old = observed(is_active=False)
    clock, time, _, slots = setup(old)
    predict(old)
    time.pass_(10)
    assert clock.tick() == 1
    assert slots.forgotten == []


def test_rows_whose_latency_came_in_the_window_before_are_told() -> None:
    one = observed()
    clock, time, sink, _ = setup(one)
    keep = one.observer._keep

    def close_first(tensors: Sequence[Array], answered: int) -> None:
        time.pass_(10)
        clock.tick()
        keep(tensors, answered)

    one.observer._keep = close_first  # type: ignore[method-assign]
    predict(one)
    time.pass_(10)
    clock.tick()
    assert [(w.n, sum(w.latency)) for w in sink.windows] == [(0, 1), (1, 0)]


def test_a_clock_that_is_set_changes_the_label_and_not_the_length() -> None:
    one = observed()
    clock, time, sink, _ = setup(one, at=3.0)
    predict(one)
    time.wall += 20 * 365 * 86_400  # the clock of 1970 became right
    time.pass_(7.0)
    assert clock.tick() == 1
    assert sink.windows[0].length_ms == 7000
    assert sink.windows[0].start_ms + 7000 == int(time.wall * 1000)
    predict(one)
    time.wall -= 86_400
    time.pass_(clock.due_in_s())
    assert clock.tick() == 1
    assert sink.windows[1].length_ms == 10_000


def test_a_clean_stop_closes_what_is_open() -> None:
    one = observed()
    clock, time, sink, _ = setup(one, at=1.0)
    predict(one)
    time.pass_(2.5)
    assert clock.close_all() == 1
    assert (sink.windows[0].start_ms, sink.windows[0].length_ms) == (int((MONDAY + 1) * 1000), 2500)
