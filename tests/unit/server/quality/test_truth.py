"""Truth as the server tells it, against the same figures computed from raw rows."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from sklearn.metrics import confusion_matrix, mean_absolute_error, precision_score, recall_score

from shoal_protocol.profile.labels import CONFIDENCE_BINS, NO_CONFIDENCE, ErrorSums
from shoal_server.quality.truth import Cell, Truth, segments_json, truth_json

CLASSES = ("bad", "fair", "good")


def cells_of(device: str, true: np.ndarray, said: np.ndarray, confidence: np.ndarray) -> list[Cell]:
    bins = np.minimum((confidence * CONFIDENCE_BINS).astype(int), CONFIDENCE_BINS - 1)
    return [(device, int(t), int(s), int(b), 1) for t, s, b in zip(true, said, bins, strict=True)]


def sums_of(true: np.ndarray, said: np.ndarray) -> ErrorSums:
    off = said - true
    return ErrorSums(len(off), *map(float, (off.sum(), abs(off).sum(), off @ off, true.sum(), true @ true)))


def test_figures_are_those_of_the_raw_rows() -> None:
    random = np.random.default_rng(11)
    true = random.integers(0, 3, 3000)
    said = np.where(random.random(3000) < 0.8, true, random.integers(0, 3, 3000))
    confidence = random.uniform(0.34, 1, 3000)
    devices = random.integers(0, 7, 3000)
    cells = [
        cell
        for at in range(7)
        for cell in cells_of(f"d{at}", *(column[devices == at] for column in (true, said, confidence)))
    ]
    found = truth_json(Truth.of(cells), CLASSES)
    assert found["n"] == 3000
    assert found["accuracy"]["value"] == pytest.approx((true == said).mean(), abs=1e-6)
    assert [row[:3] for row in found["confusion"]["rows"]] == confusion_matrix(true, said).tolist()
    for name, score in (("precision", precision_score), ("recall", recall_score)):
        values = [one[name]["value"] for one in found["classes"]]
        assert values == pytest.approx(score(true, said, average=None).tolist(), abs=1e-6)
        assert {one[name]["devices"] for one in found["classes"]} == {7}
    edges = np.linspace(0, 1, CONFIDENCE_BINS + 1)
    raw = 0.0
    for low, high in pairwise(edges):
        inside = (confidence >= low) & (confidence < high)
        raw += abs((true == said)[inside].sum() - confidence[inside].sum()) / 3000
    assert found["ece"] == pytest.approx(raw, abs=0.5 / CONFIDENCE_BINS), "a bin stands for its middle"
    assert 0 < found["ece_by_chance"] < found["ece"]
    assert sum(row["n"] for row in found["reliability"]) == 3000


def test_a_class_that_some_devices_see_otherwise_has_a_wide_interval() -> None:
    alike = [("a", 1, 1, 3, 80), ("a", 1, 0, 3, 20), ("b", 1, 1, 3, 80), ("b", 1, 0, 3, 20)]
    differing = [("a", 1, 1, 3, 100), ("b", 1, 1, 3, 60), ("b", 1, 0, 3, 40)]
    wide, narrow = (
        next(one for one in truth_json(Truth.of(cells), CLASSES)["classes"] if one["name"] == "fair")["recall"]
        for cells in (differing, alike)
    )
    assert wide["value"] == narrow["value"] == 0.8
    assert wide["high"] - wide["low"] > 3 * (narrow["high"] - narrow["low"])


def test_models_without_confidences_have_no_calibration() -> None:
    found = truth_json(Truth.of([("a", 0, 0, NO_CONFIDENCE, 30), ("a", 0, 1, NO_CONFIDENCE, 10)]), CLASSES)
    assert not {"ece", "ece_by_chance", "reliability"} & found.keys()


def test_segments_of_a_regression_have_gaps_too() -> None:
    random = np.random.default_rng(12)
    segments: dict[str, Any] = {}
    rows: dict[str, list[np.ndarray]] = {}
    for name, spread in (("basel", 1.0), ("bern", 2.0), ("chur", 1.0)):
        pairs = [(true, true + random.normal(0, spread, 200)) for true in random.normal(20, 5, (5, 200))]
        rows[name] = [np.abs(said - true) for true, said in pairs]
        segments[name] = Truth.of((), ((f"{name}-{at}", sums_of(*pair)) for at, pair in enumerate(pairs)))
    found = segments_json(segments)
    groups = {one["name"]: one for one in found["groups"]}
    others = np.concatenate([*rows["basel"], *rows["chur"]])
    bern = np.concatenate(rows["bern"])
    assert groups["bern"]["mae"]["value"] == pytest.approx(mean_absolute_error(np.zeros(1000), bern), abs=1e-6)
    assert groups["bern"]["gap"]["value"] == pytest.approx(bern.mean() - others.mean(), abs=1e-6)
    assert groups["bern"]["gap"]["low"] > 0
    assert groups["bern"]["shown"]
    assert found["gap"] == pytest.approx(bern.mean() - min(np.concatenate(rows[at]).mean() for at in ("basel", "chur")))
    assert "accuracy" not in groups["bern"]
