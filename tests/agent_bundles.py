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

Files = dict[str, bytes]


def linear_model(weight: float, columns: int = 2) -> bytes:
    """An ONNX model: y = weight * x, x and y float32 [N, columns]."""
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [None, columns])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, [None, columns])
    w = helper.make_tensor("w", TensorProto.FLOAT, [1], [weight])
    graph = helper.make_graph([helper.make_node("Mul", ["x", "w"], ["y"])], "g", [x], [y], [w])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return bytes(model.SerializeToString())


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
