"""A model that comes as a graph over named tensors: an ONNX file as given, or a network that was exported to one.

Owns the common part of such sources: the graph as devices will run it, its inputs, and the source's own answers. Leaves
reading files to `onnx_source`, exporting to `torch_source`, and the proof to `tensor_proof`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx

from shoal_converter.errors import UnsupportedModelError
from shoal_converter.onnx_graph.canonical import canonical_onnx
from shoal_converter.onnx_graph.lowering import (
    classifier_classes,
    fixed_rows,
    lowered,
    with_free_rows,
    without_zipmap,
)
from shoal_converter.sample import Sample
from shoal_converter.sources.tensor_roles import output_specs, task_of_outputs
from shoal_converter.sources.tensor_rows import TensorInput, tensor_sample
from shoal_protocol.bundle.schema import OutputSpec

Array = npt.NDArray[Any]
Run = Callable[[Mapping[str, Array]], dict[str, Array]]

_DTYPES: dict[int, str] = {
    onnx.TensorProto.FLOAT: "float32",
    onnx.TensorProto.DOUBLE: "float64",
    onnx.TensorProto.FLOAT16: "float16",
    onnx.TensorProto.INT64: "int64",
    onnx.TensorProto.INT32: "int32",
    onnx.TensorProto.INT16: "int16",
    onnx.TensorProto.INT8: "int8",
    onnx.TensorProto.UINT8: "uint8",
    onnx.TensorProto.BOOL: "bool",
    onnx.TensorProto.STRING: "string",
}


@dataclass(frozen=True, eq=False)
class TensorModel:
    """A source over named tensors.

    Attributes:
        framework: What it was made with, for the bundle's documents.
        onnx: Canonical bytes, not yet proven.
        inputs: Of the graph.
        run: The source's own outputs by the graph's names, on tensors by name.
        shapes: Of the outputs, as the graph states them.
        classes: Texts of the classes where the graph says them.
        task: What it is for, as far as its outputs tell; `known` sets it.
        outputs: Their meaning; `known` sets them.
    """

    framework: str
    onnx: bytes
    inputs: tuple[TensorInput, ...]
    run: Run
    shapes: Mapping[str, tuple[int | None, ...]]
    classes: tuple[str, ...] | None = None
    task: Any = "other"
    outputs: tuple[OutputSpec, ...] = ()

    def sample(self, data: Any) -> Sample:
        """Read rows; see `tensor_sample`."""
        return tensor_sample(data, self.inputs)

    def known(self, found: Mapping[str, Array]) -> TensorModel:
        """Return the model with the meaning of its outputs."""
        outputs = output_specs(found, self.shapes, self.classes)
        return replace(self, outputs=outputs, task=task_of_outputs(outputs))


def tensor_model(graph: onnx.ModelProto, *, framework: str, run: Callable[[onnx.ModelProto], Run]) -> TensorModel:
    """Bring a graph to what devices run.

    Args:
        graph: As given or exported; not changed.
        framework: What it was made with.
        run: Makes the source's own function out of the graph as it was (without ZipMap, which is no computation).

    Raises:
        UnsupportedModelError: An operator, type or shape that devices don't take; names it.
    """
    source = onnx.ModelProto()
    source.CopyFrom(graph)
    classes = without_zipmap(source)
    texts = next(iter(classes.values()), None) or classifier_classes(source)
    fit = lowered(source)
    inputs = tuple(_input(info) for info in fit.graph.input)
    if not inputs:
        raise UnsupportedModelError("inputs", "the graph takes no input", "export the model with its inputs")
    rows = fixed_rows(fit)
    if rows is not None:
        with_free_rows(fit)
    shapes = {info.name: _output_shape(info) for info in fit.graph.output}
    own = run(source) if rows is None else _in_blocks(run(source), rows)
    return TensorModel(framework, canonical_onnx(fit), inputs, own, shapes, texts)


def _input(info: onnx.ValueInfoProto) -> TensorInput:
    if not info.type.HasField("tensor_type") or info.type.tensor_type.elem_type not in _DTYPES:
        raise UnsupportedModelError(
            f"input {info.name}",
            "it is no tensor of a type that devices feed",
            f"use one of {', '.join(_DTYPES.values())}",
        )
    dims = info.type.tensor_type.shape.dim
    if not dims:
        raise UnsupportedModelError(
            f"input {info.name}", "it has no shape, or no axis for rows", "export it with the rows as its first axis"
        )
    sizes = (None, *(dim.dim_value or None for dim in dims[1:]))
    return TensorInput(info.name, _DTYPES[info.type.tensor_type.elem_type], sizes)


def _output_shape(info: onnx.ValueInfoProto) -> tuple[int | None, ...]:
    if not info.type.HasField("tensor_type") or info.type.tensor_type.elem_type not in {*_DTYPES, 0}:
        raise UnsupportedModelError(
            f"output {info.name}",
            "it is no tensor that a device could answer with",
            "export the model with tensors as outputs (of skl2onnx: options={'zipmap': False})",
        )
    return tuple(dim.dim_value or None for dim in info.type.tensor_type.shape.dim)


def _in_blocks(run: Run, rows: int) -> Run:
    """Return a function for any number of rows out of one for a fixed number; the last block is filled up."""

    def whole(tensors: Mapping[str, Array]) -> dict[str, Array]:
        count = len(next(iter(tensors.values())))
        parts = []
        for start in range(0, count, rows):
            at = np.minimum(np.arange(start, start + rows), count - 1)
            parts.append(run({name: values[at] for name, values in tensors.items()}))
        return {name: np.concatenate([part[name] for part in parts])[:count] for name in parts[0]}

    return whole
