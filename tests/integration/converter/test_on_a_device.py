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
from shoal_converter.sample import make_sample

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
