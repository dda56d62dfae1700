"""Two arms of devices, looked at every hour: seldom wrong where there is no difference, right where there is one."""

import math

import numpy as np
import pytest

from shoal_server.statistics.arms import Arm, Comparison, compare, mean_reach

HOURS, ROWS = 36, 20


def arm(
    random: np.random.Generator, devices: int, *, accuracy: float = 0.9, apart: float = 0.5, hours: float = 0.2
) -> Arm:
    """Draw right answers of devices that differ, in hours that differ; spreads are of the logit."""
    logit = math.log(accuracy / (1 - accuracy)) + apart * random.normal(size=(devices, 1))
    chance = 1 / (1 + np.exp(-logit - hours * random.normal(size=(devices, HOURS))))
    n = random.poisson(ROWS * np.exp(0.5 * random.normal(size=(devices, 1))), (devices, HOURS))
    right = random.binomial(n, chance).astype(float)
    return Arm(n.astype(float), right, right)


def until(one: Arm, hour: int) -> Arm:
    return Arm(one.n[:, :hour], one.total[:, :hour], one.square[:, :hour], one.most, one.yardstick)


def looks(a: Arm, b: Arm) -> list[Comparison]:
    return [compare(until(a, hour), until(b, hour)) for hour in range(1, HOURS + 1, 2)]


@pytest.mark.parametrize(("control", "canaries", "apart"), [(25, 5, 0.8), (27, 3, 0.8), (10, 10, 0.0)])
def test_who_looks_every_other_hour_is_seldom_ever_told_a_difference_that_is_not_there(
    control: int, canaries: int, apart: float
) -> None:
    """The promise is 5 %; a rule that forgets the devices, or that is made for one look, is wrong in a third."""
    random, wrong = np.random.default_rng(7), 0
    for _ in range(60):
        a, b = arm(random, control, apart=apart), arm(random, canaries, apart=apart)
        wrong += any(one.verdict in {"a_higher", "b_higher"} for one in looks(a, b))
    assert wrong <= 6  # 3 are expected at most, and 7 or more come once in 30 of the promise's own


@pytest.mark.parametrize(("control", "canaries", "worse"), [(25, 5, 0.12), (30, 30, 0.06)])
def test_a_worse_bundle_is_found(control: int, canaries: int, worse: float) -> None:
    random, found = np.random.default_rng(8), 0
    for _ in range(20):
        a, b = arm(random, control, apart=0.3), arm(random, canaries, accuracy=0.9 - worse, apart=0.3)
        found += compare(a, b).verdict == "a_higher"
    assert found >= 17


def test_bounds_never_close_on_what_few_devices_can_not_tell() -> None:
    """A thousand times the rows of the same devices: the devices' own differences stay."""
    random = np.random.default_rng(9)
    a, b = arm(random, 6), arm(random, 6)
    many = [Arm(1000 * one.n, 1000 * one.total, 1000 * one.square) for one in (a, b)]
    few, sure = compare(a, b), compare(*many)
    assert sure.high - sure.low > 0.3 * (few.high - few.low)


def test_one_device_with_very_many_rows_does_not_decide() -> None:
    random = np.random.default_rng(10)
    a, b = arm(random, 10, apart=0.0), arm(random, 10, apart=0.0)
    b.n[0] *= 1e6
    b.total[0], b.square[0] = 0.0, 0.0
    found = compare(a, b)
    assert found.verdict == "none"
    assert found.difference > -0.25


def test_rows_of_an_hour_that_are_all_alike_count_as_few() -> None:
    random = np.random.default_rng(11)
    steady = arm(random, 10, apart=0.0, hours=0.0)
    right = np.where(random.random(steady.n.shape) < 0.9, steady.n, 0.0)  # all of an hour right, or none
    alike = Arm(steady.n, right, right)
    widths = [found.high - found.low for found in (compare(steady, steady), compare(alike, alike))]
    assert widths[1] > 1.5 * widths[0]


def test_what_a_bundle_is_measured_by_is_part_of_the_doubt() -> None:
    random = np.random.default_rng(12)
    a, b = arm(random, 30), arm(random, 30, accuracy=0.8)
    assert compare(a, b).verdict == "a_higher"
    assert compare(a, Arm(b.n, b.total, b.square, yardstick=0.2)).verdict == "none"


@pytest.mark.parametrize(("devices", "rows", "words"), [(2, 100, "devices"), (5, 2, "rows"), (0, 0, "no rows")])
def test_too_few_is_said(devices: int, rows: int, words: str) -> None:
    few = np.full((devices, 2), float(rows))
    found = compare(arm(np.random.default_rng(1), 10), Arm(few, few / 2, few / 2))
    assert (found.verdict, found.low, found.high) == ("too_few", -math.inf, math.inf)
    assert words in found.reason


def test_always_right_is_not_known_for_sure() -> None:
    n = np.full((5, 4), 10.0)
    found = compare(Arm(n, n, n), Arm(n, n, n))
    assert (found.verdict, found.difference) == ("none", 0.0)
    assert found.high > 0.02


def test_a_mean_is_never_far_off_in_most_runs() -> None:
    random, wrong = np.random.default_rng(13), 0
    at = np.arange(1, 2001)
    reach = np.array([mean_reach(1.0, float(n)) for n in at])
    for _ in range(100):
        far = np.abs(np.cumsum(random.exponential(size=2000) - 1) / at) > reach
        wrong += bool(far[50:].any())
    assert wrong <= 9
