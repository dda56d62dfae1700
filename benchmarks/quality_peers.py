"""What `quality` asks of NannyML, run in its environment: the sets that it ships, and its estimates of any.

``ship FOLDER`` writes one ``.npz`` for each set: probabilities, predicted and true classes (``p``, ``said``, ``truth``)
of labelled rows (with a 0 behind the name) and of later ones. ``estimate FOLDER`` reads such files and prints figures.
"""

from __future__ import annotations

import json
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nannyml
import numpy as np
import pandas as pd
import statsmodels.api as sm
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

NAMES = {name: name for name in ("accuracy", "precision", "recall", "specificity", "f1")} | {"roc_auc": "auc"}


def save(path: Path, *parts: tuple[Any, Any, Any]) -> None:
    columns = {}
    for side, (p, said, truth) in zip(("0", ""), parts, strict=True):
        columns[f"p{side}"] = np.asarray(p, float)
        columns[f"said{side}"], columns[f"truth{side}"] = np.asarray(said, int), np.asarray(truth, int)
    np.savez(path, **columns)


def shipped(folder: Path) -> None:
    """Write NannyML's sets with two classes, and the one with three."""
    sets = nannyml.datasets
    usual = ("y_pred_proba", "y_pred", (2000, 5000, 50_000))
    census = ("predicted_probability", "prediction", (2000, 5000, 50_000))
    for name, load, truth, (p, said, sizes) in (
        ("car loans", sets.load_synthetic_car_loan_dataset, "repaid", usual),
        ("work from home", sets.load_synthetic_binary_classification_dataset, "work_home_actual", usual),
        ("houses in California", sets.load_modified_california_housing_dataset, "clf_target", (*usual[:2], (2000,))),
        ("census", sets.load_us_census_ma_employment_data, "employed", census),
    ):
        before, after = _loaded(load, truth)
        for size in sizes:
            for when, rows in (("next", after.iloc[:5000]), ("last", after.iloc[-5000:])):
                both = before.iloc[:size], rows
                path = folder / f"{name}, {when} rows, {size} labelled.npz"
                save(path, *((np.stack([1 - x[p], x[p]], axis=1), x[said], x[truth]) for x in both))
    before, after = _loaded(sets.load_synthetic_multiclass_classification_dataset, "y_true")
    names = sorted(before.y_true.unique())
    columns = [f"y_pred_proba_{name}" for name in names]
    for size in (3000, 60_000):
        both = before.iloc[:size], after.iloc[:10_000]
        codes = lambda x: pd.Categorical(x, names).codes  # noqa: E731
        path = folder / f"cards, 3 classes, {size} labelled.npz"
        save(path, *((x[columns].values, codes(x.y_pred), codes(x.y_true)) for x in both))


def _loaded(load: Callable[[], Any], truth: str) -> tuple[Any, Any]:
    before, after, labels = load()
    if truth not in after:
        by_key = "id" in labels and "id" in after
        after = after.merge(labels, on="id") if by_key else after.assign(**{truth: labels[truth].values})
    return before, after


def fitted(folder: Path) -> None:
    """Train models on sets that statsmodels ships, and write their answers."""
    fair, visits = sm.datasets.fair.load_pandas().data, sm.datasets.randhie.load_pandas().data
    doctor = visits.drop(columns="mdvis")
    for name, frame, truth, sizes in (
        ("affairs", fair.drop(columns="affairs"), fair.affairs > 0, (2000, 2500, 1866)),
        ("visits to doctors", doctor, visits.mdvis > 0, (6000, 6000, 8000)),
        ("visits to doctors, 3 classes", doctor, np.digitize(visits.mdvis, [1, 4]), (6000, 6000, 8000)),
    ):
        order = np.random.default_rng(1).permutation(len(frame))
        rows, y = frame.values[order], np.asarray(truth).astype(int)[order]
        fit, known, end = np.cumsum(sizes)
        line = make_pipeline(StandardScaler(), LogisticRegression(max_iter=500))
        for kind, model in (("linear", line), ("boosted", HistGradientBoostingClassifier(max_iter=60))):
            model.fit(rows[:fit], y[:fit])
            both = slice(fit, known), slice(known, end)
            path = folder / f"{name}, {kind}.npz"
            save(path, *((model.predict_proba(rows[at]), model.predict(rows[at]), y[at]) for at in both))


def estimated(folder: Path) -> dict[str, dict[str, float]]:
    """Return NannyML's figures of each file, and the share of its classes whose probabilities it corrected."""
    said = {}
    for path in sorted(folder.glob("*.npz")):
        one = np.load(path)
        classes = one["p"].shape[1]
        known, now = (
            pd.DataFrame({f"p{k}": one[f"p{side}"][:, k] for k in range(classes)} | {"said": one[f"said{side}"]})
            for side in ("0", "")
        )
        known["truth"] = one["truth0"]
        asked: dict[str, Any] = {"y_true": "truth", "y_pred": "said", "metrics": list(NAMES), "chunk_number": 1}
        asked["y_pred_proba"] = "p1" if classes == 2 else {k: f"p{k}" for k in range(classes)}
        asked["problem_type"] = "classification_binary" if classes == 2 else "classification_multiclass"
        cbpe = nannyml.CBPE(**asked).fit(known)
        found = cbpe.estimate(now).filter(period="analysis").to_df()
        said[path.stem] = {ours: float(found[(theirs, "value")].iloc[0]) for theirs, ours in NAMES.items()}
        several = [type(one).__name__ == "IsotonicCalibrator" for one in cbpe._calibrators.values()]
        said[path.stem]["corrected"] = float(cbpe.needs_calibration if classes == 2 else np.mean(several))
    return said


if __name__ == "__main__":
    warnings.filterwarnings("ignore")
    what, where = sys.argv[1], Path(sys.argv[2])
    if what == "ship":
        shipped(where)
        fitted(where)
    print(json.dumps(estimated(where) if what == "estimate" else {}))
