"""What is counted of a shadow's answers, and when a shadow is given up."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from shoal_agent.domain.backoff import Backoff
from shoal_agent.domain.slot import Cleared, Fetched, Passed, Postponed, ShadowWish, Slot
from shoal_agent.runtime.shadow_tally import Comparison, ShadowTally
from shoal_agent.testing import FakeClock
from shoal_agent.updating.shadows import MAX_STARTS, STEADY_S, Shadows
from shoal_protocol.bundle.schema import ModelSchema, OutputSpec
from shoal_protocol.profile.codec import LATENCIES
from shoal_protocol.profile.shadow import DIFFERENT, MAX_PAIRS, OTHER, check_shadows

A, B = "sha256:" + "a" * 64, "sha256:" + "b" * 64


def schema(*outputs: tuple[str, str]) -> ModelSchema:
    specs = tuple(OutputSpec(name=n, dtype="float32", shape=(None,), role=role) for n, role in outputs)
    return ModelSchema(tensors=(), inputs=(), outputs=specs)


def tally(*outputs: tuple[str, str]) -> ShadowTally:
    return ShadowTally(B, Comparison(schema(*outputs), schema(*outputs)))


def test_classes_are_counted_in_pairs_and_probabilities_by_their_largest_difference():
    counted = tally(("label", "label"), ("p", "probabilities"))
    mine = {"label": np.array([1, 2, 2]), "p": np.array([[0.5, 0.5], [0.0, 1.0], [0.2, 0.8]], np.float32)}
    other = {"label": np.array([1, 1, 2]), "p": np.array([[0.5, 0.5], [0.75, 0.25], [0.2, 0.8]], np.float32)}
    counted.compared(mine, other, rows=3, elapsed_ns=(15_000, 4_000))
    sums = counted.close()
    assert (sums.rows, sums.agreed) == (3, 2)
    assert sorted(sums.pairs) == [("1", "1", 1), ("2", "1", 1), ("2", "2", 1)]
    assert (sums.differences.n, sums.differences.absolute, sums.differences.counts[0]) == (3, 0.75, 2)
    assert (sums.active_latency, sums.shadow_latency) == ((0, 1), (1,))
    assert counted.close().is_silent


def test_rare_pairs_are_put_together_and_no_row_is_lost():
    counted = tally(("label", "label"))
    said = np.arange(MAX_PAIRS + 50)
    counted.compared({"label": said}, {"label": said % (MAX_PAIRS + 10)}, rows=len(said), elapsed_ns=(1, 1))
    (sums,) = check_shadows((counted.close(),), latencies=LATENCIES)
    told = {(mine, other): n for mine, other, n in sums.pairs}
    assert sum(told.values()) == len(said)
    assert told[OTHER, OTHER] + told[OTHER, DIFFERENT] == 50


def test_numbers_that_are_none_are_counted_and_spoil_no_sum():
    counted = tally(("y", "value"))
    mine = np.array([[1.0], [2.0], [np.nan], [0.0]])
    counted.compared({"y": mine}, {"y": np.array([[1.0], [4.0], [1.0], [np.inf]])}, rows=4, elapsed_ns=(1, 1))
    sums = counted.close()
    gaps = sums.differences
    assert (sums.agreed, gaps.n, gaps.sum, gaps.square) == (1, 2, 2.0, 4.0)
    assert (gaps.counts[0], gaps.counts[-2], gaps.counts[-1], sum(gaps.counts)) == (1, 1, 1, 4)


class Place:
    """Shadows over steps that all pass, and a saved wish."""

    def __init__(self) -> None:
        self.clock, self.loads, self.saved = FakeClock(), 0, True
        self.wish = ShadowWish(B)
        self.check = Cleared()
        self.active = SimpleNamespace(digest=A, name="q", version="1")
        self.running_s, self.cut = 0.0, 0
        shadow = SimpleNamespace(
            start=lambda: None,
            stop=lambda: None,
            is_beside=lambda model: model is self.active,
            running_s=lambda: self.running_s,
            cut_off=self._cut_off,
        )
        self.host = SimpleNamespace(
            load=self._load,
            active=lambda _: self.active,
            beside=lambda *_: shadow,
            release=lambda: None,
            holds_one=False,
        )
        work = SimpleNamespace(
            check=lambda *_, **__: self.check, fetch=lambda *_, **__: Fetched(), test=lambda *_, **__: Passed()
        )
        self.shadows = Shadows(
            self.host,
            work,
            monotonic=self.clock,
            chance=lambda: 0.5,
            backoff=Backoff(base_s=1.0, cap_s=9.0),
            cancelled=lambda: False,
            changed=lambda: None,
        )

    def advance(self) -> str:
        self.shadows.advance("q", Slot(active=A, shadow=self.wish), self._save)
        return self.shadows.reports()["q"].state

    def _cut_off(self) -> None:
        self.cut += 1

    def _load(self, _digest):
        self.loads += 1
        return SimpleNamespace(digest=B, name="q", version="2")

    def _save(self, wish) -> bool:
        if self.saved:
            self.wish = wish
        return self.saved


@pytest.fixture
def place():
    return Place()


def test_a_start_with_a_shadow_is_counted_before_it_is_loaded_and_forgotten_when_it_lasts(place):
    assert place.advance() == "running"
    assert place.wish.starts == 1
    place.clock.move(STEADY_S)
    assert (place.advance(), place.wish.starts, place.loads) == ("running", 0, 1)


def test_a_shadow_with_which_the_agent_ended_again_and_again_is_given_up(place):
    place.wish = ShadowWish(B, starts=MAX_STARTS)
    assert (place.advance(), place.loads) == ("failed", 0)
    assert place.shadows.reports()["q"].error.code == "shadow_crashes"
    place.wish = ShadowWish(B, attempt=1)
    assert place.advance() == "running"


def test_a_device_that_holds_one_model_runs_no_shadow_and_says_so(place):
    place.host.holds_one = True
    assert (place.advance(), place.loads) == ("failed", 0)
    assert place.shadows.reports()["q"].error.code == "one_model"


def test_a_start_that_can_not_be_counted_is_not_made(place):
    place.saved = False
    assert (place.advance(), place.loads) == ("waiting", 0)
    place.saved = True
    place.clock.move(10)
    assert place.advance() == "running"


def test_a_transport_that_fails_is_tried_again_after_a_wait(place):
    place.check = Postponed("transport", "no network")
    assert place.advance() == "waiting"
    assert place.shadows.reports()["q"].error.message == "no network"
    assert place.shadows.is_fetching
    place.check = Cleared()
    assert place.advance() == "waiting"
    place.clock.move(10)
    assert (place.advance(), place.shadows.is_fetching) == ("running", False)


def test_a_shadow_that_hangs_is_cut_off_and_given_up(place):
    assert place.advance() == "running"
    place.running_s = 60.0
    assert (place.advance(), place.cut) == ("running", 0)
    place.running_s = 61.0
    assert [place.advance() for _ in range(3)] == ["failed"] * 3
    assert (place.cut, place.loads) == (1, 1)
    assert place.shadows.reports()["q"].error.code == "shadow_hang"
    assert not place.shadows.is_fetching
