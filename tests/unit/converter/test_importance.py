"""Permutation importance tells which features matter."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

from shoal_converter.domain.importance import permutation_importance

X = np.random.default_rng(0).normal(size=(400, 3)).astype(np.float32)
FEATURES = [("strong", "x", 0), ("weak", "x", 1), ("idle", "x", 2)]


def regress(tensors: Mapping[str, Any]) -> dict[str, Any]:
    x = tensors["x"]
    return {"value": (3 * x[:, :1] + 0.5 * x[:, 1:2]).astype(np.float32)}


def classify(tensors: Mapping[str, Any]) -> dict[str, Any]:
    return {"label": (regress(tensors)["value"][:, 0] > 0).astype(np.int64)}


@pytest.mark.parametrize(
    ("predict", "truth", "measure"),
    [
        (regress, X @ np.array([3, 0.5, 0]), "r2"),
        (regress, None, "output_agreement"),
        (classify, X @ np.array([3, 0.5, 0]) > 0, "accuracy"),
        (classify, None, "label_agreement"),
    ],
)
def test_the_order_is_right_whatever_the_measure(predict: Any, truth: Any, measure: str) -> None:
    found, name = permutation_importance(predict, {"x": X}, FEATURES, truth=truth)
    assert name == measure
    assert found["strong"] > found["weak"] > 0
    assert found["idle"] == 0.0


def test_the_rows_are_not_changed() -> None:
    before = X.copy()
    permutation_importance(regress, {"x": X}, FEATURES, truth=None)
    assert np.array_equal(before, X)
