"""Rows of callers become rows of tensors, or a clear refusal."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from sklearn.compose import ColumnTransformer
from sklearn.linear_model import Ridge
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder

from shoal_converter.errors import SampleError
from shoal_converter.sample import make_sample
from shoal_converter.sources.estimator import unknown_allowed

FRAME = pd.DataFrame(
    {
        "age": [30, 40],
        "height (m)": [1.5, np.nan],
        "city": ["bern", "zug"],
        "label": ["a", "b"],
        "member": [True, False],
    }
)


def test_a_matrix_is_one_tensor_with_numbered_features() -> None:
    sample = make_sample(np.arange(6.0).reshape(3, 2))
    assert list(sample.tensors) == ["x"]
    assert sample.tensors["x"].dtype == np.float32
    assert [(c.name, c.tensor, c.column) for c in sample.columns] == [("x0", "x", 0), ("x1", "x", 1)]
    assert sample.tensor_specs()[0].shape == (None, 2)


def test_a_frame_is_one_tensor_a_column() -> None:
    sample = make_sample(FRAME)
    assert {c.name: c.dtype for c in sample.columns} == {
        "age": "int64",
        "height (m)": "float32",
        "city": "string",
        "label": "string",
        "member": "int64",
    }
    assert all(values.shape == (2, 1) for values in sample.tensors.values())
    assert np.isnan(sample.tensors["height (m)"][1, 0])


def test_a_column_named_like_an_output_keeps_its_name_but_not_its_tensor() -> None:
    label = next(c for c in make_sample(FRAME).columns if c.name == "label")
    assert label.tensor == "label_in"


def test_texts_are_one_column() -> None:
    sample = make_sample(["red fish", "blue fish"])
    assert sample.form == "text"
    assert sample.tensors["x"].tolist() == [["red fish"], ["blue fish"]]


def test_a_field_says_what_was_seen() -> None:
    fields = {f.name: f for f in make_sample(FRAME).field_specs(missing_allowed=False, unknown_allowed=False)}
    assert (fields["age"].low, fields["age"].high, fields["age"].missing) == (30.0, 40.0, "refused")
    assert fields["height (m)"].missing == "allowed"
    assert fields["city"].categories == ("bern", "zug")


def test_a_model_that_takes_unknown_categories_is_given_them() -> None:
    fields = {f.name: f for f in make_sample(FRAME).field_specs(missing_allowed=False, unknown_allowed=True)}
    assert fields["city"].categories is None
    strict, lenient = OneHotEncoder(), OneHotEncoder(handle_unknown="ignore")
    assert not unknown_allowed(make_pipeline(ColumnTransformer([("city", strict, ["city"])]), Ridge()))
    assert unknown_allowed(make_pipeline(ColumnTransformer([("city", lenient, ["city"])]), Ridge()))


def test_columns_come_in_the_order_of_the_model() -> None:
    model = SimpleNamespace(feature_names_in_=np.array(["city", "age"], dtype=object))
    sample = make_sample(FRAME[["age", "city"]], model=model)
    assert [c.name for c in sample.columns] == ["city", "age"]
    assert list(sample.source.columns) == ["city", "age"]


@pytest.mark.parametrize(
    ("data", "model", "says"),
    [
        (None, None, "a sample is required"),
        (np.zeros((0, 3)), None, "has no rows"),
        (np.zeros(3), None, "expected (rows, features)"),
        ([[1, 2], [3]], None, "different lengths"),
        (np.zeros((4, 3)), SimpleNamespace(n_features_in_=2), "fitted on 2 features, the sample has 3"),
        (FRAME, SimpleNamespace(feature_names_in_=np.array(["age", "weight"])), "missing: weight"),
        (FRAME[["age"]].iloc[:0], None, "has no rows"),
        (pd.DataFrame({"t": pd.to_datetime(["2026-01-01"])}), None, "datetime64"),
        (pd.DataFrame({"c": ["a", 1]}), None, "1 of type str and 1 of type int"),
        (pd.DataFrame({"c": [None, None]}, dtype=object), None, "no text in 2 of 2 rows"),
        (pd.DataFrame({"c": ["a", "__missing__"]}), None, "stands for a missing one"),
        (pd.DataFrame([[1, 2]], columns=["a", "a"]), None, "columns of the same name: a"),
        (np.zeros((2, 2), dtype=complex), None, "expected numbers or texts"),
    ],
)
def test_mistakes_are_named(data: object, model: object, says: str) -> None:
    with pytest.raises(SampleError) as caught:
        make_sample(data, model=model)
    assert says in caught.value.message


def test_an_extra_column_is_taken_for_the_forgotten_target() -> None:
    model = SimpleNamespace(feature_names_in_=np.array(["age", "city"], dtype=object))
    with pytest.raises(SampleError) as caught:
        make_sample(FRAME[["age", "city", "label"]], model=model)
    assert "--target label" in caught.value.hint


def test_a_sparse_matrix_is_refused_with_the_way_out() -> None:
    from scipy.sparse import csr_matrix

    with pytest.raises(SampleError) as caught:
        make_sample(csr_matrix(np.eye(3)))
    assert "toarray" in caught.value.hint


def test_a_missing_text_has_a_word_of_its_own_which_the_schema_records() -> None:
    sample = make_sample(pd.DataFrame({"c": ["b", None, "a", float("nan")], "d": ["x", "y", "x", "y"]}, dtype=object))
    gaps, whole = sample.field_specs(missing_allowed=False, unknown_allowed=False)
    assert sample.tensors["c"].ravel().tolist() == ["b", "__missing__", "a", "__missing__"]
    assert (gaps.missing, gaps.missing_sentinel, gaps.categories) == ("allowed", "__missing__", ("a", "b"))
    assert (whole.missing, whole.missing_sentinel) == ("refused", None)
