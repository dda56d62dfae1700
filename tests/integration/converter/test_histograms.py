"""Trees over histograms and isolation forests: categories, missing values, links and constraints."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnxruntime as ort
import pandas as pd
import pytest
from sklearn import compose, ensemble, pipeline, preprocessing

from shoal_converter import to_onnx
from shoal_converter.frame_columns import MISSING_TEXT

RNG = np.random.default_rng(5)
SHOP = pd.DataFrame(
    {
        "city": RNG.choice(["bern", "Zürich", "zug", None], 240),
        "age": RNG.integers(18, 80, 240),
        "income": np.where(RNG.random(240) < 0.1, np.nan, RNG.normal(5e4, 1e4, 240)),
        "grade": RNG.choice(["a", "b", "c"], 240),
    }
)
CATEGORICAL = SHOP.astype({"city": "category", "grade": "category"})
TWO = (SHOP["age"] > 45).to_numpy() ^ (SHOP["grade"] == "a").to_numpy()
THREE = RNG.choice(["low", "middle", "high"], 240)
SPENT = SHOP["age"].to_numpy() + SHOP["income"].fillna(0).to_numpy() / 1e4 + 1.0
SEEN = 170
BOOSTED = {"max_iter": 8, "min_samples_leaf": 5}


def found_by(raw: bytes, rows: pd.DataFrame) -> dict[str, Any]:
    session = ort.InferenceSession(raw)
    feed = {}
    for given in session.get_inputs():
        column = rows[given.name]
        if "string" in given.type:
            values = np.where(column.isna(), MISSING_TEXT, column.astype(object)).astype(object)
        else:
            values = column.to_numpy(np.int64 if "int64" in given.type else np.float64)
        feed[given.name] = values.reshape(-1, 1)
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(None, feed), strict=True))


def encoded(**settings: Any) -> Any:
    encoder = preprocessing.OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=np.nan)
    columns = compose.make_column_transformer((encoder, ["city", "grade"]), remainder="passthrough")
    return pipeline.make_pipeline(columns, ensemble.HistGradientBoostingClassifier(**BOOSTED, **settings))


@pytest.mark.parametrize("target", [TWO.astype(int), THREE], ids=["two", "three"])
@pytest.mark.parametrize("how", ["from_dtype", "encoder"])
def test_categories_are_asked_for_as_sets(how: str, target: np.ndarray) -> None:
    rows = CATEGORICAL if how == "from_dtype" else SHOP
    model = (
        ensemble.HistGradientBoostingClassifier(**BOOSTED)
        if how == "from_dtype"
        else encoded(categorical_features=[0, 1])
    )
    model.fit(rows[:SEEN], target[:SEEN])
    found = found_by(to_onnx(model, rows[:SEEN]), rows[SEEN:])
    assert found["label"].tolist() == model.predict(rows[SEEN:]).tolist()
    np.testing.assert_allclose(found["probabilities"], model.predict_proba(rows[SEEN:]), rtol=1e-4, atol=1e-6)


def test_a_category_that_training_never_saw_goes_where_missing_ones_go() -> None:
    model = encoded(categorical_features=[0, 1]).fit(SHOP[:SEEN], TWO[:SEEN])
    rows = SHOP[SEEN:].assign(city="paris")
    found = found_by(to_onnx(model, SHOP[:SEEN]), rows)
    np.testing.assert_allclose(found["probabilities"], model.predict_proba(rows), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("loss", ["squared_error", "poisson", "gamma"])
def test_a_sum_becomes_a_value_by_the_link_of_its_loss(loss: str) -> None:
    model = ensemble.HistGradientBoostingRegressor(**BOOSTED, loss=loss, monotonic_cst={"age": 1})
    model.fit(CATEGORICAL[:SEEN], SPENT[:SEEN])
    found = found_by(to_onnx(model, CATEGORICAL[:SEEN]), CATEGORICAL[SEEN:])
    np.testing.assert_allclose(found["value"].ravel(), model.predict(CATEGORICAL[SEEN:]), rtol=1e-4)


@pytest.mark.parametrize("settings", [{}, {"contamination": 0.25}, {"max_features": 2, "max_samples": 40}])
def test_an_isolation_forest_is_exact_at_its_threshold_too(settings: dict[str, Any]) -> None:
    rows = RNG.normal(size=(121, 4))
    model = ensemble.IsolationForest(n_estimators=10, random_state=0, **settings).fit(rows)
    session = ort.InferenceSession(to_onnx(model, rows))
    unseen = np.concatenate([rows, rows * 3])
    label, scores = session.run(None, {session.get_inputs()[0].name: unseen.astype(np.float32)})
    rounded = unseen.astype(np.float32)
    assert label.tolist() == model.predict(rounded).tolist()
    np.testing.assert_allclose(scores.ravel(), model.decision_function(rounded), atol=1e-6)
