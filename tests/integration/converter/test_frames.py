"""Data frames of mixed types, texts, and numbers that float32 can't hold."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import pandas as pd
import pytest
from sklearn.compose import make_column_selector, make_column_transformer
from sklearn.ensemble import GradientBoostingRegressor, HistGradientBoostingClassifier, RandomForestClassifier
from sklearn.feature_extraction.text import CountVectorizer, TfidfVectorizer
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.naive_bayes import MultinomialNB
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, OrdinalEncoder, StandardScaler
from sklearn.svm import SVC
from sklearn.tree import DecisionTreeClassifier

from shoal_converter import ParityError, UnsupportedModelError, pack, to_onnx
from shoal_converter.conversion import convert_rows
from shoal_converter.feeding import feed as feed_rows
from shoal_converter.sources.sample_file import read_table

RNG = np.random.default_rng(0)
N = 300
PEOPLE = pd.DataFrame(
    {
        "age": RNG.integers(18, 80, N),
        "height (m)": RNG.normal(1.7, 0.1, N).round(2),
        "income": np.where(RNG.random(N) < 0.1, np.nan, RNG.lognormal(10, 1, N)),
        "city": RNG.choice(["bern", "basel", "zug"], N),
        "label": RNG.choice(["a", "b"], N),
        "member": RNG.random(N) > 0.5,
    }
)
BUYS = ((PEOPLE["age"] > 45) ^ (PEOPLE["city"] == "bern")).astype(int)
NUMBERS = ["age", "height (m)", "income"]


def mixed() -> Any:
    return make_column_transformer(
        (make_pipeline(SimpleImputer(), StandardScaler()), NUMBERS),
        (OneHotEncoder(handle_unknown="ignore"), ["city", "label"]),
        ("passthrough", ["member"]),
    )


def ordinal() -> Any:
    encoder = OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=-1)
    return make_column_transformer((encoder, ["city", "label"]), remainder="passthrough")


PIPELINES = {
    "logistic": make_pipeline(mixed(), LogisticRegression()),
    "forest": make_pipeline(mixed(), RandomForestClassifier(20, random_state=0)),
    "histogram": make_pipeline(mixed(), HistGradientBoostingClassifier(max_iter=10)),
    "boosted": make_pipeline(mixed(), GradientBoostingRegressor(n_estimators=10, random_state=0)),
    "ordinal": make_pipeline(ordinal(), HistGradientBoostingClassifier(max_iter=10)),
    "searched": GridSearchCV(make_pipeline(mixed(), LogisticRegression()), {"logisticregression__C": [0.1, 1.0]}, cv=2),
    "some columns": make_pipeline(make_column_transformer((StandardScaler(), ["age"])), LogisticRegression()),
    "by type": make_pipeline(
        make_column_transformer((OneHotEncoder(), make_column_selector(dtype_exclude=["number", "bool"]))),
        LogisticRegression(),
    ),
}


def feed(frame: pd.DataFrame, session: ort.InferenceSession) -> dict[str, np.ndarray]:
    types = {
        "tensor(float)": np.float32,
        "tensor(double)": np.float64,
        "tensor(int64)": np.int64,
        "tensor(string)": object,
    }
    names = {given.name: given.name.removesuffix("_in") for given in session.get_inputs()}
    return {
        given.name: frame[names[given.name]].to_numpy().astype(types[given.type]).reshape(-1, 1)
        for given in session.get_inputs()
    }


@pytest.mark.parametrize("name", PIPELINES)
def test_a_mixed_frame_is_exact_and_has_one_input_a_column(name: str) -> None:
    model = PIPELINES[name].fit(PEOPLE, BUYS)
    session = ort.InferenceSession(to_onnx(model, PEOPLE))
    assert len(session.get_inputs()) == PEOPLE.shape[1]
    assert {given.name for given in session.get_inputs()} >= {"age", "height (m)", "city", "label_in"}
    found = session.run(None, feed(PEOPLE, session))
    if hasattr(model, "predict_proba"):
        assert found[0].tolist() == model.predict(PEOPLE).tolist()
        np.testing.assert_allclose(found[1], model.predict_proba(PEOPLE), rtol=1e-4, atol=1e-5)
    else:
        np.testing.assert_allclose(found[0][:, 0], model.predict(PEOPLE), rtol=1e-4, atol=1e-5)


def test_truth_values_stay_truth_values_for_who_asks(tmp_path: Path) -> None:
    model = PIPELINES["logistic"].fit(PEOPLE, BUYS)
    bundle = pack(model, sample=PEOPLE, tag="people:1.0.0")
    dtypes = {field.name: field.dtype for field in bundle.schema.inputs}
    assert (dtypes["member"], dtypes["age"]) == ("bool", "int64")
    assert {tensor.name: tensor.dtype for tensor in bundle.schema.tensors}["member"] == "int64"
    file = tmp_path / "people.csv"
    PEOPLE.to_csv(file, index=False)
    assert "True" in file.read_text()
    table = read_table(file)
    session = ort.InferenceSession(bundle.files["model/model.onnx"])
    found = session.run(["label"], feed_rows(bundle.schema, table))
    assert found[0].tolist() == model.predict(PEOPLE).tolist()


def test_an_unseen_category_goes_the_way_that_the_encoder_says() -> None:
    model = PIPELINES["logistic"].fit(PEOPLE, BUYS)
    session = ort.InferenceSession(to_onnx(model, PEOPLE))
    abroad = PEOPLE.assign(city="paris")
    found = session.run(None, feed(abroad, session))
    np.testing.assert_allclose(found[1], model.predict_proba(abroad), rtol=1e-4, atol=1e-5)


def test_columns_before_a_plain_scaler_are_joined() -> None:
    frame = PEOPLE[["age", "height (m)"]]
    model = make_pipeline(StandardScaler(), SVC()).fit(frame, BUYS)
    session = ort.InferenceSession(to_onnx(model, frame))
    label, scores = session.run(None, feed(frame, session))
    assert label.tolist() == model.predict(frame).tolist()
    np.testing.assert_allclose(scores[:, 0], model.decision_function(frame), rtol=1e-4, atol=1e-5)


def test_splits_on_rounded_numbers_get_double_inputs_only_where_they_must() -> None:
    x = RNG.integers(0, 50, (400, 3)) / 10.0
    y = (x.sum(axis=1) > 7).astype(int)
    deep = make_pipeline(StandardScaler(), RandomForestClassifier(30, random_state=0)).fit(x, y)
    told: list[str] = []
    sample, conversion = convert_rows(deep, x, progress=told.append)
    assert sample.columns[0].dtype == "float64"
    assert conversion.report.passed
    assert "compares it with thresholds" in told[0]
    plain = RandomForestClassifier(30, random_state=0).fit(x, y)
    assert convert_rows(plain, x)[0].columns[0].dtype == "float32"


def test_preprocessing_is_computed_in_double_and_rounded_once_before_a_tree() -> None:
    x = (RNG.integers(0, 64, (500, 2)) + 2.0**22).astype(np.float64)  # exact in float32, not after scaling in it
    y = ((x[:, 0] + x[:, 1]) % 7 > 3).astype(int)
    model = make_pipeline(StandardScaler(), DecisionTreeClassifier(random_state=0)).fit(x, y)
    sample, conversion = convert_rows(model, x)
    assert sample.columns[0].dtype == "float32"
    assert conversion.attempt.floats == "mixed"
    assert conversion.found["label"].tolist() == model.predict(x).tolist()


@pytest.mark.parametrize(
    "model", [make_pipeline(TfidfVectorizer(), LogisticRegression()), make_pipeline(CountVectorizer(), MultinomialNB())]
)
def test_texts_are_exact(model: Any) -> None:
    texts = [" ".join(RNG.choice(["red", "green", "fish", "cat's", "blue", "A1"], 5)) for _ in range(60)]
    model.fit(texts, ["fish" in text for text in texts])
    session = ort.InferenceSession(to_onnx(model, texts))
    label, probabilities = session.run(None, {"x": np.array(texts, dtype=object).reshape(-1, 1)})
    assert label.astype(bool).tolist() == model.predict(texts).tolist()
    np.testing.assert_allclose(probabilities, model.predict_proba(texts), rtol=1e-4, atol=1e-5)


def test_words_of_an_expression_of_ones_own_are_refused_not_guessed_even_where_the_sample_shows_no_difference() -> None:
    texts = ["über fish", "über red fish", "red fish", "red"]
    model = make_pipeline(CountVectorizer(token_pattern=r"[^\W\d]+"), MultinomialNB()).fit(texts, [0, 1, 1, 0])
    with pytest.raises((ParityError, UnsupportedModelError)) as caught:
        to_onnx(model, texts)
    assert "countvectorizer" in str(caught.value)
    assert "token_pattern" in caught.value.hint


@pytest.mark.parametrize(
    ("kind", "missing"),
    [("object", None), ("object", np.nan), ("category", None), ("category", np.nan), ("str", None), ("str", pd.NA)],
    ids=str,
)
@pytest.mark.parametrize(
    "encoder",
    [
        OneHotEncoder(handle_unknown="ignore", sparse_output=False),
        OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=-1, encoded_missing_value=-2),
    ],
    ids=lambda encoder: type(encoder).__name__,
)
def test_missing_words_of_each_kind_are_no_other_words_on_rows_made_by_mixing(
    encoder: Any, kind: str, missing: Any
) -> None:
    words = pd.Series(["red", "green", "dark blue", "Ünder"] * 20, dtype=object).astype(kind)
    words[::5] = missing
    frame = pd.DataFrame({"word": words, "code": np.arange(80) % 4})
    assert to_onnx(encoder.fit(frame), frame)


@pytest.mark.parametrize(
    ("settings", "word"),
    [
        ({"stop_words": "english", "ngram_range": (1, 2)}, "stop_words=None"),
    ],
)
def test_a_vectoriser_whose_settings_have_no_exact_form_is_refused_with_what_to_change(
    settings: dict[str, Any], word: str
) -> None:
    words = ["the", "box", "is", "a", "great", "and", "lovely", "box", "of", "my", "own", "which", "was", "here"]
    texts = [" ".join(RNG.choice(words, 8)) for _ in range(80)]
    model = make_pipeline(TfidfVectorizer(**settings), LogisticRegression()).fit(texts, [0, 1] * 40)
    with pytest.raises(ParityError) as caught:
        to_onnx(model, texts)
    assert word in caught.value.hint


def test_rows_in_float32_before_trees_are_refused_with_what_to_change() -> None:
    rows = (RNG.integers(0, 50, (400, 3)) / 10.0).astype(np.float32)
    model = make_pipeline(StandardScaler(), RandomForestClassifier(12, random_state=0)).fit(rows, rows.sum(axis=1) > 7)
    with pytest.raises(ParityError) as caught:
        to_onnx(model, rows)
    assert "float64" in caught.value.hint
