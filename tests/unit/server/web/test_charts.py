"""Geometry of charts: nothing lost, nothing outside the frame."""

import numpy as np
import pytest

from shoal_protocol.profile.grid import fit_categorical, fit_numeric
from shoal_server.web.charts import HEIGHT, WIDTH, cell_labels, columns, distribution, segments

RANDOM = np.random.default_rng(3)
NUMERIC = fit_numeric(RANDOM.normal(10, 2, 3000))
CATEGORICAL = fit_categorical(["low", "high"])


def _counts(grid, values):
    cells = np.searchsorted(np.array(grid.coarse), grid.cells_of(values), side="right") - 1
    return np.bincount(cells, minlength=grid.size).astype(np.int64)


def test_bars_fill_the_width_and_stay_inside() -> None:
    chart = distribution(
        NUMERIC, _counts(NUMERIC, RANDOM.normal(10, 2, 3000)), _counts(NUMERIC, RANDOM.normal(16, 1, 50))
    )
    assert chart.bars[-1].x + chart.bars[-1].width == pytest.approx(WIDTH, abs=0.5)
    assert max(max(bar.live, bar.reference) for bar in chart.bars) <= HEIGHT
    assert (chart.reference_rows, chart.live_rows) == (3000, 50)


def test_missing_and_other_appear_only_when_there_are_any() -> None:
    quiet = distribution(CATEGORICAL, _counts(CATEGORICAL, ["low"] * 5), _counts(CATEGORICAL, ["high"] * 5))
    assert [bar.label for bar in quiet.bars] == list(CATEGORICAL.categories)
    loud = distribution(CATEGORICAL, _counts(CATEGORICAL, ["low"] * 4), _counts(CATEGORICAL, ["", "odd", "low", "low"]))
    assert [bar.label for bar in loud.bars] == ["missing", "other", *CATEGORICAL.categories]
    assert "live 25 %" in loud.bars[0].title


def test_nothing_counted_yet_is_a_flat_chart() -> None:
    nothing = np.zeros(NUMERIC.size, np.int64)
    chart = distribution(NUMERIC, nothing, nothing)
    assert {bar.live for bar in chart.bars} == {0.0}
    assert columns([]).columns == ()
    assert columns([(0.0, "none")]).columns[0].height == 0.0


@pytest.mark.parametrize("grid", [NUMERIC, CATEGORICAL])
def test_every_cell_has_a_label(grid) -> None:
    assert len(cell_labels(grid)) == grid.size


def test_labels_of_numbers_are_where_values_fall() -> None:
    labels = cell_labels(NUMERIC)
    low, high = (float(text) for text in labels[5].split(" to "))
    inside = (low + high) / 2
    assert np.argmax(_counts(NUMERIC, [inside])) == 5


def test_segments_are_shares_of_the_whole() -> None:
    found = segments({"healthy": 5, "failed": 1, "lost": 0, "working": 2}, ("healthy", "failed", "lost"), total=10)
    assert [(part.kind, part.x, part.width) for part in found] == [("healthy", 0.0, 50.0), ("failed", 50.0, 10.0)]
    assert segments({"healthy": 0}, ("healthy",), total=0) == []


def test_few_columns_stand_at_the_right() -> None:
    chart = columns([(1.0, "a"), (2.0, "b")])
    last = chart.columns[-1]
    assert last.x + last.width == pytest.approx(WIDTH, abs=0.5)
    assert last.height == pytest.approx(2 * chart.columns[0].height, abs=0.1)
