"""Gains, offsets, spreads and outliers told apart, also on skewed values and small samples."""

import numpy as np
import numpy.typing as npt
import pytest

from shoal_server.statistics.causes import pile, suspected_cause, unit_change
from shoal_server.statistics.movements import MOST_POINTS, distance, gain_or_offset, inner_ratio, spread_ratio
from shoal_server.statistics.views import View
from shoal_server.testing.gas_array import MIX, GasArray

Numbers = npt.NDArray[np.float64]


def skewed(seed: int, rows: int = 300) -> Numbers:
    return np.exp(np.random.default_rng(seed).normal(1.0, 0.6, rows))


@pytest.mark.parametrize("factor", [0.6, 0.85, 1.2, 2.3])
def test_a_gain_is_told_from_an_offset_on_skewed_values(factor: float) -> None:
    kind, amount = gain_or_offset(skewed(1, 1000), skewed(2, 1000) * factor)
    assert kind == "gain"
    assert amount == pytest.approx(factor, rel=0.1)
    kind, amount = gain_or_offset(skewed(1), skewed(2) + 2.0)
    assert kind == "offset"
    assert amount == pytest.approx(2.0, abs=0.3)


def test_values_that_moved_otherwise_are_neither() -> None:
    assert gain_or_offset(skewed(1, 2000), skewed(2, 2000) ** 2) == ("", 0.0)
    assert gain_or_offset(np.full(100, 3.0), skewed(1, 100)) == ("", 0.0)
    assert gain_or_offset(skewed(1, 20), skewed(2, 20)) == ("", 0.0)


def test_a_ratio_of_spreads_that_chance_explains_is_one() -> None:
    random = np.random.default_rng(3)
    heavy = random.standard_t(3, (2, 200))
    assert spread_ratio(heavy[0], heavy[1]) == 1.0
    assert spread_ratio(random.normal(size=300), 1.6 * random.normal(size=300)) == pytest.approx(1.6, abs=0.25)
    assert spread_ratio(np.zeros(100), heavy[0]) == 1.0
    assert inner_ratio(np.zeros(100), heavy[0]) == 1.0


def test_many_rows_are_looked_at_by_quantiles() -> None:
    rows = skewed(4, 10 * MOST_POINTS)
    assert distance(rows, rows.copy()) < 0.1
    assert gain_or_offset(rows, 1.1 * skewed(5, 10 * MOST_POINTS))[0] == "gain"


def test_noise_is_no_outliers_and_outliers_are_no_noise() -> None:
    random = np.random.default_rng(6)
    before, now = random.normal(size=(2, 400))
    noisy = now + 1.5 * random.normal(size=400)
    stray = np.where(random.random(400) < 0.1, 10 * random.normal(size=400), now)
    for view in (View.RANGE, View.SHAPE):
        assert suspected_cause(view, before, noisy).startswith("noise")
        assert suspected_cause(view, before, stray).startswith("outliers")


def test_another_mix_of_gases_is_no_change_of_unit() -> None:
    before, _ = GasArray(seed=3).batch(0)
    for batch in (1, 4, 5):
        now, _ = GasArray(seed=3).batch(0, mix=MIX[batch], aged=False)
        assert not [at for at in range(before.shape[1]) if unit_change(before[:, at], now[:, at])]


def test_a_pile_that_moves_with_all_other_values_is_not_stuck() -> None:
    random = np.random.default_rng(7)
    before, now = (np.where(random.random(500) < 0.2, 1.0, random.random(500) + 1) for _ in range(2))
    assert pile(before, 0.7 * now) == ""
    assert pile(before, np.where(random.random(500) < 0.3, 1.5, now)).startswith("stuck")
