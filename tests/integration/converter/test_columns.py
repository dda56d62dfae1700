"""Ways to name columns, columns that are dropped, and dates among them."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnxruntime as ort
import pandas as pd
import pytest
from sklearn import compose, decomposition, linear_model, pipeline, preprocessing

from shoal_converter import UnsupportedModelError, pack, to_onnx
from shoal_converter.errors import SampleError

RNG = np.random.default_rng(9)
VISITS = pd.DataFrame(
    {
        "when": pd.date_range("2026-01-01", periods=120, freq="h"),
        "age": RNG.integers(18, 80, 120),
        "city": RNG.choice(["bern", "zug"], 120),
        "income": RNG.normal(5e4, 1e4, 120),
    }
)
TARGET = (VISITS["age"] > 45).to_numpy().astype(int)
ROWS = RNG.normal(size=(120, 4))


def model_of(*parts: Any, **settings: Any) -> Any:
    return pipeline.make_pipeline(
        compose.ColumnTransformer(list(parts), **settings), linear_model.LogisticRegression(max_iter=500)
    )


def fed(raw: bytes, rows: Any) -> dict[str, Any]:
    session = ort.InferenceSession(raw)
    types = {"tensor(double)": np.float64, "tensor(float)": np.float32, "tensor(int64)": np.int64}
    feed = {
        given.name: (rows[[given.name]].to_numpy() if hasattr(rows, "columns") else rows).astype(
            types.get(given.type, object)
        )
        for given in session.get_inputs()
    }
    return dict(zip([output.name for output in session.get_outputs()], session.run(None, feed), strict=True))


SCALED = ("numbers", preprocessing.StandardScaler(), ["age", "income"])
NAMED = {
    "the date is not mentioned": (SCALED,),
    "the date is dropped": (SCALED, ("date", "drop", ["when"])),
    "a slice of names": (("numbers", preprocessing.OneHotEncoder(handle_unknown="ignore"), slice("age", "city")),),
    "by type": (("numbers", preprocessing.MinMaxScaler(), compose.make_column_selector(dtype_include=np.number)),),
    "by place": (("numbers", preprocessing.MinMaxScaler(), [1, 3]),),
}


@pytest.mark.parametrize("how", NAMED)
def test_a_date_that_is_dropped_need_not_be_fed(how: str) -> None:
    model = model_of(*NAMED[how]).fit(VISITS, TARGET)
    found = fed(to_onnx(model, VISITS[:80]), VISITS[80:])
    assert found["label"].tolist() == model.predict(VISITS[80:]).tolist()
    np.testing.assert_allclose(found["probabilities"], model.predict_proba(VISITS[80:]), rtol=1e-4, atol=1e-5)


def test_a_column_that_is_fed_for_nothing_is_named() -> None:
    told: list[str] = []
    bundle = pack(model_of(SCALED).fit(VISITS, TARGET), sample=VISITS, tag="visits:1.0.0", progress=told.append)
    assert [field.name for field in bundle.schema.inputs] == ["age", "city", "income"]
    assert [line.partition(",")[0] for line in told if "drops" in line] == ["the model drops city"]


def test_a_date_that_is_used_is_refused_with_a_way_round() -> None:
    def hours(frame: Any) -> Any:
        return frame[["when"]].apply(lambda column: column.dt.hour)

    model = model_of(SCALED, ("date", preprocessing.FunctionTransformer(hours), ["when"])).fit(VISITS, TARGET)
    with pytest.raises((SampleError, UnsupportedModelError), match="when") as caught:
        to_onnx(model, VISITS)
    assert "before training" in caught.value.hint


COUNTED = {
    "a slice": slice(1, 3),
    "an open slice": slice(2, None),
    "a mask": [True, False, True, False],
    "from the end": [-1, -2],
}


@pytest.mark.parametrize("how", COUNTED)
def test_columns_of_an_array_are_counted_in_every_way(how: str) -> None:
    model = model_of(("some", preprocessing.StandardScaler(), COUNTED[how]), remainder="passthrough")
    model.fit(ROWS, ROWS[:, 0] > 0)
    found = fed(to_onnx(model, ROWS[:80]), ROWS[80:])
    np.testing.assert_allclose(found["probabilities"], model.predict_proba(ROWS[80:]), rtol=1e-4, atol=1e-5)


def test_what_a_union_drops_goes() -> None:
    union = pipeline.FeatureUnion(
        [("scaled", preprocessing.StandardScaler()), ("gone", "drop"), ("axes", decomposition.PCA(2))]
    )
    model = pipeline.make_pipeline(union, linear_model.LogisticRegression()).fit(ROWS, ROWS[:, 0] > 0)
    found = fed(to_onnx(model, ROWS[:80]), ROWS[80:])
    np.testing.assert_allclose(found["probabilities"], model.predict_proba(ROWS[80:]), rtol=1e-4, atol=1e-5)
    assert union.transformer_list[1] == ("gone", "drop")
