"""Bundles as the agent runs them: its self-test passes, and its answers are scikit-learn's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.cluster import KMeans
from sklearn.compose import make_column_transformer
from sklearn.datasets import load_diabetes, load_iris
from sklearn.ensemble import IsolationForest, RandomForestClassifier
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.multioutput import MultiOutputClassifier
from sklearn.naive_bayes import MultinomialNB
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler
from sklearn.svm import SVC

from shoal_agent.runtime.bundle_files import open_bundle
from shoal_agent.runtime.model import LoadedModel
from shoal_converter import pack
from shoal_converter.feeding import feed
from shoal_converter.onnx_runtime import Runner
from shoal_converter.sample import make_sample
from shoal_converter.sources.sample_file import Table

IRIS, SPECIES = load_iris(return_X_y=True)
BODIES, DISEASE = load_diabetes(return_X_y=True)
SITES = pd.DataFrame(IRIS, columns=["a", "b (cm)", "label", "value"]).assign(
    site=np.array(["bern", "zug", "chur"])[np.arange(150) % 3], count=np.arange(150)
)
TEXTS = ["red fish", "blue fish", "red car", "blue car", "old car"] * 5


def mixed() -> Any:
    numbers = ["a", "b (cm)", "label", "value", "count"]
    return make_column_transformer((StandardScaler(), numbers), (OneHotEncoder(), ["site"]))


MODELS: dict[str, tuple[Any, Any, Any, str]] = {
    "matrix": (make_pipeline(StandardScaler(), LogisticRegression()), IRIS, SPECIES, "predict"),
    "two classes": (SVC(), IRIS, SPECIES > 0, "predict"),
    "frame": (make_pipeline(mixed(), RandomForestClassifier(5, random_state=0)), SITES, SPECIES, "predict"),
    "value": (Ridge(), BODIES, DISEASE, "predict"),
    "texts": (make_pipeline(CountVectorizer(), MultinomialNB()), TEXTS, ["fish" in t for t in TEXTS], "predict"),
    "clusters": (KMeans(3, n_init=1, random_state=0), IRIS, None, "predict"),
    "outliers": (IsolationForest(n_estimators=5, random_state=0), IRIS, None, "predict"),
    "transformed": (StandardScaler(), IRIS, None, "transform"),
    "several labels": (
        MultiOutputClassifier(LogisticRegression(max_iter=1000)),
        IRIS,
        np.c_[SPECIES, SPECIES[::-1]],
        "predict",
    ),
}


@pytest.mark.parametrize("name", MODELS)
def test_the_agent_loads_tests_and_runs_it(name: str, tmp_path: Path) -> None:
    model, rows, target, method = MODELS[name]
    model.fit(rows, target)
    bundle = pack(model, sample=rows, tag="any:1.0.0", output=tmp_path / "any.tar")
    loaded = LoadedModel.load(open_bundle(tmp_path / "any.tar"))
    assert loaded.digest == bundle.digest
    assert loaded.self_test().passed
    dtypes = {tensor.name: tensor.dtype for tensor in bundle.schema.tensors}
    double: Any = "float64" if "float64" in dtypes.values() else "float32"
    sample = make_sample(rows, model=model, float_dtype=double)
    answer = loaded.predict(sample.tensors)
    expected = np.asarray(getattr(model, method)(rows))
    first = answer[bundle.schema.outputs[0].name]
    if first.dtype.kind == "f":
        np.testing.assert_allclose(first.reshape(expected.shape), expected, rtol=1e-4, atol=1e-5)
    else:
        assert first.astype(int).tolist() == expected.astype(int).tolist()


def test_a_missing_text_means_the_same_here_and_on_the_device(tmp_path: Path) -> None:
    sites = pd.DataFrame(
        {
            "colour": np.array(["red", None, "blue", "red", None, "blue", "red", "blue"] * 10, dtype=object),
            "height": np.arange(80.0),
        }
    )
    late = np.array([0, 1, 0, 0, 1, 1, 0, 1] * 10)
    encode = make_column_transformer(
        (OneHotEncoder(handle_unknown="ignore"), ["colour"]), (StandardScaler(), ["height"])
    )
    model = make_pipeline(encode, LogisticRegression()).fit(sites, late)
    bundle = pack(model, sample=sites[:60], tag="gaps:1.0.0", output=tmp_path / "gaps.tar")
    colour = bundle.schema.inputs[0]
    assert (colour.missing, colour.missing_sentinel) == ("allowed", "__missing__")
    loaded = LoadedModel.load(open_bundle(tmp_path / "gaps.tar"))
    unseen = sites[60:]
    colours = [None if pd.isna(value) else value for value in unseen["colour"]]  # as JSON would bring it
    given = {"colour": colours, "height": unseen["height"].tolist()}
    assert None in given["colour"]
    answer = loaded.predict(given)
    assert answer["label"].tolist() == model.predict(unseen).tolist()
    np.testing.assert_allclose(answer["probabilities"], model.predict_proba(unseen), rtol=1e-4, atol=1e-5)
    table = Table(columns={name: unseen[name].to_numpy() for name in unseen.columns})
    here = Runner(bundle.files["model/model.onnx"]).run(feed(bundle.schema, table))
    assert here["label"].tolist() == answer["label"].tolist()
