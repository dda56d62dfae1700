"""Drawings: nothing lost, nothing outside the frame, nothing that is not escaped."""

import re
from itertools import pairwise
from typing import Any
from xml.etree import ElementTree as ET

import numpy as np
import pytest

from shoal_protocol.profile.grid import CategoricalGrid, Grid, NumericGrid, fit_categorical, fit_numeric
from shoal_server.report.plots import HEIGHT, WIDTH, distribution_svg, raised_in, series_svg
from shoal_server.statistics.cells import cells_of, distribution

RANDOM = np.random.default_rng(3)
NUMERIC = fit_numeric(RANDOM.normal(10, 2, 3000))
SKEWED = fit_numeric(np.concatenate([np.zeros(2000), RANDOM.lognormal(3, 2, 3000)]))
CATEGORICAL = fit_categorical(["low", "high"])


def counts(grid: Grid, values: Any) -> np.ndarray:
    cells = np.searchsorted(np.array(grid.coarse), grid.cells_of(values), side="right") - 1
    return np.bincount(cells, minlength=grid.size).astype(np.int64)


def drawn(grid: Grid, reference: Any, live: Any) -> ET.Element:
    text = distribution_svg(distribution(grid, counts(grid, reference), counts(grid, live)), caption="temp <b>")
    return ET.fromstring(text)


def titles(svg: ET.Element) -> list[str]:
    return [one.text or "" for one in svg.iter("title")]


def numbers(svg: ET.Element) -> list[float]:
    """Return all places across that are drawn."""
    across = [float(one.get(key, 0)) for one in svg.iter() for key in ("x", "x1", "x2", "cx") if one.get(key)]
    return across + [float(x) for one in svg.iter("path") for x in re.findall(r"[HM]([-\d.]+)", one.get("d", ""))]


@pytest.mark.parametrize("grid", [NUMERIC, SKEWED, CATEGORICAL])
def test_every_cell_has_a_name_and_bounds_that_join(grid: NumericGrid | CategoricalGrid) -> None:
    cells = cells_of(grid)
    assert len(cells) == grid.size
    inner = [cell for cell in cells if cell.low is not None and cell.high is not None]
    assert all(before.high == after.low for before, after in pairwise(inner))


def test_values_lie_in_the_cell_that_is_named() -> None:
    for at, cell in enumerate(cells_of(SKEWED)):
        if cell.low is not None and cell.high is not None:
            assert counts(SKEWED, [(cell.low + cell.high) / 2])[at] == 1


@pytest.mark.parametrize(
    ("grid", "live"),
    [(NUMERIC, RANDOM.normal(60, 30, 400)), (SKEWED, np.full(300, 7.0)), (NUMERIC, np.full(50, np.nan))],
)
def test_all_is_inside_the_frame_and_told_in_titles(grid: NumericGrid, live: np.ndarray) -> None:
    svg = drawn(grid, RANDOM.normal(10, 2, 3000), live)
    assert min(numbers(svg)) >= 0
    assert max(numbers(svg)) <= WIDTH
    heights = [float(y) for one in svg.iter("path") for y in re.findall(r"V([-\d.]+)", one.get("d", ""))]
    assert 0 <= min(heights) <= max(heights) <= HEIGHT
    told = " ".join(titles(svg))
    if np.isnan(live).all():
        assert "missing: reference 0 %, live 100 %" in told


def test_missing_stands_beside_only_when_there_is_some() -> None:
    assert not any("missing" in title for title in titles(drawn(NUMERIC, [9.0, 10.0, 11.0], [10.0])))
    quiet = titles(drawn(CATEGORICAL, ["low"] * 5, ["high"] * 5))
    assert quiet == ["high: reference 0 %, live 100 %", "low: reference 100 %, live 0 %"]
    assert "missing: reference 0 %, live 25 %" in titles(drawn(CATEGORICAL, ["low"] * 4, ["", "odd", "low", "low"]))


def test_a_pile_of_equal_values_does_not_flatten_the_rest() -> None:
    values = np.concatenate([np.zeros(2000), RANDOM.lognormal(3, 2, 3000)])
    svg = drawn(SKEWED, values, values)
    assert any("41 % → 41 %" in (one.text or "") for one in svg.iter("text"))
    heights = [float(y) for one in svg.iter("path") for y in re.findall(r"V([-\d.]+)", one.get("d", ""))]
    assert sum(height < HEIGHT * 0.8 for height in heights) > 10


def test_many_categories_say_how_many_are_left_out() -> None:
    names = [f"c{at:02}" for at in range(30)]
    svg = drawn(fit_categorical(names), names, names * 2)
    assert "and 19 more" in [one.text for one in svg.iter("text")]
    odd = fit_categorical(["<script>", "&"])
    assert "<script>" not in distribution_svg(
        distribution(odd, counts(odd, ["&"]), counts(odd, ["<script>"])), caption=""
    )


def test_evidence_has_a_line_a_view_and_a_point_where_it_began() -> None:
    series = {
        "at": [f"2026-01-01T0{hour}:00:00.000Z" for hour in range(5)],
        "views": {"location": [0.0, 0.2, 0.9, 1.4, 1.5], "missing": [0.0] * 5},
    }
    raised = raised_in(series, "2026-01-01T01:30:00.000Z")
    assert raised == [(2, "since 2026-01-01T01:30:00.000Z")]
    assert raised_in(series, "2025-01-01T01:30:00.000Z") == []
    svg = ET.fromstring(series_svg(series, caption="evidence", raised=raised))
    assert [one.get("class") for one in svg.iter("polyline")] == ["view-location", "view-missing"]
    assert len(list(svg.iter("circle"))) == 1
    assert series_svg({"at": [], "views": {}}, caption="nothing") == ""


def test_labels_of_two_piles_beside_each_other_are_not_written_into_each_other() -> None:
    grid = fit_numeric(np.repeat(np.arange(17.0), 100))
    counted = np.concatenate([np.repeat([0.0, 1.0], 4000), np.repeat(np.arange(2.0, 17.0), 20)])
    svg = drawn(grid, counted, counted)
    written = [float(one.get("x", 0)) for one in svg.iter("text") if "→" in (one.text or "")]
    assert len(written) == 1


def test_a_day_is_written_once() -> None:
    at = [f"2026-11-21T1{hour}:00:00.000Z" for hour in range(3)]
    text = series_svg({"at": at, "views": {"location": [0.0, 0.1, 0.2]}}, caption="evidence")
    assert ET.fromstring(text) is not None
    assert re.findall(r">([-0-9: ]+)</text>", text) == ["0", "2026-11-21 10:00", "11:00", "12:00"]
