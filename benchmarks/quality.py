# ruff: noqa: E402 - imports follow the path that they need
"""Accuracy without labels, from counts: held against NannyML's row-level estimate and against the truth.

Data sets of scikit-learn and made ones with shifted inputs; for each a model is fitted on one part, calibrated on a
second and estimated on a third. NannyML runs in an environment of its own, which the benchmark makes; without it, a
row-level estimate by isotonic calibration stands in for it, and the table says so.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
# Behind everything else: this folder has files named like modules of the standard library.
sys.path[:] = [entry for entry in sys.path if Path(entry).resolve() != HERE] + [str(HERE)]

import numpy as np
from sklearn.datasets import load_breast_cancer, load_digits, make_classification
from sklearn.ensemble import RandomForestClassifier
from sklearn.isotonic import IsotonicRegression
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from peers import PeerMissingError, ask
from shoal_server.statistics.performance import Calibration, estimate_accuracy, estimate_binary

BINS = 64
REPEATS = 40
SPLITS = 30
"""Of the small sets: one split says more of chance than of an estimate."""
_ASK = """
import json, sys, warnings
warnings.filterwarnings("ignore")
import numpy as np, pandas as pd, nannyml, time
given = json.load(sys.stdin)
said = {}
for name, one in given.items():
    reference, current = (pd.DataFrame(one[part]) for part in ("reference", "current"))
    current = current.drop(columns="truth")
    known = dict(y_true="truth", y_pred="said", metrics=["accuracy"], chunk_number=1)
    if one["classes"] == 2:
        cbpe = nannyml.CBPE(y_pred_proba="p1", problem_type="classification_binary", **known)
    else:
        columns = {k: f"p{k}" for k in range(one["classes"])}
        cbpe = nannyml.CBPE(y_pred_proba=columns, problem_type="classification_multiclass", **known)
    cbpe.fit(reference)
    start = time.perf_counter()
    found = cbpe.estimate(current).filter(period="analysis").to_df()
    said[name] = [float(found[("accuracy", "value")].iloc[0]), time.perf_counter() - start]
json.dump(said, sys.stdout)
"""


def worlds() -> Iterator[tuple[str, Any, np.ndarray, np.ndarray, float]]:
    """Yield name, model, rows, truth, and how strongly the third part's inputs are shifted."""
    cancer, digits = load_breast_cancer(), load_digits()
    linear = lambda: make_pipeline(StandardScaler(), LogisticRegression(max_iter=500))  # noqa: E731
    forest = lambda: RandomForestClassifier(100, min_samples_leaf=5, random_state=0)  # noqa: E731
    yield "breast cancer", linear(), cancer.data, cancer.target, 0.0
    yield "digits 10 classes", linear(), digits.data, digits.target, 0.0
    for informative, shift in ((4, 0.0), (4, 0.8), (8, 0.5)):
        rows, truth = make_classification(
            30_000, 10, n_informative=informative, class_sep=0.6, flip_y=0.1, random_state=informative
        )
        for kind, model in (("linear", linear()), ("forest", forest())):
            yield f"made, {informative} informative, shift {shift:g}, {kind}", model, rows, truth, shift


def parts(rows: np.ndarray, truth: np.ndarray, shift: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the rows' places for training, calibration and estimation; a shift prefers large values of column 0."""
    order = np.random.default_rng(1).permutation(len(truth))
    fit, calibrate, rest = np.split(order, [len(order) // 3, 2 * len(order) // 3])
    column = rows[rest, 0]
    chance = 1 / (1 + np.exp(-3 * shift * (column - np.median(column)) / max(column.std(), 1e-9)))
    kept = rest if not shift else rest[np.random.default_rng(2).random(len(rest)) < chance]
    return fit, calibrate, kept


def counted(said: np.ndarray, bins: np.ndarray, truth: np.ndarray, classes: int) -> Calibration:
    """Count rows as a bundle does."""
    answered, correct = np.zeros((classes, BINS)), np.zeros((classes, BINS))
    np.add.at(answered, (said, bins), 1)
    np.add.at(correct, (said, bins), said == truth)
    return Calibration(answered, correct)


def bins_of(values: np.ndarray) -> np.ndarray:
    """Return the bin of each value of [0, 1]."""
    return np.minimum((values * BINS).astype(int), BINS - 1)


def estimated(calibration: Calibration, p: np.ndarray, said: np.ndarray) -> tuple[float, float]:
    """Return our estimate, and the seconds that it took once the counts are there."""
    confidences = np.bincount(bins_of(p.max(axis=1)), minlength=BINS)
    classes = np.bincount(said, minlength=p.shape[1])
    scores = np.bincount(bins_of(p[:, 1]), minlength=BINS)
    start = time.perf_counter()
    for _ in range(REPEATS):
        value = (
            estimate_binary(calibration, scores).accuracy
            if p.shape[1] == 2
            else estimate_accuracy(calibration, confidences, classes)
        )
    return value.value, (time.perf_counter() - start) / REPEATS


def by_rows(p0: np.ndarray, truth0: np.ndarray, p: np.ndarray) -> float:
    """Return the row-level estimate: the mean calibrated probability of what is said, isotonic, one class at a time."""
    calibrated = np.stack(
        [
            IsotonicRegression(out_of_bounds="clip", y_min=0, y_max=1).fit(p0[:, k], truth0 == k).predict(p[:, k])
            for k in range(p.shape[1])
        ],
        axis=1,
    )
    calibrated /= np.maximum(calibrated.sum(axis=1, keepdims=True), 1e-12)
    return float(calibrated[np.arange(len(p)), p.argmax(axis=1)].mean())


def splits() -> None:
    """Split the small sets again and again, and print how far from the truth either side is on average."""
    truths: dict[str, float] = {}
    ours: dict[str, float] = {}
    asked: dict[str, Any] = {}
    for name, model, rows, truth, _shift in list(worlds())[:2]:
        for seed in range(SPLITS):
            order = np.random.default_rng(100 + seed).permutation(len(truth))
            fit, calibrate, now = np.split(order, [len(order) // 3, 2 * len(order) // 3])
            model.fit(rows[fit], truth[fit])
            p0, p = model.predict_proba(rows[calibrate]), model.predict_proba(rows[now])
            said0, said = p0.argmax(axis=1), p.argmax(axis=1)
            key = f"{name} #{seed}"
            calibration = counted(said0, bins_of(p0.max(axis=1)), truth[calibrate], p.shape[1])
            truths[key], ours[key] = float((said == truth[now]).mean()), estimated(calibration, p, said)[0]
            asked[key] = {
                "classes": p.shape[1],
                "reference": _frame(p0, said0, truth[calibrate]),
                "current": _frame(p, said, truth[now]),
                "by_rows": by_rows(p0, truth[calibrate], p),
            }
    theirs = {key: value for key, (value, _) in _nannyml(asked).items()}
    sides = {"ours": ours, "by_rows": {key: one["by_rows"] for key, one in asked.items()}, "nannyml": theirs}
    print(f"\nover {SPLITS} splits: mean and root mean square of estimate less truth; mean distance from ours")
    for name in ("breast cancer", "digits 10 classes"):
        keys = [key for key in truths if key.startswith(name)]
        for side, said_by in sides.items():
            if all(key in said_by for key in keys):
                error = np.array([said_by[key] - truths[key] for key in keys])
                apart = np.mean([abs(said_by[key] - ours[key]) for key in keys])
                print(f"{name:24} {side:8} {error.mean():+.4f} {np.sqrt((error**2).mean()):.4f} {apart:.4f}")


def main() -> None:
    """Print the table and write it beside the other results."""
    results: dict[str, dict[str, float]] = {}
    asked: dict[str, Any] = {}
    for name, model, rows, truth, shift in worlds():
        fit, calibrate, now = parts(rows, truth, shift)
        model.fit(rows[fit], truth[fit])
        p0, p = model.predict_proba(rows[calibrate]), model.predict_proba(rows[now])
        said0, said = p0.argmax(axis=1), p.argmax(axis=1)
        calibration = counted(said0, bins_of(p0.max(axis=1)), truth[calibrate], p.shape[1])
        value, seconds = estimated(calibration, p, said)
        results[name] = {
            "truth": float((said == truth[now]).mean()),
            "ours": value,
            "seconds": seconds,
            "by_rows": by_rows(p0, truth[calibrate], p),
            "rows": len(now),
        }
        asked[name] = {
            "classes": p.shape[1],
            "reference": _frame(p0, said0, truth[calibrate]),
            "current": _frame(p, said, truth[now]),
        }
    for name, (value, seconds) in _nannyml(asked).items():
        results[name] |= {"nannyml": value, "nannyml_seconds": seconds}
    _print(results)


def _frame(p: np.ndarray, said: np.ndarray, truth: np.ndarray) -> dict[str, list[float]]:
    columns = {f"p{k}": p[:, k].tolist() for k in range(p.shape[1])}
    return {**columns, "said": said.tolist(), "truth": truth.tolist()}


def _nannyml(asked: dict[str, Any]) -> dict[str, list[float]]:
    try:
        found: dict[str, list[float]] = ask("nannyml", _ASK, given=asked)
    except PeerMissingError as error:
        print(f"NannyML was not asked: {error}; its column is left out")
        return {}
    return found


def _print(results: dict[str, dict[str, float]]) -> None:
    other = "nannyml" if all("nannyml" in one for one in results.values()) else "by_rows"
    print(f"{'data':44} {'rows':>6} {'truth':>7} {'ours':>7} {other:>8} {'apart':>7} {'ms':>6}")
    for name, one in results.items():
        apart = one["ours"] - one[other]
        print(
            f"{name:44} {one['rows']:6.0f} {one['truth']:7.4f} {one['ours']:7.4f} {one[other]:8.4f} {apart:+7.4f}"
            f" {1000 * one['seconds']:6.2f}"
        )
    print(json.dumps(results))


if __name__ == "__main__":
    main()
    splits()
