# ruff: noqa: E402 - imports follow the path that they need
"""Figures without labels, from counts: held against NannyML's row-level estimates and against the truth.

Sets that NannyML ships (among them a census of the United States and houses in California), real ones of statsmodels
and scikit-learn, and made ones with shifted inputs. For each a model's answers on labelled rows calibrate, and those on
later rows are estimated: accuracy, precision, recall, specificity, F1 and the area under the ROC curve. NannyML runs in
an environment of its own, which the benchmark makes and without which there is nothing to compare with.

NannyML takes a model's own probabilities as they are where a random tenth of the labelled rows, ten times, does not
show that correcting them helps; the table says so ("as claimed"). ``--full`` repeats the small sets' splits.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
# Behind everything else: this folder has files named like modules of the standard library.
sys.path[:] = [entry for entry in sys.path if Path(entry).resolve() != HERE] + [str(HERE)]

import numpy as np
from sklearn.datasets import load_breast_cancer, load_digits, make_classification
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import confusion_matrix, roc_auc_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from frame import options
from peers import PeerMissingError, ask
from shoal_server.statistics.confusion import overall
from shoal_server.statistics.expected_confusion import ClassEstimates, estimate_auc, estimate_binary, estimate_classes
from shoal_server.statistics.performance import Calibration, ScoreCalibration

BINS = 64
SPLITS = 30
"""Of the small sets: one split says more of chance than of an estimate."""
FIGURES = ("accuracy", "precision", "recall", "specificity", "f1", "auc")
LARGE = 2000
"""Labelled rows from which on the target holds."""
PEER = HERE / "quality_peers.py"


@dataclass(frozen=True, eq=False)
class Case:
    """Answers of a model: probabilities, predicted and true classes, on labelled rows (0) and on those of now."""

    p0: np.ndarray
    said0: np.ndarray
    truth0: np.ndarray
    p: np.ndarray
    said: np.ndarray
    truth: np.ndarray

    def write(self, path: Path) -> None:
        np.savez(path, **vars(self))


def fitted(model: Any, rows: np.ndarray, truth: np.ndarray, *, shift: float = 0.0, seed: int = 1) -> Case:
    """Train on a third, calibrate on a third, estimate the last; a shift prefers large values of its column 0."""
    order = np.random.default_rng(seed).permutation(len(truth))
    fit, calibrate, rest = np.split(order, [len(order) // 3, 2 * len(order) // 3])
    column = rows[rest, 0]
    chance = 1 / (1 + np.exp(-3 * shift * (column - np.median(column)) / max(column.std(), 1e-9)))
    now = rest if not shift else rest[np.random.default_rng(2).random(len(rest)) < chance]
    model.fit(rows[fit], truth[fit])
    p0, p = model.predict_proba(rows[calibrate]), model.predict_proba(rows[now])
    return Case(p0, p0.argmax(axis=1), truth[calibrate], p, p.argmax(axis=1), truth[now])


def linear() -> Any:
    return make_pipeline(StandardScaler(), LogisticRegression(max_iter=500))


def made() -> Iterator[tuple[str, Case]]:
    """Yield made sets and scikit-learn's small real ones."""
    for informative, classes, shift in ((4, 2, 0.0), (4, 2, 0.8), (8, 2, 0.5), (8, 4, 0.0)):
        rows, truth = make_classification(
            30_000, 10, n_informative=informative, n_classes=classes, class_sep=0.6, flip_y=0.1,
            random_state=informative,
        )  # fmt: skip
        forest = RandomForestClassifier(50, min_samples_leaf=5, random_state=0)
        for kind, model in (("linear", linear()), ("forest", forest)):
            name = f"made, {informative} informative, {classes} classes, shift {shift:g}, {kind}"
            yield name, fitted(model, rows, truth, shift=shift)
    yield "breast cancer", fitted(linear(), *load_breast_cancer(return_X_y=True))
    yield "digits, 10 classes", fitted(linear(), *load_digits(return_X_y=True))


def estimated(case: Case) -> tuple[dict[str, float], float]:
    """Return our figures from counts, and the seconds that they took."""
    classes = case.p.shape[1]
    bins0, bins = bins_of(case.p0.max(axis=1)), bins_of(case.p.max(axis=1))
    answered, correct = np.zeros((classes, BINS)), np.zeros((classes, BINS))
    np.add.at(answered, (case.said0, bins0), 1)
    np.add.at(correct, (case.said0, bins0), case.said0 == case.truth0)
    named = np.bincount(case.said, minlength=classes)
    start = time.perf_counter()
    if classes == 2:
        before, scores = bins_of(case.p0[:, 1]), counted(bins_of(case.p[:, 1]))
        by_score = ScoreCalibration(counted(before), counted(before[case.truth0 == 1]))
        calibration = Calibration(answered, correct, by_score)
        found: ClassEstimates = estimate_binary(calibration, scores, named)
        auc = estimate_auc(calibration, scores).value
    else:
        mistaken = confusion_matrix(case.truth0, case.said0, labels=range(classes))
        found = estimate_classes(Calibration(answered, correct), mistaken, counted(bins), named)
        auc = float("nan")
    seconds = time.perf_counter() - start
    return {name: getattr(found, name).value for name in FIGURES[:-1]} | {"auc": auc}, seconds


def real(case: Case) -> dict[str, float]:
    """Return the true figures."""
    table = confusion_matrix(case.truth, case.said, labels=range(case.p.shape[1]))
    auc = roc_auc_score(case.truth, case.p[:, 1]) if len(table) == 2 else float("nan")
    return {"accuracy": float((case.said == case.truth).mean()), **overall(table), "auc": auc}


def bins_of(values: np.ndarray) -> np.ndarray:
    """Return the bin of each value of [0, 1]."""
    return np.minimum((values * BINS).astype(int), BINS - 1)


def counted(bins: np.ndarray) -> np.ndarray:
    return np.bincount(bins, minlength=BINS).astype(float)


def splits() -> Iterator[tuple[str, Case]]:
    """Split the small sets again and again."""
    for seed in range(SPLITS):
        yield f"breast cancer #{seed}", fitted(linear(), *load_breast_cancer(return_X_y=True), seed=100 + seed)
        yield f"digits #{seed}", fitted(linear(), *load_digits(return_X_y=True), seed=100 + seed)


def against_nannyml(cases: dict[str, Case], *, shipped: bool = False) -> dict[str, dict[str, float]]:
    """Return NannyML's figures; sets that it and statsmodels ship are put to the cases first."""
    with tempfile.TemporaryDirectory() as folder:
        if shipped:
            ask("nannyml", PEER.read_text(), "ship", folder)
            for path in sorted(Path(folder).glob("*.npz")):
                cases[path.stem] = Case(**np.load(path))
        for name, case in cases.items():
            case.write(Path(folder) / f"{name}.npz")
        found: dict[str, dict[str, float]] = ask("nannyml", PEER.read_text(), "estimate", folder)
    return found


def report(cases: dict[str, Case], theirs: dict[str, dict[str, float]]) -> None:
    """Print how far ours lie from NannyML's, and both from the true accuracy."""
    print(
        f"{'ours - NannyML':60} {'rows':>6} " + " ".join(f"{name[:8]:>8}" for name in FIGURES) + "   accuracy - truth"
    )
    worst = 0.0
    for name, case in cases.items():
        (ours, seconds), truth, other = estimated(case), real(case), theirs[name]
        apart = " ".join(f"{ours[figure] - other[figure]:+8.4f}" for figure in FIGURES)
        errors = " ".join(f"{side['accuracy'] - truth['accuracy']:+.4f}" for side in (ours, other))
        claimed = "" if other["corrected"] else "  as claimed"
        print(f"{name:60} {len(case.said0):6} {apart}   {errors} {1000 * seconds:4.0f} ms{claimed}")
        if len(case.said0) >= LARGE and case.p.shape[1] == 2 and other["corrected"]:
            worst = max(worst, abs(ours["accuracy"] - other["accuracy"]))
    print(f"two classes, {LARGE:,} labelled rows or more, where NannyML corrects: accuracies at most {worst:.4f} apart")


def report_splits(cases: dict[str, Case], theirs: dict[str, dict[str, float]]) -> None:
    """Print mean and root mean square of estimate less truth."""
    for part in sorted({name.partition(" #")[0] for name in cases}):
        of = [name for name in cases if name.startswith(part)]
        truth = np.array([real(cases[name])["accuracy"] for name in of])
        ours = np.array([estimated(cases[name])[0]["accuracy"] for name in of]) - truth
        other = np.array([theirs[name]["accuracy"] for name in of]) - truth
        told = [f"{error.mean():+.4f}, {np.sqrt((error**2).mean()):.4f}" for error in (ours, other)]
        print(f"{part}, {len(of)} splits, mean and RMS of the error: ours {told[0]}; NannyML {told[1]}")


def main() -> None:
    cases = dict(made())
    try:
        theirs = against_nannyml(cases, shipped=True)
        report(cases, theirs)
        if options().full:
            small = dict(splits())
            report_splits(small, against_nannyml(small))
    except PeerMissingError as error:
        sys.exit(f"NannyML was not asked, and there is nothing to compare with: {error}")
    print(json.dumps({name: {"ours": estimated(case)[0], "nannyml": theirs[name]} for name, case in cases.items()}))


if __name__ == "__main__":
    main()
