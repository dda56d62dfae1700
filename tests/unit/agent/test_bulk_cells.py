"""Texts of a table as values: what is read, what is missing, what is refused by name."""

import numpy as np
import pytest

from shoal_agent.bulk.cells import CellError, values
from shoal_agent.bulk.table import Table, Wanted
from shoal_protocol.bundle.schema import FieldSpec
from shoal_protocol.errors import CallerError

NA = frozenset({"NA"})


def field(dtype: str) -> FieldSpec:
    return FieldSpec(name="age", dtype=dtype, tensor="x")


def test_floats_are_read_and_an_empty_cell_or_a_named_text_is_missing():
    found = values(["1", " 2.5 ", "", "NA", "-1e3", "nan"], field("float32"), NA)
    assert found.dtype == np.float64
    np.testing.assert_array_equal(found, [1, 2.5, np.nan, np.nan, -1000, np.nan])


@pytest.mark.parametrize(
    ("dtype", "texts", "expected"),
    [
        ("int64", ["1", "", " -2", "3.0", "9007199254740993"], [1, None, -2, 3, 9007199254740993]),
        ("bool", ["true", "0", "", "FALSE", "1"], [True, False, None, False, True]),
        ("string", ["Bern", "", " x "], ["Bern", None, " x "]),
    ],
)
def test_other_types_are_lists_with_none_for_missing(dtype, texts, expected):
    assert values(texts, field(dtype), frozenset()) == expected


@pytest.mark.parametrize(
    ("dtype", "wrong"),
    [
        ("float32", "1_000"), ("float32", "1,5"), ("float64", "NA"), ("int64", "2.5"), ("int64", "1_0"),
        ("int32", "two"), ("int64", "1e300"), ("int64", "inf"), ("bool", "yes"),
    ],
)  # fmt: skip
def test_a_wrong_cell_is_named_with_its_row(dtype, wrong):
    with pytest.raises(CellError) as caught:
        values(["1", wrong, "1"], field(dtype), frozenset())
    fault = caught.value.fault
    assert (fault.field, fault.row, fault.expected, fault.got) == ("age", 1, dtype, repr(wrong))


def wanted(*kept: str) -> Wanted:
    return Wanted({name: field("float32") for name in ("age", "x1", "x12")}, ("x",), kept)


def test_missing_columns_are_named_with_what_is_there_and_what_may_be_meant():
    with pytest.raises(CallerError, match="rows.csv lacks the column 'age'; it has 'Age', 'x1', 'x12'") as caught:
        wanted().check(["Age", "x1", "x12"], of="rows.csv")
    assert caught.value.hint == "is 'Age' for 'age' meant? names are taken exactly"


def test_another_feature_is_not_what_is_meant():
    with pytest.raises(CallerError, match="lacks the column 'x12'") as caught:
        wanted().check(["age", "x1"], of="rows.csv")
    assert "meant" not in caught.value.hint


def test_a_column_that_stands_there_twice_is_refused_only_where_it_is_read():
    wanted().check(["age", "x1", "x12", "note", "note"], of="rows.csv")
    with pytest.raises(CallerError, match="has more than one column 'note'"):
        wanted("note").check(["age", "x1", "x12", "note", "note"], of="rows.csv")


def test_a_place_is_a_row_and_where_it_is_known_a_line():
    assert Table("a.csv", 5, 3, first_line=6).place(2) == "a.csv, row 7 (line 8)"
    assert Table("a.npz", 5, 3).place(0) == "a.npz, row 5"
