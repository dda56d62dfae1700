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


def test_neither_many_classes_nor_many_categories_crowd_out_the_rest() -> None:
    rng = np.random.default_rng(2)
    label = (np.arange(2000) % 30).astype(np.int64)
    city = np.array([[f"c{at % 25}"] for at in range(2000)], dtype=object)
    x = rng.normal(size=(2000, 1)).astype(np.float32)
    x[1234, 0] = np.nan
    scores = rng.random((2000, 30)).astype(np.float32)
    rows = golden_rows({"city": city, "x": x}, {"label": label, "scores": scores})
    assert set(label[rows].tolist()) == set(range(30))
    assert 1234 in rows
    assert len(rows) == GOLDEN_ROWS


def test_rows_that_are_large_are_few() -> None:
    images = np.zeros((100, 3, 256, 256), dtype=np.float32)
    assert len(golden_rows({"image": images}, {"value": np.arange(100, dtype=np.float32).reshape(-1, 1)})) == 4


def test_a_regressors_outputs_are_spread_over_their_quantiles() -> None:
    value = np.random.default_rng(3).lognormal(size=(1000, 1)).astype(np.float32)
    rows = golden_rows({"x": np.zeros((1000, 1), np.float32)}, {"value": value})
    ranks = np.argsort(np.argsort(value[:, 0]))[rows]
    assert {0, 999} <= set(ranks.tolist())
    assert np.diff(np.sort(ranks)).max() < 160
