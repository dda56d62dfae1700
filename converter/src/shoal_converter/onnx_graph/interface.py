"""A model's interface: what its input and output tensors are called, and of which type and shape they are.

Exporters choose names and types for their own convenience. Here the graph between them is kept, and casts, a
concatenation of columns, or a change of shape are put before and after it, so that every bundle is fed alike.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from shoal_converter.onnx_graph.names import add_prefix

ELEMENT_TYPES = {
    "float32": TensorProto.FLOAT,
    "float64": TensorProto.DOUBLE,
    "int64": TensorProto.INT64,
    "string": TensorProto.STRING,
}

Shaping = Literal["keep", "flat", "column", "second_column", "stack", "cube"]


@dataclass(frozen=True)
class OuterInput:
    """One input as callers will feed it: ``[N, width]`` of a dtype."""

    name: str
    dtype: str
    width: int


@dataclass(frozen=True)
class InnerInput:
    """One input of the exported graph, and the outer inputs that it is made of (more than one: concatenated)."""

    name: str
    dtype: str
    parts: tuple[OuterInput, ...]


@dataclass(frozen=True)
class OuterOutput:
    """One output as callers will get it.

    Attributes:
        name: Its name.
        position: Which of the exported graph's outputs it comes from.
        dtype: Element type; floats of any width become this.
        shaping: ``flat`` gives [N], ``column`` [N, 1], ``second_column`` the [N, 1] of the positive class out of
            [N, 2], ``stack`` one tensor [K, N, C] out of a sequence of K tensors; ``keep`` and ``cube`` (of three
            axes already) change nothing.
        width: Columns of the second axis if known; for [N] none.
    """

    name: str
    position: int
    dtype: str
    shaping: Shaping
    width: int | None = None


def wrap(model: onnx.ModelProto, inputs: Sequence[InnerInput], outputs: Sequence[OuterOutput]) -> onnx.ModelProto:
    """Return the model with the given interface.

    Args:
        model: As exported; not changed.
        inputs: Each exported input, in the exported order or not.
        outputs: What callers get, in order; exported outputs that none of them uses are dropped.
    """
    out = onnx.ModelProto()
    out.CopyFrom(model)
    graph = out.graph
    outer = [part for inner in inputs for part in inner.parts]
    taken = frozenset({part.name for part in outer} | {output.name for output in outputs})
    prefix = add_prefix(graph, taken)
    exported = [info.name for info in graph.output]
    before = [node for inner in inputs for node in _input_nodes(inner, prefix)]
    after: list[onnx.NodeProto] = []
    for output in outputs:
        after.extend(_output_nodes(graph, output, exported[output.position], prefix))
    body = list(graph.node)
    del graph.node[:]
    graph.node.extend([*before, *body, *after])
    del graph.input[:]
    graph.input.extend(
        helper.make_tensor_value_info(part.name, ELEMENT_TYPES[part.dtype], [None, part.width]) for part in outer
    )
    del graph.output[:]
    graph.output.extend(
        helper.make_tensor_value_info(output.name, ELEMENT_TYPES[output.dtype], _shape(output)) for output in outputs
    )
    return out


def with_true_output_types(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return the model with its outputs typed as its operators really give them.

    Exporters state types that the operators don't have: double for a tree ensemble's float, int64 for labels of texts;
    onnxruntime then refuses the model.
    """
    bare = onnx.ModelProto()
    bare.CopyFrom(model)
    del bare.graph.value_info[:]
    for info in bare.graph.output:
        info.ClearField("type")
    inferred = onnx.shape_inference.infer_shapes(bare)
    for info, stated in zip(inferred.graph.output, model.graph.output, strict=True):
        if not info.HasField("type"):
            info.type.CopyFrom(stated.type)
    del inferred.graph.value_info[:]
    return inferred


def _shape(output: OuterOutput) -> list[int | None]:
    if output.shaping == "flat":
        return [None]
    if output.shaping in {"column", "second_column"}:
        return [None, 1]
    if output.shaping in {"stack", "cube"}:
        return [None, None, None]
    return [None, output.width]


def _input_nodes(inner: InnerInput, prefix: str) -> list[onnx.NodeProto]:
    nodes: list[onnx.NodeProto] = []
    target = prefix + inner.name
    names: list[str] = []
    for part in inner.parts:
        name = part.name
        if part.dtype != inner.dtype:
            name = f"{prefix}cast.{part.name}"
            nodes.append(helper.make_node("Cast", [part.name], [name], to=ELEMENT_TYPES[inner.dtype]))
        names.append(name)
    if len(names) > 1:
        nodes.append(helper.make_node("Concat", names, [target], axis=1))
    else:
        nodes.append(helper.make_node("Identity", names, [target]))
    return nodes


def _output_nodes(graph: onnx.GraphProto, output: OuterOutput, source: str, prefix: str) -> list[onnx.NodeProto]:
    nodes: list[onnx.NodeProto] = []

    def then(operator: str, *more: str, **attributes: Any) -> None:
        nonlocal source
        result = f"{prefix}{output.name}.{len(nodes)}"
        nodes.append(helper.make_node(operator, [source, *more], [result], **attributes))
        source = result

    def constant(values: list[int]) -> str:
        name = f"{prefix}{output.name}.const{len(graph.initializer)}"
        graph.initializer.append(numpy_helper.from_array(np.array(values, dtype=np.int64), name))
        return name

    if output.shaping == "stack":
        then("ConcatFromSequence", axis=0, new_axis=1)
    elif output.shaping == "flat":
        then("Reshape", constant([-1]))
    elif output.shaping == "column":
        then("Reshape", constant([-1, 1]))
    elif output.shaping == "second_column":
        then("Gather", constant([1]), axis=1)
    if output.dtype != "string":
        then("Cast", to=ELEMENT_TYPES[output.dtype])
    nodes.append(helper.make_node("Identity", [source], [output.name]))
    return nodes
