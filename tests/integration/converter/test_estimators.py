"""Over scikit-learn's estimators: the ONNX model answers as its source does, or the model is refused by name.

Labels must be equal and numbers within rtol 1e-4 and atol 1e-5. The comparison here is made by numpy on a session of
its own, not by the converter's parity module, so that a fault in one can't hide a fault in the other.
"""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from sklearn import (
    calibration,
    cluster,
    compose,
    cross_decomposition,
    decomposition,
    discriminant_analysis,
    ensemble,
    feature_selection,
    gaussian_process,
    isotonic,
    kernel_approximation,
    kernel_ridge,
    linear_model,
    mixture,
    model_selection,
    multiclass,
    multioutput,
    naive_bayes,
    neighbors,
    neural_network,
    pipeline,
    preprocessing,
    random_projection,
    svm,
    tree,
)
from sklearn.datasets import load_diabetes, load_iris
from sklearn.impute import KNNImputer, SimpleImputer

from shoal_converter import ParityError, UnsupportedModelError, to_onnx

IRIS, SPECIES = load_iris(return_X_y=True)
BODIES, DISEASE = load_diabetes(return_X_y=True, scaled=False)
TARGETS = {
    "three": SPECIES,
    "two": (SPECIES > 0).astype(int),
    "texts": np.array(["setosa", "versicolor", "virginica"])[SPECIES],
}


def session_outputs(raw: bytes, rows: np.ndarray) -> dict[str, np.ndarray]:
    session = ort.InferenceSession(raw)
    (given,) = session.get_inputs()
    dtype = np.float64 if "double" in given.type else np.float32
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(None, {given.name: rows.astype(dtype)}), strict=True))


def assert_near(found: np.ndarray, expected: np.ndarray) -> None:
    np.testing.assert_allclose(found.reshape(expected.shape), expected, rtol=1e-4, atol=1e-5)


def fitted(model: Any, rows: np.ndarray, target: np.ndarray | None) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return model.fit(rows, target)


def scaled(model: Any) -> Any:
    return pipeline.make_pipeline(preprocessing.StandardScaler(), model)


CLASSIFIERS = {
    "LogisticRegression": linear_model.LogisticRegression(),
    "RidgeClassifier": linear_model.RidgeClassifier(),
    "SGDClassifier": linear_model.SGDClassifier(random_state=0),
    "SGDClassifier log": linear_model.SGDClassifier(loss="log_loss", random_state=0),
    "Perceptron": linear_model.Perceptron(random_state=0),
    "LinearSVC": svm.LinearSVC(random_state=0),
    "SVC": svm.SVC(random_state=0),
    "SVC linear": svm.SVC(kernel="linear"),
    "NuSVC": svm.NuSVC(),
    "DecisionTree": tree.DecisionTreeClassifier(random_state=0),
    "ExtraTree": tree.ExtraTreeClassifier(random_state=0),
    "RandomForest": ensemble.RandomForestClassifier(20, random_state=0),
    "ExtraTrees": ensemble.ExtraTreesClassifier(20, random_state=0),
    "GradientBoosting": ensemble.GradientBoostingClassifier(n_estimators=10, random_state=0),
    "HistGradientBoosting": ensemble.HistGradientBoostingClassifier(max_iter=10, random_state=0),
    "AdaBoost": ensemble.AdaBoostClassifier(n_estimators=10, random_state=0),
    "Bagging": ensemble.BaggingClassifier(n_estimators=5, random_state=0),
    "KNeighbors": neighbors.KNeighborsClassifier(3),
    "GaussianNB": naive_bayes.GaussianNB(),
    "MultinomialNB": naive_bayes.MultinomialNB(),
    "BernoulliNB": naive_bayes.BernoulliNB(),
    "ComplementNB": naive_bayes.ComplementNB(),
    "LinearDiscriminant": discriminant_analysis.LinearDiscriminantAnalysis(),
    "QuadraticDiscriminant": discriminant_analysis.QuadraticDiscriminantAnalysis(),
    "MLP": neural_network.MLPClassifier((8,), max_iter=50, random_state=0),
    "Calibrated": calibration.CalibratedClassifierCV(svm.LinearSVC(random_state=0)),
    "OneVsRest": multiclass.OneVsRestClassifier(linear_model.LogisticRegression()),
    "OneVsOne": multiclass.OneVsOneClassifier(linear_model.LogisticRegression()),
    "Voting": ensemble.VotingClassifier(
        [("a", tree.DecisionTreeClassifier(random_state=0)), ("b", linear_model.LogisticRegression())], voting="soft"
    ),
    "Stacking": ensemble.StackingClassifier(
        [("a", tree.DecisionTreeClassifier(max_depth=2, random_state=0)), ("b", naive_bayes.GaussianNB())]
    ),
    "scaled LogisticRegression": scaled(linear_model.LogisticRegression()),
    "scaled RandomForest": scaled(ensemble.RandomForestClassifier(20, random_state=0)),
    "scaled HistGradientBoosting": scaled(ensemble.HistGradientBoostingClassifier(max_iter=10, random_state=0)),
    "scaled SVC": scaled(svm.SVC(random_state=0)),
    "selected": pipeline.make_pipeline(feature_selection.SelectKBest(k=2), linear_model.LogisticRegression()),
}


@pytest.mark.parametrize("kind", TARGETS)
@pytest.mark.parametrize("name", CLASSIFIERS)
def test_a_classifier_is_exact(name: str, kind: str) -> None:
    model = fitted(CLASSIFIERS[name], IRIS, TARGETS[kind])
    raw = to_onnx(model, IRIS)
    found = session_outputs(raw, IRIS)
    assert next(iter(found)) == "label"
    assert found["label"].shape == (len(IRIS),)
    assert found["label"].astype(str).tolist() == model.predict(IRIS).astype(str).tolist()
    if hasattr(model, "predict_proba"):
        assert_near(found["probabilities"], model.predict_proba(IRIS))
    else:
        assert_near(found["scores"], model.decision_function(IRIS))


REGRESSORS = {
    "LinearRegression": linear_model.LinearRegression(),
    "Ridge": linear_model.Ridge(),
    "Lasso": linear_model.Lasso(),
    "ElasticNet": linear_model.ElasticNet(),
    "BayesianRidge": linear_model.BayesianRidge(),
    "Huber": scaled(linear_model.HuberRegressor()),
    "Poisson": scaled(linear_model.PoissonRegressor()),
    "SVR": svm.SVR(),
    "DecisionTree": tree.DecisionTreeRegressor(random_state=0),
    "RandomForest": ensemble.RandomForestRegressor(10, random_state=0),
    "ExtraTrees": ensemble.ExtraTreesRegressor(10, random_state=0),
    "GradientBoosting": ensemble.GradientBoostingRegressor(n_estimators=20, random_state=0),
    "HistGradientBoosting": ensemble.HistGradientBoostingRegressor(max_iter=20, random_state=0),
    "AdaBoost": ensemble.AdaBoostRegressor(n_estimators=5, random_state=0),
    "KNeighbors": neighbors.KNeighborsRegressor(),
    "MLP": scaled(neural_network.MLPRegressor(hidden_layer_sizes=(8,), max_iter=50, random_state=0)),
    "GaussianProcess": gaussian_process.GaussianProcessRegressor(alpha=1.0),
    "PLS": cross_decomposition.PLSRegression(),
    "scaled RandomForest": scaled(ensemble.RandomForestRegressor(10, random_state=0)),
    "polynomial Ridge": pipeline.make_pipeline(
        preprocessing.MinMaxScaler(), preprocessing.PolynomialFeatures(degree=2), linear_model.Ridge()
    ),
    "imputed": pipeline.make_pipeline(SimpleImputer(), linear_model.LinearRegression()),
    "Voting": ensemble.VotingRegressor([("a", linear_model.Ridge()), ("b", tree.DecisionTreeRegressor(max_depth=3))]),
}


@pytest.mark.parametrize("name", REGRESSORS)
def test_a_regressor_is_exact(name: str) -> None:
    model = fitted(REGRESSORS[name], BODIES, DISEASE)
    found = session_outputs(to_onnx(model, BODIES), BODIES)
    assert list(found) == ["value"]
    assert found["value"].shape == (len(BODIES), 1)
    assert_near(found["value"], model.predict(BODIES))


def test_several_values_are_several_columns() -> None:
    both = np.c_[DISEASE, DISEASE**0.5]
    model = multioutput.MultiOutputRegressor(linear_model.Ridge()).fit(BODIES, both)
    found = session_outputs(to_onnx(model, BODIES), BODIES)
    assert_near(found["value"], model.predict(BODIES))


TRANSFORMERS = {
    "StandardScaler": preprocessing.StandardScaler(),
    "MinMaxScaler": preprocessing.MinMaxScaler(),
    "MaxAbsScaler": preprocessing.MaxAbsScaler(),
    "RobustScaler": preprocessing.RobustScaler(),
    "Normalizer": preprocessing.Normalizer(),
    "Binarizer": preprocessing.Binarizer(threshold=2.0),
    "PowerTransformer": preprocessing.PowerTransformer(),
    "KBins": preprocessing.KBinsDiscretizer(4, encode="ordinal", quantile_method="averaged_inverted_cdf"),
    "PolynomialFeatures": preprocessing.PolynomialFeatures(degree=2),
    "PCA": decomposition.PCA(n_components=2),
    "IncrementalPCA": decomposition.IncrementalPCA(n_components=2),
    "TruncatedSVD": decomposition.TruncatedSVD(n_components=2, random_state=0),
    "KernelPCA": decomposition.KernelPCA(n_components=2, kernel="rbf"),
    "SelectPercentile": feature_selection.SelectPercentile(percentile=50),
    "VarianceThreshold": feature_selection.VarianceThreshold(0.2),
    "GaussianRandomProjection": random_projection.GaussianRandomProjection(n_components=3, random_state=0),
    "SimpleImputer": SimpleImputer(),
    "union": pipeline.make_union(preprocessing.StandardScaler(), decomposition.PCA(n_components=2)),
}


@pytest.mark.parametrize("name", TRANSFORMERS)
def test_a_transformer_is_exact(name: str) -> None:
    model = fitted(TRANSFORMERS[name], IRIS, SPECIES)
    found = session_outputs(to_onnx(model, IRIS), IRIS)
    assert list(found) == ["transformed"]
    assert_near(found["transformed"], np.asarray(model.transform(IRIS)))


LABELLERS = {
    "KMeans": (cluster.KMeans(n_clusters=3, random_state=0, n_init=1), "transform"),
    "MiniBatchKMeans": (cluster.MiniBatchKMeans(n_clusters=3, random_state=0, n_init=1), "transform"),
    "GaussianMixture": (mixture.GaussianMixture(n_components=3, random_state=0), "predict_proba"),
    "IsolationForest": (ensemble.IsolationForest(n_estimators=10, random_state=0), "decision_function"),
    "OneClassSVM": (svm.OneClassSVM(), "decision_function"),
}


@pytest.mark.parametrize("name", LABELLERS)
def test_clusters_and_outliers_are_exact(name: str) -> None:
    model, method = LABELLERS[name]
    fitted(model, IRIS, None)
    found = session_outputs(to_onnx(model, IRIS), IRIS)
    label, second = found
    assert label == "label"
    assert second == ("probabilities" if method == "predict_proba" else "scores")
    assert found["label"].tolist() == model.predict(IRIS).tolist()
    assert_near(found[second], getattr(model, method)(IRIS))


def test_neighbours_at_equal_distance_are_those_that_the_model_takes() -> None:
    model = neighbors.LocalOutlierFactor(novelty=True).fit(IRIS)
    found = session_outputs(to_onnx(model, IRIS), IRIS)
    assert found["label"].tolist() == model.predict(IRIS).tolist()
    assert_near(found["scores"], model.decision_function(IRIS))


def test_versions_are_those_that_devices_run() -> None:
    model = onnx.load_model_from_string(to_onnx(ensemble.RandomForestClassifier(3).fit(IRIS, SPECIES), IRIS))
    versions = {entry.domain: entry.version for entry in model.opset_import}
    assert model.ir_version <= 10
    assert versions[""] <= 21
    assert versions.get("ai.onnx.ml", 1) <= 3


def test_options_reach_the_converter() -> None:
    model = cluster.KMeans(3, random_state=0, n_init=1).fit(IRIS)
    plain = to_onnx(model, IRIS)
    without = to_onnx(model, IRIS, options={id(model): {"gemm": False}})
    assert b"Gemm" in plain
    assert b"Gemm" not in without


@pytest.mark.parametrize(
    ("model", "step"),
    [
        (preprocessing.SplineTransformer(extrapolation="periodic"), "SplineTransformer"),
        (decomposition.NMF(), "NMF"),
        (pipeline.make_pipeline(decomposition.NMF(), linear_model.Ridge()), "nmf"),
        (cluster.DBSCAN(), "DBSCAN"),
        (
            pipeline.make_pipeline(preprocessing.FunctionTransformer(lambda rows: rows + 1), linear_model.Ridge()),
            "functiontransformer",
        ),
    ],
)
def test_what_has_no_exact_form_is_refused_by_its_step_with_a_way_round(model: Any, step: str) -> None:
    fitted(model, IRIS, SPECIES)
    with pytest.raises(UnsupportedModelError) as caught:
        to_onnx(model, IRIS)
    assert caught.value.step == step
    assert caught.value.way_round


def test_a_wrong_step_is_named() -> None:
    gaps = np.where(np.random.default_rng(0).random(IRIS.shape) < 0.15, np.nan, IRIS)  # many rows equally near
    model = pipeline.make_pipeline(KNNImputer(), linear_model.LinearRegression()).fit(gaps, SPECIES)
    with pytest.raises(ParityError) as caught:
        to_onnx(model, gaps)
    assert "knnimputer" in caught.value.step
    assert caught.value.report["rows"] == len(IRIS)
    assert not caught.value.report["passed"]


SEEN = np.arange(len(IRIS)) % 3 > 0
"""Every third row is kept from training and conversion."""


@pytest.mark.parametrize("texts", [False, True])
@pytest.mark.parametrize("threshold", [0.2, 0.9, "tuned"])
def test_a_threshold_is_applied(threshold: float | str, texts: bool) -> None:
    late = (SPECIES > 1).astype(int)
    target = np.array(["no", "yes"])[late] if texts else late
    inner = linear_model.LogisticRegression(C=0.01)
    model = (
        model_selection.TunedThresholdClassifierCV(inner)
        if threshold == "tuned"
        else model_selection.FixedThresholdClassifier(inner, threshold=threshold)
    )
    fitted(model, IRIS[SEEN], target[SEEN])
    found = session_outputs(to_onnx(model, IRIS[SEEN]), IRIS[~SEEN])
    assert found["label"].astype(str).tolist() == model.predict(IRIS[~SEEN]).astype(str).tolist()
    assert_near(found["probabilities"], model.predict_proba(IRIS[~SEEN]))
    half = model.classes_[(found["probabilities"][:, 1] >= 0.5).astype(int)]
    assert (half.astype(str) != found["label"].astype(str)).any()  # or the threshold would not matter here


@pytest.mark.parametrize("step", [preprocessing.MinMaxScaler(), preprocessing.StandardScaler()])
def test_trees_behind_a_scaler_are_exact_on_rows_never_seen(step: Any) -> None:
    amount = IRIS[:, 0] ** 2 - IRIS[:, 1] * IRIS[:, 2] + np.sin(37 * IRIS[:, 3])
    model = fitted(pipeline.make_pipeline(step, tree.DecisionTreeRegressor(random_state=0)), IRIS[SEEN], amount[SEEN])
    found = session_outputs(to_onnx(model, IRIS[SEEN]), IRIS[~SEEN])
    assert_near(found["value"], model.predict(IRIS[~SEEN]))


def test_gaps_are_imputed_and_marked() -> None:
    gaps = np.where(np.random.default_rng(0).random(BODIES.shape) < 0.1, np.nan, BODIES)
    model = pipeline.make_pipeline(SimpleImputer(add_indicator=True), linear_model.LinearRegression())
    model.fit(gaps[:300], DISEASE[:300])
    found = session_outputs(to_onnx(model, gaps[:300]), gaps[300:])
    assert_near(found["value"], model.predict(gaps[300:]))


OWN = {
    "kernel ridge, poly": kernel_ridge.KernelRidge(kernel="poly", degree=2, gamma=0.1),
    "kernel ridge, laplacian": kernel_ridge.KernelRidge(kernel="laplacian", gamma=0.1),
    "kernel ridge, cosine": kernel_ridge.KernelRidge(kernel="cosine"),
    "target in logarithms": compose.TransformedTargetRegressor(
        linear_model.Ridge(), func=np.log1p, inverse_func=np.expm1
    ),
    "target scaled": compose.TransformedTargetRegressor(
        pipeline.make_pipeline(preprocessing.StandardScaler(), linear_model.Ridge()),
        transformer=preprocessing.StandardScaler(),
    ),
    "splines": pipeline.make_pipeline(preprocessing.SplineTransformer(), linear_model.Ridge()),
    "splines that go on": pipeline.make_pipeline(
        preprocessing.SplineTransformer(degree=2, extrapolation="continue", include_bias=False), linear_model.Ridge()
    ),
    "logarithms": pipeline.make_pipeline(preprocessing.FunctionTransformer(np.log1p), linear_model.Ridge()),
    "Nystroem": pipeline.make_pipeline(
        kernel_approximation.Nystroem(n_components=20, random_state=0), linear_model.Ridge()
    ),
}


@pytest.mark.parametrize("name", OWN)
def test_own_forms_are_exact_on_rows_never_seen(name: str) -> None:
    amount = 3 * IRIS[:, 0] + IRIS[:, 1] * IRIS[:, 2]
    model = fitted(OWN[name], IRIS[SEEN], amount[SEEN])
    beyond = np.concatenate([IRIS[~SEEN], IRIS[:5] * 1.5, IRIS[:5] * 0.5])
    found = session_outputs(to_onnx(model, IRIS[SEEN]), beyond)
    assert_near(found["value"], model.predict(beyond))


@pytest.mark.parametrize("beyond", ["clip", "nan"])
def test_isotonic_regression_is_exact_also_beyond_its_ends(beyond: str) -> None:
    x = IRIS[:, 2:3].astype(np.float32)
    model = isotonic.IsotonicRegression(out_of_bounds=beyond).fit(x[SEEN], IRIS[SEEN, 3])
    rows = np.concatenate([x, [[-3.0], [30.0]]]).astype(np.float32)
    found = session_outputs(to_onnx(model, x[SEEN]), rows)
    np.testing.assert_allclose(found["value"].ravel(), model.predict(rows), rtol=1e-4, atol=1e-5)
    assert np.isnan(found["value"][-2:]).all() == (beyond == "nan")
