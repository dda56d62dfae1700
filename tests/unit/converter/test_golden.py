"""Which rows a device computes before it lets a model answer."""

from __future__ import annotations

import numpy as np

from shoal_converter.domain.golden import GOLDEN_ROWS, golden_rows


def test_every_class_missing_values_and_extremes_are_among_them() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(500, 2)).astype(np.float32)
    x[123, 0] = np.nan
    x[77, 1] = 50.0
    label = np.zeros(500, dtype=np.int64)
    label[400] = 7
    probabilities = rng.random((500, 2)).astype(np.float32)
    rows = golden_rows({"x": x}, {"label": label, "probabilities": probabilities})
    assert {123, 77, 400} <= set(rows.tolist())
    assert len(rows) == GOLDEN_ROWS
    assert (np.diff(rows) > 0).all()


def test_every_category_is_among_them() -> None:
    city = np.array([["bern"]] * 99 + [["zug"]], dtype=object)
    assert 99 in golden_rows({"city": city}, {"value": np.zeros((100, 1), np.float32)})


def test_a_small_sample_is_taken_whole() -> None:
    rows = golden_rows({"x": np.zeros((3, 1), np.float32)}, {"value": np.zeros((3, 1), np.float32)})
    assert rows.tolist() == [0, 1, 2]


def test_the_choice_is_the_same_every_time() -> None:
    x = np.random.default_rng(1).normal(size=(300, 3)).astype(np.float32)
    outputs = {"label": (x[:, 0] > 0).astype(np.int64)}
    assert np.array_equal(golden_rows({"x": x}, outputs), golden_rows({"x": x.copy()}, outputs))
