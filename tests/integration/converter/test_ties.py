"""Rows that are equally far from a new one: the neighbours that scikit-learn takes are those that the graph takes."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnxruntime as ort
import pytest
from sklearn import neighbors

from shoal_converter import to_onnx

RNG = np.random.default_rng(3)
GRID = RNG.integers(0, 5, (400, 3)) / 10.0
WHOLE = RNG.integers(0, 4, (700, 4)).astype(float)


def found_by(raw: bytes, rows: np.ndarray) -> list[Any]:
    session = ort.InferenceSession(raw)
    (given,) = session.get_inputs()
    dtype = np.float64 if "double" in given.type else np.float32
    return list(session.run(None, {given.name: rows.astype(dtype)}))


def assert_alike(model: Any, rows: np.ndarray, unseen: np.ndarray) -> None:
    target = RNG.integers(0, 3, len(rows))
    model.fit(rows, target)
    label, probabilities = found_by(to_onnx(model, rows[:150]), unseen)
    assert label.tolist() == model.predict(unseen).tolist()
    np.testing.assert_allclose(probabilities, model.predict_proba(unseen), atol=1e-6)


@pytest.mark.parametrize("count", [1, 2, 5, 8])
@pytest.mark.parametrize("algorithm", ["kd_tree", "ball_tree", "brute"])
def test_ties_fall_as_in_the_source(algorithm: str, count: int) -> None:
    model = neighbors.KNeighborsClassifier(count, algorithm=algorithm, leaf_size=7)
    assert_alike(model, GRID[:200], GRID[200:])


@pytest.mark.parametrize("power", [1, np.inf])
@pytest.mark.parametrize("algorithm", ["kd_tree", "ball_tree"])
def test_so_they_do_by_other_distances(algorithm: str, power: float) -> None:
    model = neighbors.KNeighborsClassifier(4, algorithm=algorithm, p=power, leaf_size=9)
    assert_alike(model, WHOLE[:200], WHOLE[500:])


def test_by_brute_force_each_thread_has_a_heap_of_its_own() -> None:
    assert_alike(neighbors.KNeighborsClassifier(5, algorithm="brute"), WHOLE[:600], WHOLE[600:])


def test_a_call_without_a_tie_and_one_of_a_single_row_run_too() -> None:
    model = neighbors.KNeighborsRegressor(3).fit(GRID[:200], GRID[:200, 0])
    raw = to_onnx(model, GRID[:100])
    for rows in (np.array([[0.123, 0.4567, 0.0101]]), GRID[200:201]):
        np.testing.assert_allclose(found_by(raw, rows)[0].ravel(), model.predict(rows), rtol=1e-6)
