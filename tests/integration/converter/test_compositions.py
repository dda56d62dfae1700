"""Models around models, steps in the middle of a pipeline, and shapes of numbers: exact on rows that were not seen."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import onnxruntime as ort
import pandas as pd
import pytest
from scipy import special
from sklearn.base import is_classifier
from sklearn.calibration import CalibratedClassifierCV
from sklearn.cluster import KMeans
from sklearn.compose import TransformedTargetRegressor, make_column_transformer
from sklearn.datasets import load_iris
from sklearn.decomposition import PCA
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis, QuadraticDiscriminantAnalysis
from sklearn.ensemble import (
    AdaBoostClassifier,
    BaggingClassifier,
    GradientBoostingClassifier,
    GradientBoostingRegressor,
    HistGradientBoostingClassifier,
    RandomForestClassifier,
    RandomForestRegressor,
    StackingClassifier,
    StackingRegressor,
    VotingClassifier,
)
from sklearn.feature_selection import SelectFromModel
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.multiclass import OneVsRestClassifier
from sklearn.naive_bayes import GaussianNB
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import Pipeline, make_pipeline, make_union
from sklearn.preprocessing import (
    FunctionTransformer,
    Normalizer,
    OneHotEncoder,
    PolynomialFeatures,
    PowerTransformer,
    QuantileTransformer,
    StandardScaler,
)
from sklearn.svm import SVC, LinearSVC, NuSVC

from shoal_converter import to_onnx

SEEN = 100


@cache
def data() -> tuple[Any, Any, Any, Any]:
    """Rows, a frame of them with a column of texts, three classes, and two."""
    rng = np.random.default_rng(7)
    rows, species = load_iris(return_X_y=True)
    order = rng.permutation(len(rows))
    rows, species = rows[order] + rng.normal(0, 0.01, rows.shape), species[order]
    frame = pd.DataFrame(rows, columns=["sl", "sw", "pl", "pw"])
    frame["colour"] = np.array(["red", "green", "blue"])[(species + rng.integers(0, 2, len(rows))) % 3]
    return rows, frame, species, (species > 0).astype(int)


def columns() -> Any:
    numbers = (StandardScaler(), ["sl", "sw", "pl", "pw"])
    return make_column_transformer(numbers, (OneHotEncoder(handle_unknown="ignore"), ["colour"]))


def straight() -> Any:
    return LogisticRegression(max_iter=1000)


def forest() -> Any:
    return RandomForestClassifier(10, random_state=0)


def calibrated(model: Any, method: str) -> Any:
    return CalibratedClassifierCV(model, method=method, cv=3)


ON_ROWS: dict[str, Callable[[], Any]] = {
    "isotonic around a linear model": lambda: calibrated(straight(), "isotonic"),
    "isotonic around scores": lambda: calibrated(LinearSVC(), "isotonic"),
    "isotonic around a forest": lambda: calibrated(forest(), "isotonic"),
    "isotonic around probabilities": lambda: calibrated(GaussianNB(), "isotonic"),
    "isotonic around a pipeline": lambda: calibrated(make_pipeline(StandardScaler(), straight()), "isotonic"),
    "isotonic, one for all": lambda: CalibratedClassifierCV(straight(), method="isotonic", cv=3, ensemble=False),
    "isotonic around a model that was trained before": lambda: CalibratedClassifierCV(
        FrozenEstimator(straight().fit(data()[0][:SEEN], data()[2][:SEEN])), method="isotonic"
    ),
    "sigmoid around a pipeline": lambda: calibrated(make_pipeline(PCA(2), straight()), "sigmoid"),
    "isotonic around boosting": lambda: calibrated(
        GradientBoostingClassifier(n_estimators=5, random_state=0), "isotonic"
    ),
    "isotonic around histograms": lambda: calibrated(HistGradientBoostingClassifier(max_iter=5), "isotonic"),
    "isotonic around votes": lambda: calibrated(AdaBoostClassifier(n_estimators=4, random_state=0), "isotonic"),
    "isotonic around linear models in a bag": lambda: calibrated(
        BaggingClassifier(straight(), n_estimators=3, max_features=3, random_state=0), "isotonic"
    ),
    "isotonic around support vectors": lambda: calibrated(SVC(), "isotonic"),
    "isotonic around a discriminant": lambda: calibrated(LinearDiscriminantAnalysis(), "isotonic"),
    "isotonic around a quadratic discriminant": lambda: calibrated(QuadraticDiscriminantAnalysis(), "isotonic"),
    "isotonic around one against the rest": lambda: calibrated(OneVsRestClassifier(straight()), "isotonic"),
    "isotonic around a stack": lambda: calibrated(
        StackingClassifier([("a", straight()), ("b", forest())], straight(), cv=2), "isotonic"
    ),
    "temperature of boosting": lambda: calibrated(HistGradientBoostingClassifier(max_iter=5), "temperature"),
    "boosting after a linear model": lambda: GradientBoostingClassifier(n_estimators=5, init=straight()),
    "boosting from nothing": lambda: GradientBoostingClassifier(n_estimators=5, init="zero"),
    "votes by weights in a list": lambda: VotingClassifier(
        [("a", straight()), ("b", forest()), ("c", GaussianNB())], voting="soft", weights=[1, 2.5, 1]
    ),
    "support vectors, ties broken": lambda: SVC(C=0.05, break_ties=True),
    "support vectors, pair by pair": lambda: NuSVC(nu=0.2, kernel="poly", degree=2, decision_function_shape="ovo"),
    "labels in a bag": lambda: BaggingClassifier(SVC(), n_estimators=3, random_state=0),
    "the largest size as the norm": lambda: make_pipeline(StandardScaler(), Normalizer("max"), forest()),
    "rounded": lambda: make_pipeline(FunctionTransformer(np.round, kw_args={"decimals": 1}), forest()),
    "temperature": lambda: calibrated(straight(), "temperature"),
    "temperature of probabilities": lambda: calibrated(GaussianNB(), "temperature"),
    "stacking": lambda: StackingClassifier([("a", straight()), ("b", forest()), ("c", LinearSVC())], passthrough=True),
    "steps that are passed through": lambda: Pipeline([("scale", "passthrough"), ("reduce", None), ("last", forest())]),
    "products": lambda: make_pipeline(PolynomialFeatures((2, 3), interaction_only=True), StandardScaler(), straight()),
    "selected by a model": lambda: make_pipeline(SelectFromModel(forest()), forest()),
    "clusters in the middle": lambda: make_pipeline(StandardScaler(), KMeans(5, n_init=2, random_state=0), straight()),
    "components in the middle": lambda: make_pipeline(LinearDiscriminantAnalysis(), forest()),
    "clusters in a union": lambda: make_pipeline(make_union(PCA(2), KMeans(3, n_init=1, random_state=0)), straight()),
    "normal quantiles": lambda: make_pipeline(
        QuantileTransformer(output_distribution="normal", n_quantiles=40), straight()
    ),
    "clipped": lambda: make_pipeline(
        FunctionTransformer(np.clip, kw_args={"a_min": 0.5, "a_max": [7.0, 3.5, 5.0, 2.0]}), straight()
    ),
}


def assert_alike(model: Any, rows: Any, seen: Any) -> None:
    session = ort.InferenceSession(to_onnx(model, seen), providers=["CPUExecutionProvider"])
    if isinstance(rows, pd.DataFrame):
        given = {
            each.name: rows[[each.name]].to_numpy().astype(object if each.type == "tensor(string)" else _type(each))
            for each in session.get_inputs()
        }
    else:
        (only,) = session.get_inputs()
        given = {only.name: rows.astype(_type(only))}
    first, *rest = session.run(None, given)
    if is_classifier(model):
        np.testing.assert_array_equal(first, model.predict(rows))
        second = model.predict_proba if hasattr(model, "predict_proba") else model.decision_function
        np.testing.assert_allclose(np.squeeze(rest[0]), second(rows), rtol=1e-4, atol=1e-5)
    else:
        expected = model.predict(rows) if hasattr(model, "predict") else model.transform(rows)
        np.testing.assert_allclose(first.reshape(expected.shape), expected, rtol=1e-4, atol=1e-5)


def _type(given: Any) -> str:
    return {"tensor(float)": "float32", "tensor(double)": "float64", "tensor(int64)": "int64"}[given.type]


OF_TWO = (
    *(
        "isotonic around boosting",
        "isotonic around histograms",
        "isotonic around votes",
        "boosting after a linear model",
    ),
    *("isotonic around support vectors", "isotonic around a quadratic discriminant", "support vectors, ties broken"),
    "boosting after a linear model",
    "isotonic around scores",
    "isotonic around probabilities",
    "temperature of probabilities",
    "stacking",
)
"""Those whose formula is another one for two classes."""


@pytest.mark.parametrize(
    ("name", "classes"), [*((name, "three") for name in ON_ROWS), *((name, "two") for name in OF_TWO)]
)
def test_a_composition_is_exact_on_other_rows(name: str, classes: str) -> None:
    rows, _, three, two = data()
    target = np.array(["no", "yes"])[two] if classes == "two" else three
    assert_alike(ON_ROWS[name]().fit(rows[:SEEN], target[:SEEN]), rows, rows[:SEEN])


@pytest.mark.parametrize("method", ["isotonic", "sigmoid"])
def test_calibration_around_named_columns(method: str) -> None:
    _, frame, three, _ = data()
    seen = frame[:SEEN]
    assert_alike(calibrated(make_pipeline(columns(), straight()), method).fit(seen, three[:SEEN]), frame, seen)


def test_stacking_around_named_columns() -> None:
    rows, frame, three, _ = data()
    seen = frame[:SEEN]
    several = [("a", make_pipeline(columns(), straight())), ("b", make_pipeline(columns(), forest()))]
    assert_alike(StackingClassifier(several, cv=3).fit(seen, three[:SEEN]), frame, seen)
    values = [("a", make_pipeline(columns(), Ridge())), ("b", make_pipeline(columns(), RandomForestRegressor(5)))]
    assert_alike(StackingRegressor(values, cv=3).fit(seen, rows[:SEEN, 0] * 2), frame, seen)


@pytest.mark.parametrize("method", ["box-cox", "yeo-johnson"])
def test_a_target_of_powers(method: str) -> None:
    rows = data()[0]
    model = TransformedTargetRegressor(Ridge(), transformer=PowerTransformer(method))
    assert_alike(model.fit(rows[:SEEN], np.exp(rows[:SEEN, 0])), rows, rows[:SEEN])


def test_boosting_of_numbers_after_another_model() -> None:
    rows = data()[0]
    model = GradientBoostingRegressor(n_estimators=5, init=Ridge(), loss="huber")
    assert_alike(model.fit(rows[:SEEN], rows[:SEEN, 0] * 2 + 1e6), rows, rows[:SEEN])


def test_products_of_seconds_since_1970_are_computed_in_double() -> None:
    rng = np.random.default_rng(0)
    rows = np.c_[1.7e9 + rng.integers(0, 250_000, 150) + 0.5, rng.normal(size=150)]
    model = make_pipeline(PolynomialFeatures(2), StandardScaler(), Ridge())
    assert_alike(model.fit(rows[:SEEN], ((rows[:SEEN, 0] - 1.7e9) / 86400) ** 2), rows, rows[:SEEN])


def test_several_labels_of_a_perceptron() -> None:
    rows, _, _, two = data()
    labels = np.c_[two, rows[:, 1] > 3].astype(int)
    model = MLPClassifier((6,), max_iter=1000, solver="lbfgs", random_state=0).fit(rows[:SEEN], labels[:SEEN])
    assert_alike(model, rows, rows[:SEEN])


@pytest.mark.parametrize("function", [np.tan, np.sinh, np.cosh, np.arcsinh, np.arctanh, np.deg2rad, np.rint, np.log1p])
def test_a_known_function_is_exact(function: Any) -> None:
    rows = data()[0]
    rows = rows / 10 if function is np.arctanh else rows
    assert_alike(FunctionTransformer(function).fit(rows[:SEEN]), rows, rows[:SEEN])


def test_the_normal_quantile_is_exact_far_into_the_tails() -> None:
    """The whole range of a share, in the steps that 2,000 quantiles give; scipy's ndtri is the other opinion."""
    rows = np.linspace(0.0, 1.0, 2000).reshape(-1, 1)
    model = QuantileTransformer(output_distribution="normal", n_quantiles=2000, subsample=None).fit(rows)
    assert_alike(model, np.r_[rows, [[-1.0], [2.0], [1e-7], [1 - 1e-7], [0.5 + 1e-9]]], rows)
    assert float(special.ndtri(1e-7)) == pytest.approx(float(model.transform([[0.0]])[0, 0]), abs=1e-6)
