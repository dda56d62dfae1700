"""Tiny real bundles whose models multiply by a weight, so that an answer tells which one it is from."""

from __future__ import annotations

from typing import Any

import numpy as np
from onnx import TensorProto, helper

from shoal_protocol.bundle.layout import golden_input, golden_output
from shoal_protocol.bundle.schema import (
    BundleInfo,
    FieldSpec,
    Golden,
    ModelSchema,
    OutputSpec,
    Runtime,
    TensorSpec,
    encode_document,
)  # fmt: skip
from shoal_protocol.bundle.tensors import encode_tensor
from shoal_protocol.profile.grid import fit_numeric
from shoal_protocol.profile.profile import ProfileSpec, Stream, summarise
from shoal_protocol.profile.reference import Reference, encode_reference

Files = dict[str, bytes]


def linear_model(weight: float, columns: int = 2) -> bytes:
    """An ONNX model: y = weight * x, x and y float32 [N, columns]."""
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [None, columns])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, [None, columns])
    w = helper.make_tensor("w", TensorProto.FLOAT, [1], [weight])
    graph = helper.make_graph([helper.make_node("Mul", ["x", "w"], ["y"])], "g", [x], [y], [w])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return bytes(model.SerializeToString())


def odd_model(weight: float, *, odd: str) -> bytes:
    """A model like `linear_model` for what is at most 100, and odd beyond: ``hangs``, or says ``nan``."""
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [None, 2])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, [None, 2])
    nodes = [
        helper.make_node("ReduceMax", ["x"], ["most"], keepdims=0),
        helper.make_node("Greater", ["most", "limit"], ["is_odd"]),
        helper.make_node("Where", ["is_odd", "odd", "even"], ["how"]),
    ]
    if odd == "hangs":
        nodes += [
            helper.make_node("Loop", ["how", "true", "x"], ["z"], body=_unchanged()),
            helper.make_node("Mul", ["z", "w"], ["y"]),
        ]
        values = [("odd", TensorProto.INT64, 2**62), ("even", TensorProto.INT64, 1), ("true", TensorProto.BOOL, True)]
    else:
        nodes += [helper.make_node("Mul", ["x", "how"], ["y"])]
        values = [("odd", TensorProto.FLOAT, float("nan")), ("even", TensorProto.FLOAT, weight)]
    values += [("limit", TensorProto.FLOAT, 100.0), ("w", TensorProto.FLOAT, weight)]
    constants = [helper.make_tensor(name, kind, [], [value]) for name, kind, value in values]
    graph = helper.make_graph(nodes, "g", [x], [y], constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return bytes(model.SerializeToString())


def _unchanged() -> Any:
    """The body of a loop that changes nothing and never ends by itself."""
    info = helper.make_tensor_value_info
    turn, go, more = (info(*of) for of in (("i", TensorProto.INT64, []), ("go", 9, []), ("more", 9, [])))
    before, after = (info(name, TensorProto.FLOAT, [None, 2]) for name in ("before", "after"))
    nodes = [helper.make_node("Identity", ["go"], ["more"]), helper.make_node("Identity", ["before"], ["after"])]
    return helper.make_graph(nodes, "body", [turn, go, before], [more, after])


def reference_of_answers(rows: np.ndarray) -> bytes:
    """A reference that counts both columns of the answer ``y``."""
    grids = [fit_numeric(rows[:, column]) for column in range(2)]
    spec = ProfileSpec(tuple(Stream(f"y{at}", "output", grid, "y", column=at) for at, grid in enumerate(grids)))
    return encode_reference(Reference(spec, summarise(spec, {"y": rows})))


def bundle_files(
    weight: float,
    *,
    version: str = "1.0",
    golden_weight: float | None = None,
    padding: int = 0,
    columns: int = 2,
    **runtime: Any,
) -> Files:
    """The files of a bundle around `linear_model`; its golden rows are right unless told otherwise."""
    rows = np.arange(3 * columns, dtype=np.float32).reshape(-1, columns)[:3]
    info = BundleInfo(
        name="quality",
        version=version,
        task="regression",
        framework="test",
        golden=Golden(rows=3),
        runtime=Runtime(**runtime),
    )
    schema = ModelSchema(
        tensors=(TensorSpec(name="x", dtype="float32", shape=(None, columns)),),
        inputs=(FieldSpec(name="x", dtype="float32", tensor="x"),),
        outputs=(OutputSpec(name="y", dtype="float32", shape=(None, columns), role="value"),),
    )
    expected = rows * np.float32(weight if golden_weight is None else golden_weight)
    files = {
        "bundle.json": encode_document(info),
        "schema.json": encode_document(schema),
        "model/model.onnx": linear_model(weight, columns),
        golden_input(0): encode_tensor("x", rows),
        golden_output(0): encode_tensor("y", expected),
    }
    if padding:
        noise = np.random.default_rng(0).bytes(padding // 2)  # the same in all versions
        files["README.md"] = (noise + str(weight).encode()).ljust(padding)
    return files
