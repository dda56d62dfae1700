"""Plain rows read straight into the model's inputs, and what is left to the long way."""

import json

import numpy as np
import pytest

from fixtures_models import constant_schema, linear_schema, mixed_schema
from shoal_agent.serving.plain_rows import MAX_ROWS
from shoal_agent.serving.row_table import RowTable
from shoal_protocol.bundle.schema import FieldSpec, ModelSchema, TensorSpec

TABLE = RowTable(linear_schema())
ROW = {"x3": 3.5, "x0": 0, "x1": None, "x2": 1e300}


def test_rows_of_numbers_are_read_at_once_in_any_order_of_features() -> None:
    feeds = TABLE.read(json.dumps([ROW, {f"x{at}": at for at in range(4)}]).encode())
    assert feeds is not None
    assert list(feeds) == ["x"]
    assert (feeds["x"].dtype, feeds["x"].flags.c_contiguous) == (np.float32, True)
    assert np.array_equal(feeds["x"], [[0, np.nan, np.inf, 3.5], [0, 1, 2, 3]], equal_nan=True)


@pytest.mark.parametrize(
    "body",
    [
        {"rows": [ROW]},
        ROW,
        [],
        [ROW, []],
        [{**ROW, "x4": 1}],
        [{name: ROW[name] for name in ("x0", "x1", "x2")}],
        [{**ROW, "x0": "1"}],
        [{**ROW, "x0": True}],
        [{f"x{at}": 0 for at in range(4)}] * (MAX_ROWS + 1),
    ],
)
def test_all_else_is_left_to_the_long_way(body: object) -> None:
    assert TABLE.read(json.dumps(body).encode()) is None


def test_what_is_no_json_is_left_to_it_too() -> None:
    assert [TABLE.read(body) for body in (b"", b"[", b"\xff", b"[" * 100_000)] == [None] * 4


@pytest.mark.parametrize("schema", [mixed_schema(), constant_schema()])
def test_other_tables_than_of_floats_are_left_to_it(schema: ModelSchema) -> None:
    assert RowTable(schema).read(b"[]") is None


@pytest.mark.parametrize("name", ['"', "\\", "\n", "", "a b", "é", "f0", "class"])
def test_a_feature_may_have_any_name(name: str) -> None:
    field = FieldSpec(name=name, dtype="float32", tensor="x", column=0)
    tensor = TensorSpec(name="x", dtype="float32", shape=(None, 1))
    feeds = RowTable(ModelSchema(tensors=(tensor,), inputs=(field,), outputs=())).read(json.dumps([{name: 2}]).encode())
    assert feeds is None or feeds["x"].tolist() == [[2.0]]
    assert feeds is not None or name in {'"', "\\", "\n"}
