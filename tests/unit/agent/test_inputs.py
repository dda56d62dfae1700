"""Inputs against the bundle's schema: what is converted, and how a fault is told."""

import re
from typing import Any

import msgspec
import numpy as np
import pytest

from fixtures_models import linear_schema, mixed_schema
from shoal_agent.runtime.conversion import converted, shown
from shoal_agent.runtime.errors import Fault, InputError
from shoal_agent.runtime.inputs import InputPlan, check_rows

LINEAR = InputPlan(linear_schema())
MIXED = InputPlan(mixed_schema(missing_sentinel="?"))
ROWS = [{"age": 34, "visits": 2, "city": "Bern"}, {"age": None, "visits": 0, "city": None}]


def faults(plan: InputPlan, inputs: Any) -> list[dict[str, Any]]:
    with pytest.raises(InputError) as caught:
        plan.feeds(inputs) if isinstance(inputs, dict) else plan.row_feeds(inputs)
    found: list[dict[str, Any]] = caught.value.data["faults"]
    return found


def test_columns_are_put_into_the_tensor_in_its_order() -> None:
    feeds = LINEAR.feeds({"x3": [3, 30], "x0": np.array([0, 0.5]), "x1": [1, 1], "x2": (2, 2)})
    assert feeds["x"].dtype == np.float32
    assert feeds["x"].tolist() == [[0, 1, 2, 3], [0.5, 1, 2, 30]]


@pytest.mark.parametrize("value", [[], [1.0, 2.0], [[]]])
def test_a_list_where_a_number_belongs_names_the_feature(value: Any) -> None:
    others = {"x0": None, "x2": None, "x3": 1.0}
    found = faults(LINEAR, [{**others, "x1": value}])
    assert [fault["field"] for fault in found] == ["x1"]


def test_numbers_where_columns_belong_name_every_feature() -> None:
    found = faults(LINEAR, {f"x{at}": 1.0 for at in range(4)})
    assert {(fault["field"], fault["expected"], fault["got"]) for fault in found} == {
        (f"x{at}", "one value a row", "float32[]") for at in range(4)
    }


def test_tensors_of_another_precision_are_converted() -> None:
    assert LINEAR.feeds({"x": np.zeros((2, 4), np.float64)})["x"].dtype == np.float32
    assert LINEAR.feeds({"x": np.zeros((2, 4), np.int64)})["x"].dtype == np.float32
    big = LINEAR.feeds({"x": np.full((1, 4), 1e300)})["x"]
    assert np.isinf(big).all()


def test_rows_of_mixed_types_with_missing_values() -> None:
    feeds = MIXED.row_feeds(ROWS)
    assert feeds["age"].shape == (2, 1)
    assert np.isnan(feeds["age"][1, 0])
    assert feeds["visits"].dtype == np.int64
    assert feeds["city"].tolist() == [["Bern"], ["?"]]


@pytest.mark.parametrize(
    "values",
    [
        [True, False],
        [1, 0],
        (np.bool_(True), False),
        [[True], [False]],
        np.array([True, False]),
        np.array([1, 0]),
        np.array([True, False], object),
    ],
)
def test_a_feature_of_truth_values_takes_them_and_the_numbers_that_the_graph_sees(values: Any) -> None:
    schema = mixed_schema()
    visits = next(field for field in schema.inputs if field.name == "visits")
    truths = tuple(msgspec.structs.replace(f, dtype="bool") if f is visits else f for f in schema.inputs)
    plan = InputPlan(msgspec.structs.replace(schema, inputs=truths))
    feeds = plan.feeds({"age": [1, 2], "visits": values, "city": ["Bern", "Basel"]})
    assert (feeds["visits"].dtype, feeds["visits"].ravel().tolist()) == (np.int64, [1, 0])


def test_rows_of_numbers_are_the_same_fast_and_slow() -> None:
    rows = [{"x0": 1, "x1": 2.5, "x2": None, "x3": 1e300}, {"x3": 4, "x2": 3, "x1": 2, "x0": 1}]
    fast = LINEAR.row_feeds(rows)["x"]
    slow = LINEAR.feeds({name: [row[name] for row in rows] for name in rows[0]})["x"]
    assert fast.tobytes() == slow.tobytes()


@pytest.mark.parametrize(
    ("plan", "inputs", "expected"),
    [
        (LINEAR, {"x": np.zeros((2, 3), np.float32)}, [("x", "float32[N, 4]", "float32[2, 3]")]),
        (LINEAR, {"x": np.zeros((2, 4), "<U3")}, [("x", "numbers", "<U3")]),
        (LINEAR, {"x": np.array([[1, 2, 3, "a"]], object)}, [("x", "numbers", "")]),
        (LINEAR, {"x": object()}, [("x", "numbers", "object")]),
        (LINEAR, {"x": [[1, 2], [3]]}, [("x", "numbers", "")]),
        (LINEAR, {"x": np.zeros((2, 4), complex)}, [("x", "numbers", "complex")]),
        (LINEAR, {"y": 1}, [("x0", "float32", "none"), ("x1", "", "none"), ("y", "a feature", "unknown")]),
        (MIXED, {"age": [1], "visits": [1.5], "city": ["a"]}, [("visits", "whole numbers", "1.5 (a number)")]),
        (MIXED, {"age": [1, 2], "visits": [1, 1], "city": ["a"]}, [("city", "2 rows as the others", "1 rows")]),
        (MIXED, {"age": ["7"], "visits": [1], "city": [3]}, [("age", "numbers", "'7' (text)"), ("city", "text", "3")]),
        (MIXED, {"age": [7], "visits": [True], "city": ["a"]}, [("visits", "whole numbers", "True")]),
        (MIXED, [ROWS[0], {"age": 1, "visits": 2}], [("city", "a value of string", "none")]),
        (MIXED, [{**ROWS[0], "zip": 1}], [("zip", "a feature of this bundle", "an unknown name")]),
        (MIXED, [{**ROWS[0], "visits": None}], [("visits", "whole numbers", "null")]),
        (LINEAR, [{"x0": 1, "x1": "1", "x2": 1, "x3": 1}], [("x1", "numbers", "'1' (text)")]),
        (LINEAR, [{"x0": 1, "x1": True, "x2": 1, "x3": 1}], [("x1", "numbers", "True (true or false)")]),
        (InputPlan(mixed_schema()), ROWS, [("city", "no rule for a missing one", "null")]),
    ],
)  # fmt: skip
def test_every_fault_names_field_expectation_and_what_came(plan: InputPlan, inputs: Any, expected: Any) -> None:
    found = faults(plan, inputs)
    for name, wanted, got in expected:
        assert any(f["field"] == name and wanted in f["expected"] and got in f["got"] for f in found), found


def test_a_fault_of_a_row_names_the_row() -> None:
    assert faults(MIXED, [ROWS[0], {"age": "x", "visits": 1, "city": "a"}])[0]["row"] == 1


def test_missing_values_are_refused_only_if_the_bundle_says_so() -> None:
    x = np.array([[1, 2, 3, 4], [1, np.nan, 3, 4]], np.float32)
    assert LINEAR.feeds({"x": x})["x"] is x
    strict = InputPlan(linear_schema(missing="refused"))
    assert strict.has_rules
    assert [(f["field"], f["row"]) for f in faults(strict, {"x": x})] == [("x1", 1)]


def test_unknown_categories_are_refused_where_the_bundle_lists_them() -> None:
    plan = InputPlan(mixed_schema(categories=("Bern", "Basel")))
    fault = faults(plan, [{"age": 1, "visits": 1, "city": "Bern"}, {"age": 1, "visits": 1, "city": "Rome"}])[0]
    assert fault == {"field": "city", "expected": "one of 'Basel', 'Bern'", "got": "'Rome' (text)", "row": 1}
    assert plan.row_feeds([{"age": 1, "visits": 1, "city": "Basel"}])["city"].tolist() == [["Basel"]]


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ([1, 1.5], "'n' in row 1: expected whole numbers, got 1.5 (a number)"),
        ([1, 2**70], f"'n' in row 1: expected {-(2**63)} to {2**63 - 1} (int64), got {2**70} (a whole number)"),
        ([[1], ["a"]], "'n' in row 1: expected whole numbers, got 'a' (text)"),
        (np.array([True]), "'n': expected whole numbers, got true or false (bool)"),
    ],
)
def test_a_wrong_number_is_named_by_its_row(values, told):
    faults: list[Fault] = []
    assert converted("n", values, "int64", None, faults) is None
    assert [str(fault) for fault in faults] == [told]


@pytest.mark.parametrize(
    ("rows", "told"),
    [
        ({"age": 1}, "'rows': expected a list of rows such as"),
        ([{"age": 1}, 5], "'rows' in row 1: expected a row such as {\"age\": 34}, got 5 (a whole number)"),
    ],
)
def test_what_is_no_list_of_rows_is_told(rows, told):
    with pytest.raises(InputError, match=re.escape(told)):
        check_rows(rows)


def test_a_fault_shows_a_tensor_value_as_people_write_it():
    said = [shown(value) for value in (np.float32(-12.1), np.int64(3), np.bool_(True), "a", None)]
    assert said == ["-12.1 (a number)", "3 (a whole number)", "True (true or false)", "'a' (text)", "null"]
