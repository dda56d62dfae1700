import numpy as np
import pytest

from shoal_protocol.errors import ContentError
from shoal_protocol.profile.grid import (
    CategoricalGrid,
    NumericGrid,
    fit_categorical,
    fit_numeric,
    grid_hash,
    parse_grid,
    unit_interval_grid,
)

RNG = np.random.default_rng(7)


def test_missing_below_and_above_have_cells_of_their_own() -> None:
    grid = fit_numeric(RNG.normal(size=2000))
    values = [np.nan, -np.inf, -1e9, 1e9, np.inf, 1e300]
    assert grid.cells_of(values).tolist() == [0, 1, 1, 255, 255, 255]


def test_the_range_is_that_of_the_bulk_widened_by_a_quarter() -> None:
    grid = fit_numeric(np.append(np.linspace(0, 100, 10_001), [1e6]))
    edges = grid.fine_edges()
    assert edges[0] == pytest.approx(-25, abs=0.5)
    assert edges[-1] == pytest.approx(125, abs=0.5)
    assert grid.transform == "linear"


def test_a_long_tail_is_counted_on_the_asinh_scale() -> None:
    values = np.exp(RNG.normal(0, 3, 20_000))
    grid = fit_numeric(values)
    assert grid.transform == "asinh"
    counts = np.bincount(grid.cells_of(values), minlength=256)
    assert counts.max() < len(values) / 16


def test_an_atom_gets_a_coarse_cell_of_its_own() -> None:
    values = np.where(RNG.random(5000) < 0.4, 0.0, RNG.normal(3, 1, 5000))
    grid = fit_numeric(values)
    zero = int(grid.cells_of([0.0])[0])
    assert {zero, zero + 1} <= set(grid.coarse)
    assert grid.transform == "linear"


@pytest.mark.parametrize(
    "values",
    [[], [np.nan], [3.0], [0.0] * 50, [1e-30, 2e-30], [np.inf, 1.0, 2.0], [True, False], [-5, 5]],
    ids=["empty", "all missing", "one", "constant", "tiny", "infinite", "bool", "two"],
)
def test_any_training_column_gives_a_usable_grid(values: list[float]) -> None:
    grid = fit_numeric(np.array(values, dtype=np.float64))
    cells = grid.cells_of(np.array([v for v in values if np.isfinite(v)], dtype=np.float64))
    assert ((cells >= 2) & (cells < 255)).all()
    assert parse_grid(grid.as_json()) == grid


def test_most_coarse_cells_are_used_by_the_training_data() -> None:
    values = RNG.gamma(2.0, 1.0, 50_000)
    grid = fit_numeric(values)
    counts = np.add.reduceat(np.bincount(grid.cells_of(values), minlength=256), grid.coarse)
    assert len(grid.coarse) <= 32 + 1
    assert (counts[3:-1] > 0).mean() > 0.9


def test_scores_are_counted_in_64_bins_with_both_ends_inside() -> None:
    grid = unit_interval_grid()
    assert grid.cells_of([0.0, 1 / 64, 0.5, 1.0, 1.02, -0.02]).tolist() == [2, 3, 34, 66, 67, 1]
    assert 34 in grid.coarse, "the decision threshold is an edge"
    assert 66 not in grid.coarse, "exactly one belongs to the last bin"


def test_categories_have_a_text_each() -> None:
    grid = fit_categorical(np.array(["b", "a", None, "b", float("nan"), ""], dtype=object))
    assert grid.categories == ("a", "b")
    assert grid.cells_of(np.array(["a", "b", "z", None, ""], dtype=object)).tolist() == [2, 3, 1, 0, 0]


def test_numbers_and_bools_are_categories_by_the_same_text_everywhere() -> None:
    grid = fit_categorical(np.array([3, 1, 1]))
    assert grid.categories == ("1", "3")
    assert grid.cells_of(np.array([3.0, 1.0, 2.0])).tolist() == [3, 2, 1]
    assert CategoricalGrid(("false", "true")).cells_of(np.array([True, False])).tolist() == [3, 2]


def test_only_the_most_frequent_categories_are_kept() -> None:
    grid = fit_categorical(np.repeat([f"c{i:03}" for i in range(100)], np.arange(100, 0, -1)), most=10)
    assert grid.categories == tuple(f"c{i:03}" for i in range(10))


@pytest.mark.parametrize(
    "change",
    [
        {"kind": "x"},
        {"inverse_step": 0},
        {"inverse_step": 1e-50},
        {"origin": 1e39},
        {"scale": 1e-50},
        {"cells": 10**9},
        {"coarse": [0, 1]},
        {"coarse": [0, 1, 2, 2]},
        {"origin": "a"},
        {"transform": "log"},
    ],
    ids=str,
)
def test_a_malformed_grid_is_refused(change: dict[str, object]) -> None:
    with pytest.raises(ContentError, match="grid"):
        parse_grid(NumericGrid(0.0, 1.0).as_json() | change)


def test_hashes_differ_when_counting_differs() -> None:
    grids = [
        NumericGrid(0.0, 1.0),
        NumericGrid(0.1, 1.0),
        NumericGrid(0.0, 1.0, coarse=(0, 1, 2, 9)),
        CategoricalGrid(()),
    ]
    assert len({grid_hash(grid) for grid in grids}) == 4
