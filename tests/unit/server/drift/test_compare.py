"""The measure of the output gate: canary against control, new bundle against old."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pytest

from shoal_protocol.profile.grid import CategoricalGrid, unit_interval_grid
from shoal_protocol.profile.profile import Counts, ProfileSpec, Stream, summarise
from shoal_protocol.profile.reference import Reference
from shoal_server.drift.compare import Answer, Comparison, Sample, compare_outputs
from shoal_server.statistics.views import View

CLASSES = tuple("0123456789")
SPEC = ProfileSpec(
    (
        Stream("label", "output", CategoricalGrid(CLASSES), "label"),
        Stream("confidence", "output", unit_interval_grid(bins=64), "p", derive="row_max"),
    )
)
EVEN = np.full(10, 0.1)
COLLAPSED = np.array([0.03] * 8 + [0.73, 0.03])
CANARY, CONTROL = [f"a{at}" for at in range(3)], [f"b{at}" for at in range(27)]
SURE, BETTER, UNSURE = (20.0, 1.5), (24.0, 1.5), (5.0, 5.0)


@dataclass
class Stacked:
    devices: list[str]
    cells: Counts


class World:
    """Draws windows of devices that each see their own mix of classes."""

    def __init__(self, seed: int, spec: ProfileSpec = SPEC) -> None:
        self.random = np.random.default_rng(seed)
        self.spec = spec
        self.mix = {name: self.random.dirichlet(20 * EVEN) for name in (*CANARY, *CONTROL)}

    def reference(self, confidence: tuple[float, float] = SURE, labels: np.ndarray = EVEN) -> Reference:
        return Reference(self.spec, summarise(self.spec, self._rows(1500, confidence, labels)))

    def windows(
        self,
        devices: Sequence[str],
        confidence: tuple[float, float] = SURE,
        labels: np.ndarray | None = None,
        count: int = 8,
        rows: int = 20,
    ) -> Stacked:
        cells = [
            summarise(self.spec, self._rows(rows, confidence, self.mix[name] if labels is None else labels)).cells
            for name in devices
            for _ in range(count)
        ]
        size = self.spec.size
        return Stacked([name for name in devices for _ in range(count)], np.array(cells).reshape(-1, size))

    def _rows(self, rows: int, confidence: tuple[float, float], labels: np.ndarray) -> dict[str, np.ndarray]:
        return {
            "label": self.random.choice(10, size=rows, p=labels),
            "p": self.random.beta(*confidence, size=(rows, 1)),
        }


def judged(world: World, now: Stacked, new: Reference, old: Reference, **changes: Sample | None) -> Comparison:
    samples = {
        "control": Sample(world.windows(CONTROL), old),
        "canary_before": Sample(world.windows(CANARY), old),
        "control_before": Sample(world.windows(CONTROL), old),
        **changes,
    }
    return compare_outputs(canary=Sample(now, new), tolerance=0.1, **samples)


@pytest.mark.parametrize("seed", range(5))
def test_a_good_new_version_passes(seed: int) -> None:
    world = World(seed)
    old, new = world.reference(), world.reference(BETTER)
    answer = judged(world, world.windows(CANARY, BETTER), new, old)
    assert answer.verdict is Answer.PASS, answer.sentence
    assert (answer.n, answer.devices, answer.control_devices) == (480, 3, 27)
    assert answer.bound_low == 0.0  # nothing has changed, and the bounds know it
    assert answer.bound_high is not None
    assert answer.value < answer.bound_high < 0.3


@pytest.mark.parametrize(
    ("confidence", "labels", "stream"),
    [(SURE, COLLAPSED, "label"), (UNSURE, None, "confidence"), (UNSURE, COLLAPSED, None)],
    ids=["labels collapse", "confidence collapses", "both"],
)
def test_wrong_preprocessing_fails_on_three_devices(
    confidence: tuple[float, float], labels: np.ndarray | None, stream: str | None
) -> None:
    world = World(7)
    old, new = world.reference(), world.reference()
    for changes in ({}, {"canary_before": None, "control_before": None}, {"control": None, "control_before": None}):
        answer = judged(world, world.windows(CANARY, confidence, labels), new, old, **changes)
        assert answer.verdict is Answer.FAIL, answer.sentence
        assert stream in (None, answer.stream)
        assert answer.bound_low is not None
        assert answer.bound_low > 0.1
        assert "3 devices, 480 predictions" in answer.sentence


def test_a_shift_that_the_references_explain_passes() -> None:
    world = World(8)
    old, new = world.reference(), world.reference(UNSURE)
    assert judged(world, world.windows(CANARY, UNSURE), new, old).verdict is Answer.PASS
    unexplained = world.reference()
    assert judged(world, world.windows(CANARY, UNSURE), unexplained, old).verdict is Answer.FAIL


def test_a_shift_of_the_whole_world_does_not_blame_the_model_and_does_not_excuse_it() -> None:
    world = World(9)
    old, new = world.reference(), world.reference()
    foggy = Sample(world.windows(CONTROL, (8.0, 3.0)), old)
    assert judged(world, world.windows(CANARY, (8.0, 3.0)), new, old, control=foggy).verdict is Answer.PASS
    broken = world.windows(CANARY, (8.0, 3.0), COLLAPSED)
    answer = judged(world, broken, new, old, control=foggy)
    assert answer.verdict is Answer.FAIL
    assert answer.stream == "label"


def test_each_device_is_compared_with_its_own_past() -> None:
    world = World(10)
    for at, name in enumerate(CANARY):  # three cameras that always see one digit
        world.mix[name] = np.where(np.arange(10) == at, 0.91, 0.01)
    old, new = world.reference(), world.reference()
    now = world.windows(CANARY)
    assert judged(world, now, new, old).verdict is Answer.PASS
    without = judged(world, now, new, old, canary_before=None, control_before=None)
    assert without.verdict is not Answer.FAIL
    assert without.value > 0.1


def test_significance_alone_never_fails() -> None:
    world = World(11)
    old, new = world.reference(), world.reference()
    moved = EVEN + np.where(np.arange(10) == 0, 0.05, -0.05 / 9)
    now = world.windows(CANARY, labels=moved, rows=3000)
    answer = judged(world, now, new, old, canary_before=None, control_before=None)
    assert answer.verdict is not Answer.FAIL


def test_one_forger_can_neither_trigger_nor_hide() -> None:
    world = World(12)
    old, new = world.reference(), world.reference()
    good, bad = world.windows(CANARY), world.windows(CANARY, UNSURE, COLLAPSED)
    mine = np.array([name == CANARY[0] for name in good.devices])
    mixed = Stacked(good.devices, np.where(mine[:, None], bad.cells * 10**9, good.cells))
    assert judged(world, mixed, new, old).verdict is not Answer.FAIL
    mixed = Stacked(good.devices, np.where(mine[:, None], good.cells * 10**9, bad.cells))
    assert judged(world, mixed, new, old).verdict is not Answer.PASS


def test_a_first_deployment_is_compared_with_its_own_reference() -> None:
    world = World(13)
    new = world.reference()
    world.mix.update(dict.fromkeys(CANARY, EVEN))
    good = compare_outputs(canary=Sample(world.windows(CANARY), new), tolerance=0.1)
    assert good.verdict is Answer.PASS, good.sentence
    assert good.control_devices == 0
    bad = compare_outputs(canary=Sample(world.windows(CANARY, UNSURE), new), tolerance=0.1)
    assert bad.verdict is Answer.FAIL


def test_streams_with_other_grids_are_left_out_and_named() -> None:
    world = World(14)
    other = ProfileSpec((Stream("label", "output", CategoricalGrid((*CLASSES, "x")), "label"), SPEC.streams[1]))
    there = World(15, other)
    old, new = there.reference(), world.reference()
    answer = compare_outputs(
        canary=Sample(world.windows(CANARY, UNSURE), new),
        control=Sample(there.windows(CONTROL), old),
        tolerance=0.1,
    )
    assert answer.verdict is Answer.FAIL
    assert (answer.compared, answer.left_out) == (("confidence",), ("label",))


def test_without_a_common_stream_nothing_is_claimed() -> None:
    world = World(16)
    other = ProfileSpec(
        (
            Stream("label", "output", CategoricalGrid((*CLASSES, "x")), "label"),
            Stream("confidence", "output", unit_interval_grid(bins=32), "p", derive="row_max"),
        )
    )
    there = World(17, other)
    answer = compare_outputs(
        canary=Sample(world.windows(CANARY), world.reference()),
        control=Sample(there.windows(CONTROL), there.reference()),
        tolerance=0.1,
    )
    assert answer.verdict is Answer.INCONCLUSIVE
    assert math.isnan(answer.value)
    assert answer.n == 0
    assert "label" in answer.sentence
    assert "confidence" in answer.sentence


@pytest.mark.parametrize(("rows", "count"), [(9, 1), (20, 0)])
def test_too_few_predictions_are_inconclusive(rows: int, count: int) -> None:
    world = World(18)
    old, new = world.reference(), world.reference()
    answer = judged(world, world.windows(CANARY, rows=rows, count=count), new, old)
    assert answer.verdict is Answer.INCONCLUSIVE
    assert answer.n == 0


def test_a_single_canary_has_an_estimate_and_no_bounds() -> None:
    world = World(19)
    old, new = world.reference(), world.reference()
    answer = judged(world, world.windows(CANARY[:1], UNSURE), new, old)
    assert (answer.devices, answer.bound_low, answer.verdict) == (1, None, Answer.INCONCLUSIVE)
    assert answer.value > 0.1


def test_missing_predictions_are_a_view_of_their_own() -> None:
    world = World(20)
    old, new = world.reference(), world.reference()
    now = world.windows(CANARY)
    part = SPEC.slice("confidence")
    gone = now.cells[:, part].sum(axis=1)
    now.cells[:, part] = 0
    now.cells[:, part.start] = gone
    answer = judged(world, now, new, old)
    assert answer.verdict is Answer.FAIL
    assert (answer.stream, answer.view) == ("confidence", View.MISSING)


@pytest.mark.slow
def test_a_good_version_is_hardly_ever_failed_by_chance() -> None:
    failed = passed = 0
    for seed in range(100, 200):
        world = World(seed)
        answer = judged(world, world.windows(CANARY, BETTER), world.reference(BETTER), world.reference())
        failed += answer.verdict is Answer.FAIL
        passed += answer.verdict is Answer.PASS
    assert failed == 0
    assert passed >= 95
