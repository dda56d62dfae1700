"""Estimators that are converted by our own formulas: exact on rows that neither training nor conversion saw.

Settings beyond those of the sweep over all estimators, and rows beyond the range of the sample.
"""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import onnxruntime as ort
import pandas as pd
import pytest
from sklearn import (
    compose,
    decomposition,
    ensemble,
    feature_selection,
    gaussian_process,
    impute,
    kernel_approximation,
    linear_model,
    manifold,
    model_selection,
    multiclass,
    multioutput,
    neighbors,
    pipeline,
    preprocessing,
    svm,
    tree,
)
from sklearn.experimental import enable_iterative_imputer  # noqa: F401 - it shows the imputer
from sklearn.gaussian_process import kernels

from shoal_converter import ParityError, UnsupportedModelError, to_onnx
from shoal_converter.probing import probes
from shoal_converter.sample import make_sample

RNG = np.random.default_rng(11)
ROWS = RNG.normal(size=(160, 4)) * [1.0, 2.0, 0.5, 3.0]
THREE = (np.digitize(ROWS[:, 0] + ROWS[:, 1] ** 2 / 4, [0.0, 1.5]) + 0).astype(np.int64)
TWO = (THREE > 0).astype(np.int64)
WORDS = np.array(["low", "middle", "high"])[THREE]
AMOUNT = ROWS[:, 0] * 3 - ROWS[:, 1] * ROWS[:, 2]
AMOUNTS = np.c_[AMOUNT, ROWS[:, 3]]
SEEN = slice(0, 110)
BEYOND = np.concatenate([ROWS[110:], ROWS[:10] * 3, np.zeros((1, 4)), ROWS[:1]])
GAPS = np.where(RNG.random(ROWS.shape) < 0.2, np.nan, ROWS)
MIXED_KERNEL = (
    kernels.ConstantKernel(2.0) * kernels.Matern(nu=1.5) + kernels.RationalQuadratic() + kernels.WhiteKernel(0.1)
)


pytestmark = [pytest.mark.filterwarnings("ignore::UserWarning"), pytest.mark.filterwarnings("ignore::RuntimeWarning")]
"""scikit-learn's own, of rows without neighbours, unseen categories and atoms that are used up."""


def found_by(raw: bytes, rows: np.ndarray) -> dict[str, np.ndarray]:
    session = ort.InferenceSession(raw)
    (given,) = session.get_inputs()
    dtype = np.float64 if "double" in given.type else np.float32
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(None, {given.name: rows.astype(dtype)}), strict=True))


def fitted(model: Any, rows: Any, target: Any = None) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return model.fit(rows, target)


def assert_near(found: np.ndarray, expected: Any) -> None:
    expected = expected.toarray() if hasattr(expected, "toarray") else np.asarray(expected)
    np.testing.assert_allclose(found.reshape(expected.shape), expected, rtol=1e-4, atol=1e-5)


FOREST = ensemble.RandomForestClassifier(10, random_state=0)
CLASSIFIERS = {
    "neighbours by distance": neighbors.KNeighborsClassifier(5, weights="distance"),
    "neighbours by brute force": neighbors.KNeighborsClassifier(5, algorithm="brute"),
    "neighbours, manhattan": neighbors.KNeighborsClassifier(5, p=1),
    "neighbours, minkowski 3": neighbors.KNeighborsClassifier(5, p=3),
    "radius": neighbors.RadiusNeighborsClassifier(30.0, weights="distance"),
    "Gaussian process": gaussian_process.GaussianProcessClassifier(
        1.0 * kernels.RBF([1.0, 2.0, 1.0, 2.0]), optimizer=None
    ),
    "an even forest": FOREST,
    "extra trees": ensemble.ExtraTreesClassifier(10, max_depth=3, random_state=0),
    "one against the rest": multiclass.OneVsRestClassifier(linear_model.LogisticRegression()),
    "one against the rest, trees": multiclass.OneVsRestClassifier(tree.DecisionTreeClassifier(max_depth=2)),
    "one against the rest, scores": multiclass.OneVsRestClassifier(svm.LinearSVC()),
    "codes": multiclass.OutputCodeClassifier(tree.DecisionTreeClassifier(max_depth=3), random_state=0),
    "codes of pipelines": multiclass.OutputCodeClassifier(
        pipeline.make_pipeline(preprocessing.StandardScaler(), FOREST), random_state=0
    ),
    "modified huber": linear_model.SGDClassifier(loss="modified_huber", random_state=0),
    "elimination": feature_selection.RFE(linear_model.LogisticRegression(), n_features_to_select=2),
    "searched elimination": model_selection.GridSearchCV(
        pipeline.make_pipeline(preprocessing.RobustScaler(), feature_selection.RFE(linear_model.LogisticRegression())),
        {"rfe__n_features_to_select": [1, 2]},
        cv=2,
    ),
    "mixed votes": ensemble.VotingClassifier(
        [
            ("a", pipeline.make_pipeline(preprocessing.StandardScaler(), FOREST)),
            ("b", linear_model.LogisticRegression()),
        ],
        voting="soft",
    ),
}


@pytest.mark.parametrize("target", [TWO, THREE, WORDS], ids=["two", "three", "texts"])
@pytest.mark.parametrize("name", CLASSIFIERS)
def test_a_classifier_is_exact_on_other_rows(name: str, target: np.ndarray) -> None:
    model = fitted(CLASSIFIERS[name], ROWS[SEEN], target[SEEN])
    found = found_by(to_onnx(model, ROWS[SEEN]), BEYOND)
    assert found["label"].astype(str).tolist() == model.predict(BEYOND).astype(str).tolist()
    if hasattr(model, "predict_proba"):
        assert_near(found["probabilities"], model.predict_proba(BEYOND))


REGRESSORS = {
    "neighbours": neighbors.KNeighborsRegressor(4, weights="distance"),
    "radius": neighbors.RadiusNeighborsRegressor(3.0),
    "Gaussian process": gaussian_process.GaussianProcessRegressor(MIXED_KERNEL, normalize_y=True, optimizer=None),
    "chain": multioutput.RegressorChain(tree.DecisionTreeRegressor(max_depth=4), order=[1, 0]),
    "several": multioutput.MultiOutputRegressor(linear_model.Ridge()),
}


@pytest.mark.parametrize("name", REGRESSORS)
def test_a_regressor_is_exact_on_other_rows(name: str) -> None:
    model = fitted(REGRESSORS[name], ROWS[SEEN], AMOUNTS[SEEN])
    found = found_by(to_onnx(model, ROWS[SEEN]), BEYOND)
    assert_near(found["value"], model.predict(BEYOND))


@pytest.mark.parametrize("method", ["predict", "predict_proba", "decision_function"])
def test_a_chain_of_classifiers_goes_on_with_what_it_is_told_to(method: str) -> None:
    labels = np.c_[TWO, THREE > 1].astype(int)
    model = multioutput.ClassifierChain(linear_model.LogisticRegression(), order=[1, 0], chain_method=method)
    fitted(model, ROWS[SEEN], labels[SEEN])
    found = found_by(to_onnx(model, ROWS[SEEN]), BEYOND)
    assert found["label"].tolist() == model.predict(BEYOND).astype(int).tolist()
    assert_near(found["probabilities"], model.predict_proba(BEYOND))


TRANSFORMERS = {
    "Isomap": manifold.Isomap(n_neighbors=6),
    "locally linear": manifold.LocallyLinearEmbedding(n_neighbors=8, eigen_solver="dense"),
    "leaves": ensemble.RandomTreesEmbedding(7, random_state=0),
    "count sketch": kernel_approximation.PolynomialCountSketch(degree=3, n_components=33, coef0=1, random_state=0),
    "pursuit": decomposition.SparseCoder(RNG.normal(size=(7, 4)), transform_n_nonzero_coefs=3),
    "threshold": decomposition.SparseCoder(
        np.eye(4), transform_algorithm="threshold", transform_alpha=0.3, split_sign=True
    ),
    "neighbours": neighbors.KNeighborsTransformer(n_neighbors=4),
    "radius": neighbors.RadiusNeighborsTransformer(radius=2.0, mode="connectivity"),
    "bins": preprocessing.KBinsDiscretizer(5, quantile_method="averaged_inverted_cdf"),
    "quantiles": preprocessing.QuantileTransformer(n_quantiles=40),
    "clipped": preprocessing.MinMaxScaler(clip=True),
}


@pytest.mark.parametrize("name", TRANSFORMERS)
def test_a_transformer_is_exact_on_other_rows(name: str) -> None:
    model = fitted(TRANSFORMERS[name], ROWS[SEEN])
    found = found_by(to_onnx(model, ROWS[SEEN]), BEYOND)
    assert_near(found["transformed"], model.transform(BEYOND))


@pytest.mark.parametrize(
    "imputer",
    [
        impute.KNNImputer(n_neighbors=3, weights="distance"),
        impute.KNNImputer(add_indicator=True),
        impute.IterativeImputer(random_state=0, max_iter=5),
    ],
    ids=["distance", "marked", "rounds"],
)
def test_gaps_are_filled_from_other_columns(imputer: Any) -> None:
    model = fitted(imputer, GAPS[SEEN])
    rows = np.concatenate([GAPS[110:], [[np.nan, np.nan, np.nan, 1.0]]])
    assert_near(found_by(to_onnx(model, GAPS[SEEN]), rows)["transformed"], model.transform(rows))


@pytest.mark.parametrize("kernel", ["gaussian", "exponential", "tophat"])
def test_a_density_is_exact_also_where_it_is_none(kernel: str) -> None:
    model = neighbors.KernelDensity(bandwidth=2.0, kernel=kernel).fit(ROWS[SEEN])
    far = np.concatenate([BEYOND, np.full((1, 4), 1e3)])
    assert_near(found_by(to_onnx(model, ROWS[SEEN]), far)["scores"], model.score_samples(far))


def test_a_row_without_neighbours_gets_the_outlier_label_or_is_an_error_as_in_the_source() -> None:
    far = np.full((1, 4), 1e6)
    named = neighbors.RadiusNeighborsClassifier(5.0, outlier_label=2).fit(ROWS[SEEN], THREE[SEEN])
    assert found_by(to_onnx(named, ROWS[SEEN]), far)["label"].tolist() == [2]
    strict = neighbors.RadiusNeighborsClassifier(5.0).fit(ROWS[SEEN], THREE[SEEN])
    raw = to_onnx(strict, ROWS[SEEN])
    with pytest.raises(ValueError, match="No neighbors"):
        strict.predict(far)
    with pytest.raises(Exception, match="indices element out of data bounds"):
        found_by(raw, far)


SHOP = pd.DataFrame(
    {
        "city": RNG.choice(["bern", "basel", "zug", "chur"], 200, p=[0.5, 0.3, 0.15, 0.05]),
        "code": RNG.choice([1, 2, 5], 200),
        "rate": RNG.choice([0.1, 0.25, 0.3], 200),
    }
)
BOUGHT = np.array(["no", "yes", "later"])[(SHOP["code"].to_numpy() + (SHOP["city"] == "bern").to_numpy()) % 3]
ENCODERS = {
    "rare together": preprocessing.OneHotEncoder(min_frequency=40, handle_unknown="infrequent_if_exist"),
    "first dropped": preprocessing.OneHotEncoder(drop="first", handle_unknown="ignore"),
    "numbered": preprocessing.OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=-1, max_categories=3),
    "target of three classes": preprocessing.TargetEncoder(cv=model_selection.KFold(3)),
}


@pytest.mark.parametrize("name", ENCODERS)
def test_texts_whole_numbers_and_fractions_are_encoded_alike_unseen_ones_too(name: str) -> None:
    columns = compose.ColumnTransformer([("encoded", ENCODERS[name], ["city", "code", "rate"])])
    model = pipeline.make_pipeline(columns, linear_model.LogisticRegression(max_iter=1000)).fit(SHOP, BOUGHT)
    session = ort.InferenceSession(to_onnx(model, SHOP))
    rows = pd.concat([SHOP, SHOP.head(20).assign(city="paris"), SHOP.head(20).assign(rate=0.7, code=9)])
    types = {"tensor(double)": np.float64, "tensor(int64)": np.int64, "tensor(string)": object}
    feed = {i.name: rows[[i.name]].to_numpy().astype(types[i.type]) for i in session.get_inputs()}
    label, probabilities = session.run(None, feed)
    assert label.tolist() == model.predict(rows).tolist()
    assert_near(probabilities, model.predict_proba(rows))


def test_rows_between_those_of_the_sample_are_compared_too() -> None:
    rows = np.stack([np.repeat(np.arange(6.0), 6), np.tile(np.arange(6.0), 6)], axis=1)
    model = neighbors.KNeighborsRegressor(1, algorithm="brute").fit(rows, np.sin(rows.sum(axis=1) * 7))
    sample = make_sample(rows, model=model)
    mixed, between, *_ = probes(sample)
    assert {tuple(row) for row in mixed.source} <= {tuple(row) for row in rows}
    assert (between.source % 1 == 0.5).any()
    np.testing.assert_array_equal(between.source, between.tensors["x"])
    whole = make_sample(rows.astype(int), model=model)
    assert all((probe.source == probe.tensors["x"]).all() for probe in probes(whole))


def test_what_iterates_over_all_rows_together_says_so_and_names_a_way_round() -> None:
    with pytest.raises(UnsupportedModelError) as caught:
        to_onnx(decomposition.NMF(2, max_iter=500).fit(np.abs(ROWS)), np.abs(ROWS))
    assert "TruncatedSVD" in caught.value.way_round


TREES = {
    "a tree": tree.DecisionTreeClassifier(max_depth=5, random_state=0),
    "a random tree": tree.ExtraTreeClassifier(max_depth=5, random_state=0),
    "a forest": FOREST,
}


@pytest.mark.parametrize("trained", ["with gaps", "without"])
@pytest.mark.parametrize("name", [*TREES, "a tree of numbers", "a forest of numbers"])
def test_rows_without_a_value_go_where_the_tree_sends_them(name: str, trained: str) -> None:
    """A tree takes gaps though it was trained on none; devices are told so, and must be sent alike."""
    numbers = {
        "a tree of numbers": tree.DecisionTreeRegressor(max_depth=5, random_state=0),
        "a forest of numbers": ensemble.RandomForestRegressor(5, random_state=0),
    }
    model = {**TREES, **numbers}[name]
    seen = (GAPS if trained == "with gaps" else ROWS)[SEEN]
    fitted(model, seen, (AMOUNT if name in numbers else WORDS)[SEEN])
    found = found_by(to_onnx(model, seen), GAPS)
    if name in numbers:
        assert_near(found["value"], model.predict(GAPS))
        return
    assert found["label"].tolist() == model.predict(GAPS).tolist()
    assert_near(found["probabilities"], model.predict_proba(GAPS))


@pytest.mark.parametrize("name", TREES)
def test_several_labels_of_trees(name: str) -> None:
    model = fitted(TREES[name], ROWS[SEEN], np.c_[THREE, THREE[::-1] * 2][SEEN])
    found = found_by(to_onnx(model, ROWS[SEEN]), BEYOND)
    assert found["label"].tolist() == model.predict(BEYOND).tolist()
    assert_near(found["probabilities"], np.stack(model.predict_proba(BEYOND)))


def test_a_forest_of_large_numbers_that_cancel_each_other_out_is_as_good_as_in_double() -> None:
    model = ensemble.RandomForestRegressor(9, max_depth=3, random_state=0)
    fitted(model, ROWS[SEEN], (AMOUNT * 1e7)[SEEN] - np.median(AMOUNT * 1e7))
    found = found_by(to_onnx(model, ROWS[SEEN]), BEYOND)
    np.testing.assert_allclose(found["value"].ravel(), model.predict(BEYOND), rtol=1e-6)


def test_an_imputer_by_neighbours_that_are_equally_far_is_refused_with_what_to_use() -> None:
    whole = np.where(RNG.random((160, 4)) < 0.3, np.nan, RNG.integers(0, 3, (160, 4)).astype(float))
    with pytest.raises(ParityError) as caught:
        to_onnx(fitted(impute.KNNImputer(n_neighbors=3), whole), whole)
    assert "IterativeImputer" in caught.value.hint


def test_topics_are_found_by_turns_of_which_each_row_has_its_own_number() -> None:
    counts = RNG.integers(0, 9, (160, 4)).astype(float) * (RNG.random((160, 4)) < 0.6)
    model = fitted(decomposition.LatentDirichletAllocation(3, random_state=0, doc_topic_prior=0.1), counts[SEEN])
    raw = to_onnx(model, counts[SEEN])
    rows = np.concatenate([counts[110:], np.zeros((1, 4)), counts[:1] * 1000])
    assert_near(found_by(raw, rows)["transformed"], model.transform(rows))
    assert_near(found_by(raw, rows[7:8])["transformed"], model.transform(rows)[7:8])


def test_identifiers_that_double_cannot_tell_apart_are_told_apart() -> None:
    known = 2**53 + np.arange(8)
    frame = pd.DataFrame({"id": np.resize(known, 160), "x": ROWS[:, 0]})
    encode = compose.make_column_transformer(
        (preprocessing.OneHotEncoder(handle_unknown="ignore"), ["id"]), remainder="passthrough"
    )
    model = pipeline.make_pipeline(encode, linear_model.LogisticRegression()).fit(frame, frame["id"] % 3 == 0)
    session = ort.InferenceSession(to_onnx(model, frame))
    new = pd.DataFrame({"id": np.r_[known, known[-1] + 1], "x": np.zeros(9)})
    fed = {
        "id": new[["id"]].to_numpy(),
        "x": new[["x"]].to_numpy(np.float32 if "float)" in session.get_inputs()[1].type else float),
    }
    np.testing.assert_allclose(session.run(None, fed)[1], model.predict_proba(new), rtol=1e-4, atol=1e-5)


def test_truth_values_of_which_some_are_missing_keep_their_columns() -> None:
    flags = pd.DataFrame({"flag": np.resize(np.array([True, False, None, True, False], dtype=object), 160)})
    encode = compose.make_column_transformer((preprocessing.OneHotEncoder(handle_unknown="ignore"), ["flag"]))
    model = pipeline.make_pipeline(encode, linear_model.LogisticRegression()).fit(flags, flags["flag"].isna())
    session = ort.InferenceSession(to_onnx(model, flags))
    (given,) = session.get_inputs()
    rows = np.array([[1.0], [0.0], [np.nan]], dtype=np.float32 if given.type == "tensor(float)" else np.float64)
    expected = model.predict_proba(pd.DataFrame({"flag": np.array([True, False, None], dtype=object)}))
    np.testing.assert_allclose(session.run(None, {given.name: rows})[1], expected, rtol=1e-4, atol=1e-5)
