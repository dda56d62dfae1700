"""Effect sizes beside what they reach by chance; the gap to the training data."""

import numpy as np
import pytest

from shoal_protocol.profile.grid import fit_numeric
from shoal_protocol.profile.profile import ProfileSpec, Stream
from shoal_server.drift.effects import deployment_gap
from shoal_server.statistics.divergence import by_chance, jensen_shannon, psi
from shoal_server.statistics.layout import Layout

GRID = fit_numeric(np.random.default_rng(0).normal(size=10_000))
LAYOUT = Layout.of(ProfileSpec((Stream("x", "input", GRID, "x"),)))


def count(rows: np.ndarray) -> np.ndarray:
    coarse = np.searchsorted(np.array(GRID.coarse), GRID.cells_of(rows), side="right") - 1
    return np.bincount(coarse, minlength=GRID.size)


def test_effects_of_equal_data_are_what_chance_gives() -> None:
    random = np.random.default_rng(1)
    for rows in (200, 2000):
        pairs = [(count(random.normal(size=rows)), count(random.normal(size=rows))) for _ in range(200)]
        a, b = (np.array(side) for side in zip(*pairs, strict=True))
        threshold = by_chance(LAYOUT, np.array([float(rows)]), np.array([float(rows)]))
        assert (psi(LAYOUT, a, b) > threshold).mean() <= 0.03
        assert (jensen_shannon(LAYOUT, a, b) > threshold / 8).mean() <= 0.03
        assert (psi(LAYOUT, a, b) > 0.1 * threshold).mean() > 0.9  # and the threshold is not idle


def test_js_is_bounded_and_symmetric() -> None:
    a, b = count(np.full(10**6, -1.0)), count(np.full(10**6, 1.0))
    assert jensen_shannon(LAYOUT, a, b) == pytest.approx([np.log(2)], rel=1e-3)
    assert jensen_shannon(LAYOUT, a, b) == pytest.approx(jensen_shannon(LAYOUT, b, a))


def test_a_small_gap_never_alarms_however_many_rows_there_are() -> None:
    random = np.random.default_rng(2)
    reference = count(random.normal(size=20_000))
    small = deployment_gap(LAYOUT, reference, count(random.normal(size=500_000) + 0.3))
    large = deployment_gap(LAYOUT, reference, count(random.normal(size=5_000) + 0.8))
    assert (small.beyond.tolist(), large.beyond.tolist()) == ([False], [True])
    assert small.psi[0] > small.psi_by_chance[0]  # although it is no chance
    assert small.effect[0] == pytest.approx(0.3, abs=0.05)


def test_few_rows_say_nothing_of_the_gap() -> None:
    random = np.random.default_rng(3)
    gap = deployment_gap(LAYOUT, count(random.normal(size=20_000)), count(random.normal(size=150) + 5))
    assert (gap.enough.tolist(), gap.beyond.tolist()) == ([False], [False])
