"""A bundle packed with a handful of rows: its cells still hold the fleet's values, and lose little power."""

import numpy as np
import pytest

from shoal_protocol.profile.codec import encode_counts
from shoal_protocol.profile.grid import FEW_VALUES, NumericGrid, fit_few, fit_numeric
from shoal_protocol.profile.profile import ProfileSpec, Stream, summarise
from shoal_server.statistics.layout import Layout
from shoal_server.statistics.views import corrected, five_views

ROWS, REPEATS = 2000, 80


def spec_of(grid: NumericGrid) -> ProfileSpec:
    return ProfileSpec((Stream("x", "input", grid, "x"),))


def cells_of(spec: ProfileSpec, values: np.ndarray) -> np.ndarray:
    return summarise(spec, {"x": values.astype(np.float32)[:, None]}).cells


def power(spec: ProfileSpec, shift: float, scale: float) -> float:
    """Return how often the fleet's later windows differ from its first ones, at 1 %."""
    random, layout, fired = np.random.default_rng(1), Layout.of(spec), 0
    for _ in range(REPEATS):
        before, now = random.normal(1013, 5, ROWS), random.normal(1013 + 5 * shift, 5 * scale, ROWS)
        views = five_views(layout, cells_of(spec, before).astype(float), cells_of(spec, now).astype(float))
        fired += float(corrected(views.p[0], views.share[0])) < 0.01
    return fired / REPEATS


@pytest.mark.parametrize("rows", [5, 10, 49])
def test_cells_of_few_rows_find_what_cells_of_many_find(rows: int) -> None:
    random = np.random.default_rng(7)
    many = spec_of(fit_numeric(random.normal(1013, 5, 5000)))
    few = spec_of(fit_few(random.normal(1013, 5, rows)))
    assert power(few, 0, 1) <= 0.06
    for shift, scale in ((0.12, 1.0), (0.0, 1.1)):
        assert power(few, shift, scale) >= power(many, shift, scale) - 0.15


def test_the_fleets_values_fall_inside() -> None:
    random = np.random.default_rng(8)
    spec = spec_of(fit_few(random.normal(0, 1, 10)))
    cells = cells_of(spec, random.normal(0, 1, 10_000))
    assert cells[1] + cells[-1] < 20
    twenty = np.concatenate([cells_of(spec, random.normal(0, 1, 1000)) for _ in range(20)])
    assert len(encode_counts(twenty, np.zeros((20, 2), np.int64))) < 20 * 60


@pytest.mark.parametrize("values", [[3.0], [0.0, 0.0], [1e12, 1e12], [-1e-9, 1e-9], [1e30, -1e30]])
def test_any_few_values_give_a_grid_that_holds_them(values: list[float]) -> None:
    assert len(values) < FEW_VALUES
    grid = fit_few(values)
    assert ((grid.cells_of(values) > 1) & (grid.cells_of(values) < grid.cells - 1)).all()
