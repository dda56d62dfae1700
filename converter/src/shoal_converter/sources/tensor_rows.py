"""Rows for a model whose inputs are named tensors of any rank: an ONNX graph, a network of PyTorch.

Owns the rule that maps what a caller gave (one array, arrays by name, a data frame) to the tensors of such a model,
each of the type that it declares. Leaves models that see features by column to `shoal_converter.sample`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import numpy.typing as npt

from shoal_converter.errors import SampleError
from shoal_converter.sample import Column, Sample
from shoal_protocol.bundle.schema import DType

Array = npt.NDArray[Any]

_MOST_NAMED_COLUMNS = 4096


@dataclass(frozen=True)
class TensorInput:
    """One input: its name, element type, and shape with rows first; none where any size fits."""

    name: str
    dtype: str
    shape: tuple[int | None, ...]


def tensor_sample(data: Any, inputs: Sequence[TensorInput]) -> Sample:
    """Read rows that a caller gave.

    Args:
        data: One array with rows first for a model with one input; a mapping or a DataFrame by the inputs' names; or a
            DataFrame (2-D array) whose columns, in order, are those of the one 2-D input.
        inputs: The model's.

    Raises:
        SampleError: It is missing or empty, names other inputs, or its shape or type doesn't fit.
    """
    if data is None:
        raise SampleError(
            f"a sample is required: rows for {_listed(inputs)}",
            hint="give sample=X or {name: array} (Python), or --sample FILE (.npz by input name, .npy, .csv, .parquet)",
        )
    labels: list[str] | None = None
    if hasattr(data, "columns") and hasattr(data, "iloc"):
        data = {str(label): data[label].to_numpy() for label in data.columns}
    if isinstance(data, Mapping):
        given, labels = _by_name({str(name): np.asarray(values) for name, values in data.items()}, inputs)
    else:
        given = _in_order(_array(data), inputs)
    tensors = {each.name: _fitted(given[each.name], each) for each in inputs}
    lengths = {name: len(values) for name, values in tensors.items()}
    if len(set(lengths.values())) != 1 or not next(iter(lengths.values())):
        raise SampleError(f"the sample has these numbers of rows, expected the same one of all: {lengths}")
    columns = tuple(column for each in inputs for column in _columns(each, tensors[each.name], labels))
    shapes = {each.name: (None, *each.shape[1:]) for each in inputs}
    return Sample("tensors", columns, tensors, tensors, shapes)


def _array(data: Any) -> Array:
    try:
        return np.asarray(data)
    except ValueError as error:
        raise SampleError(f"the sample's rows have different lengths: {error}", hint="give one array") from error


def _by_name(given: Mapping[str, Array], inputs: Sequence[TensorInput]) -> tuple[dict[str, Array], list[str] | None]:
    """Return an array for each input, and the names of the columns where they became those of one 2-D input."""
    names = [each.name for each in inputs]
    if all(name in given for name in names):
        return {name: given[name] for name in names}, None
    one = inputs[0]
    if len(inputs) == 1 and len(one.shape) == 2 and all(values.ndim == 1 for values in given.values()):
        if one.shape[1] not in {None, len(given)}:
            raise SampleError(
                f"the input {one.name!r} has {one.shape[1]} columns, the sample {len(given)}: {', '.join(given)[:200]}",
                hint="does the sample still hold the target? Leave it out, or name it by --target",
            )
        return {one.name: np.stack(list(given.values()), axis=1)}, list(given)
    if len(inputs) == len(given) == 1:
        return {one.name: next(iter(given.values()))}, None
    absent = [name for name in names if name not in given]
    raise SampleError(
        f"the sample has {', '.join(given)[:200]}; the model takes {_listed(inputs)}; missing: {', '.join(absent)}",
        hint="name each array as the model's input is named: np.savez(file, "
        + ", ".join(f"{n}=…" for n in names[:4])
        + ")",
    )


def _in_order(array: Array, inputs: Sequence[TensorInput]) -> dict[str, Array]:
    if len(inputs) == 1:
        return {inputs[0].name: array}
    if array.ndim == 2 and array.shape[1] == len(inputs) and all(_width(each) == 1 for each in inputs):
        return {each.name: array[:, at] for at, each in enumerate(inputs)}
    raise SampleError(
        f"the sample is one array of shape {array.shape}; the model takes {_listed(inputs)}",
        hint="give one array for each input, by its name",
    )


def _width(each: TensorInput) -> int | None:
    return math.prod(cast("tuple[int, ...]", each.shape[1:])) if None not in each.shape[1:] else None


def _fitted(values: Array, each: TensorInput) -> Array:
    if values.ndim == 1 and len(each.shape) == 2 and each.shape[1] in {None, 1}:
        values = values.reshape(-1, 1)
    if values.ndim == 2 and values.shape[1] == 1 and len(each.shape) == 1:
        values = values[:, 0]
    fits = values.ndim == len(each.shape) and all(
        want in {None, have} for have, want in zip(values.shape[1:], each.shape[1:], strict=True)
    )
    if not fits:
        raise SampleError(
            f"the sample for {each.name!r} has shape {values.shape}, the model takes {_shape(each)}",
            hint="rows come first; images are mostly (rows, channels, height, width)",
        )
    return np.ascontiguousarray(_cast(values, each))


def _cast(values: Array, each: TensorInput) -> Array:
    if each.dtype == "string":
        if values.dtype.kind not in "OUS" or any(not isinstance(v, (str, bytes)) for v in values.ravel()[:1000]):
            raise SampleError(f"the input {each.name!r} takes texts, the sample has {values.dtype}")
        return np.asarray(np.vectorize(str, otypes=[object])(values))
    try:
        with np.errstate(invalid="ignore", over="ignore"):
            cast_to = values.astype(each.dtype)
    except (TypeError, ValueError) as error:
        raise SampleError(f"the input {each.name!r} takes {each.dtype}, the sample has {values.dtype}") from error
    if cast_to.dtype.kind in "iub" and not np.array_equal(cast_to.astype(np.float64), values.astype(np.float64)):
        raise SampleError(
            f"the input {each.name!r} takes {each.dtype}, and the sample has numbers that this type can't hold",
            hint="give it as the model was trained on",
        )
    return np.asarray(cast_to)


def _columns(each: TensorInput, values: Array, labels: list[str] | None) -> list[Column]:
    dtype = cast("DType", each.dtype)
    if values.ndim != 2 or values.shape[1] == 1 or values.shape[1] > _MOST_NAMED_COLUMNS:
        name = labels[0] if labels and values.ndim == 2 and values.shape[1] == 1 else each.name
        return [Column(name, dtype, each.name)]
    names = labels or [f"{each.name}{at}" for at in range(values.shape[1])]
    return [Column(name, dtype, each.name, at) for at, name in enumerate(names)]


def _shape(each: TensorInput) -> str:
    return (
        "("
        + ", ".join("rows" if not at else "any" if size is None else str(size) for at, size in enumerate(each.shape))
        + ")"
    )


def _listed(inputs: Sequence[TensorInput]) -> str:
    return ", ".join(f"{each.name} {each.dtype}{_shape(each)}" for each in inputs)
