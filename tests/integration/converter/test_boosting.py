"""Models of XGBoost and LightGBM convert exactly: every objective and setting, inside other estimators, from files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import joblib
import lightgbm as lgb
import numpy as np
import pytest
import xgboost as xgb
from sklearn.calibration import CalibratedClassifierCV
from sklearn.ensemble import HistGradientBoostingClassifier, StackingClassifier
from sklearn.model_selection import GridSearchCV
from sklearn.multioutput import MultiOutputRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from tests.integration.converter.boosting_sweep import FRAMEWORKS, Case, cases, data, line, outcome, wrong_on

from shoal_converter import Bundle, UnsupportedModelError, to_onnx
from shoal_converter.errors import EXIT_UNSUPPORTED, EXIT_USAGE

_AGAIN = "python -m tests.integration.converter.boosting_sweep > docs/reference/boosting.md"
_CASES = list(cases())
KNOWN, NEW = data(1), data(2)


@pytest.mark.parametrize("case", _CASES, ids=[f"{case.framework} {case.name}" for case in _CASES])
def test_a_model_answers_alike_or_is_refused_as_the_table_says(case: Case, request: pytest.FixtureRequest) -> None:
    found = outcome(case)
    assert not found.startswith("WRONG")
    written = (request.config.rootpath / "docs/reference/boosting.md").read_text(encoding="utf-8")
    assert line(case, found) in written.splitlines(), _AGAIN


def test_the_table_has_all_frameworks(request: pytest.FixtureRequest) -> None:
    written = (request.config.rootpath / "docs/reference/boosting.md").read_text(encoding="utf-8")
    assert all(f"| {framework} |" in written for framework in FRAMEWORKS)


def _inside() -> dict[str, Any]:
    def classifier(kind: str) -> Any:
        return (
            xgb.XGBClassifier(n_estimators=6, max_depth=3)
            if kind == "xgboost"
            else lgb.LGBMClassifier(n_estimators=6, verbose=-1)
        )

    other = HistGradientBoostingClassifier(max_iter=3)
    found: dict[str, Any] = {}
    for kind in ("xgboost", "lightgbm"):
        found[f"{kind} after a scaler"] = make_pipeline(StandardScaler(), classifier(kind))
        found[f"{kind} calibrated"] = CalibratedClassifierCV(classifier(kind), cv=2)
        found[f"{kind} calibrated by steps"] = CalibratedClassifierCV(classifier(kind), method="isotonic", cv=2)
        found[f"{kind} stacked"] = StackingClassifier([("a", classifier(kind)), ("b", other)], cv=2)
        found[f"{kind} searched"] = GridSearchCV(classifier(kind), {"max_depth": [2, 3]}, cv=2)
    return found


@pytest.mark.parametrize("name", _inside())
@pytest.mark.filterwarnings("ignore:X does not have valid feature names")
def test_inside_other_estimators(name: str) -> None:
    model = _inside()[name].fit(KNOWN.x, KNOWN.two)
    assert wrong_on(model, KNOWN.x, NEW.x) is None


@pytest.mark.filterwarnings("ignore:X does not have valid feature names")
def test_one_regressor_for_each_value() -> None:
    values = np.c_[KNOWN.value, KNOWN.share]
    for inner in (xgb.XGBRegressor(n_estimators=5), lgb.LGBMRegressor(n_estimators=5, verbose=-1)):
        assert wrong_on(MultiOutputRegressor(inner).fit(KNOWN.x, values), KNOWN.x, NEW.x) is None


def test_a_conversion_leaves_the_registry_of_skl2onnx_as_it_was() -> None:
    from skl2onnx._supported_operators import sklearn_operator_name_map

    before = dict(sklearn_operator_name_map)
    to_onnx(xgb.XGBClassifier(n_estimators=2).fit(KNOWN.x, KNOWN.two), KNOWN.x)
    assert dict(sklearn_operator_name_map) == before


def test_values_exactly_at_thresholds_go_the_same_way() -> None:
    model = lgb.LGBMRegressor(n_estimators=20, verbose=-1).fit(KNOWN.x, KNOWN.value)
    text = model.booster_.model_to_string()
    found = [line.partition("=")[2].split() for line in text.splitlines() if line.startswith("threshold=")]
    thresholds = np.unique(np.array([float(value) for values in found for value in values]))
    at = np.repeat(thresholds[:, np.newaxis], 5, axis=1)
    rows = np.concatenate([np.nextafter(at, -np.inf), at, np.nextafter(at, np.inf), at.astype(np.float32)])
    assert wrong_on(model, KNOWN.x, rows) is None


def test_xgboost_sums_in_its_own_order_and_precision() -> None:
    model = xgb.XGBRegressor(n_estimators=60, base_score=3e4).fit(KNOWN.x, KNOWN.value * 1e3)
    assert wrong_on(model, KNOWN.x, NEW.x) is None


def test_a_callable_objective_of_a_classifier_is_refused_with_a_way_round() -> None:
    def loss(truth: Any, score: Any) -> tuple[Any, Any]:
        share = 1 / (1 + np.exp(-score))
        return share - truth, share * (1 - share)

    model = lgb.LGBMClassifier(objective=loss, n_estimators=3, verbose=-1).fit(KNOWN.x, KNOWN.two)
    with pytest.raises(UnsupportedModelError, match="custom") as refusal:
        to_onnx(model, KNOWN.x)
    assert "multiclass" in refusal.value.way_round


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    """The mixed data frame with its target, as a file."""
    path = tmp_path / "rows.parquet"
    KNOWN.frame.assign(y=KNOWN.two).to_parquet(path)
    return path


@pytest.mark.parametrize("suffix", [".ubj", ".json", ".txt"])
def test_a_file_of_the_framework_is_packed_without_trust(
    shoal_convert: Any, suffix: str, tmp_path: Path, rows: Path
) -> None:
    path = tmp_path / f"model{suffix}"
    if suffix == ".txt":
        lgb.LGBMClassifier(n_estimators=5, verbose=-1).fit(KNOWN.frame, KNOWN.two).booster_.save_model(path)
    else:
        xgb.XGBClassifier(n_estimators=5, enable_categorical=True).fit(KNOWN.frame, KNOWN.two).save_model(path)
    arguments = ["pack", path, "--sample", rows, "--target", "y", "-t", "name:1.0.0", "--json"]
    code, out, told = shoal_convert(*arguments, "-o", tmp_path / "bundle.tar")
    assert code == 0, told
    assert json.loads(out)["parity"]["passed"] is True


@pytest.mark.parametrize("form", ["pickle", "file"])
def test_a_ranker_with_categories_is_packed_from_a_csv_and_judged_by_no_values(
    shoal_convert: Any, form: str, tmp_path: Path
) -> None:
    """A CSV can't say that a column is one of categories; LightGBM's predict() wants it said."""
    model = lgb.LGBMRanker(n_estimators=5, verbose=-1).fit(KNOWN.frame, KNOWN.two, group=[len(KNOWN.two)])
    sample, path = tmp_path / "rows.csv", tmp_path / ("model.joblib" if form == "pickle" else "model.txt")
    KNOWN.frame.assign(y=KNOWN.two).to_csv(sample, index=False)
    if form == "pickle":
        joblib.dump(model, path)
    else:
        model.booster_.save_model(path)
    arguments = ["pack", path, "--trust", "--sample", sample, "--target", "y", "-t", "name:1.0.0"]
    code, _, told = shoal_convert(*arguments, "-o", tmp_path / "bundle.tar")
    assert code == 0, told
    bundle = Bundle.open(tmp_path / "bundle.tar")
    assert bundle.info.task == "other"
    reference = json.loads(bundle.files["reference.json"])
    assert (reference["metrics"], reference["metric"]) == ({}, "output_agreement")


def test_a_broken_file_is_told_from_a_missing_one(shoal_convert: Any, tmp_path: Path, rows: Path) -> None:
    broken = tmp_path / "broken.ubj"
    broken.write_bytes(b"no model")
    for path, word in ((broken, "can't read"), (tmp_path / "absent.ubj", "no model file")):
        code, _, told = shoal_convert("pack", path, "--sample", rows, "-t", "name:1.0.0")
        assert code == EXIT_USAGE
        assert word in told


def test_linear_trees_from_a_file_end_with_the_code_for_unsupported(shoal_convert: Any, tmp_path: Path) -> None:
    sample, path = tmp_path / "x.npy", tmp_path / "linear.txt"
    np.save(sample, KNOWN.x)
    lgb.LGBMRegressor(n_estimators=3, linear_tree=True, verbose=-1).fit(KNOWN.x, KNOWN.value).booster_.save_model(path)
    code, _, told = shoal_convert("pack", path, "--sample", sample, "-t", "name:1.0.0")
    assert code == EXIT_UNSUPPORTED
    assert "linear_tree=False" in told
