"""Which lines of a CSV file are rows."""

from __future__ import annotations

import io
import math

import pytest

from shoal_agent.bulk.lines import csv_tables
from shoal_agent.bulk.table import Wanted
from shoal_protocol.bundle.schema import FieldSpec


def ages(text: str, *, rows: int = 100) -> list[float | None]:
    """Return the ages as a float or none where one is missing."""
    field = FieldSpec(name="age", dtype="float32", tensor="x", column=0)
    tables = csv_tables(io.BytesIO(text.encode()), Wanted({"age": field}, ("x",)), rows=rows, name="a.csv")
    values = [float(value) for table in tables for value in table.columns["age"]]
    return [None if math.isnan(value) else value for value in values]


@pytest.mark.parametrize("rows", [1, 2, 100])
@pytest.mark.parametrize("end", ["", "\n", "\r\n"])
def test_an_empty_line_of_one_column_is_a_missing_cell(rows, end):
    newline = end or "\n"
    assert ages(newline.join(["age", "30", "", "31", '""', "32"]) + end, rows=rows) == [30.0, None, 31.0, None, 32.0]


def test_only_the_newline_that_ends_the_last_line_is_no_row():
    assert ages("age\n30\n") == [30.0]
    assert ages("age\n30\n\n") == [30.0, None]


def test_an_empty_line_of_several_columns_is_no_row():
    assert ages("note,age\nn0,30\n\nn1,\n\n") == [30.0, None]
