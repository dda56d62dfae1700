"""A prediction as columns of a table: one for each output, or one for each of its classes or entries.

``label`` stays ``label``; ``probabilities`` of three classes become ``probabilities.setosa`` and so on for each class;
an output of several numbers without names becomes ``embedding.0``, ``embedding.1``, ….
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from shoal_protocol.bundle.schema import ModelSchema, OutputSpec

Array = npt.NDArray[Any]


def column_names(schema: ModelSchema) -> tuple[str, ...]:
    """Return the names of all columns of a bundle's answers, in order."""
    return tuple(name for output in schema.outputs for name in _names(output))


def columns(outputs: Mapping[str, Array], schema: ModelSchema) -> dict[str, Array]:
    """Return the columns of some rows' answers.

    Args:
        outputs: Each output by name, rows first.
        schema: The bundle's.
    """
    found: dict[str, Array] = {}
    for output in schema.outputs:
        names, values = _names(output), outputs[output.name]
        if len(names) == 1:
            found[names[0]] = values if values.ndim == 1 else _single(values)
            continue
        flat = values.reshape(len(values), -1)
        found.update({name: np.ascontiguousarray(flat[:, at]) for at, name in enumerate(names)})
    return found


def _names(output: OutputSpec) -> tuple[str, ...]:
    sizes = output.shape[1:]
    if None in sizes:
        return (output.name,)  # of any width: a list a row
    width = math.prod(size or 1 for size in sizes)
    if width == 1:
        return (output.name,)
    classes = output.classes if output.classes is not None and len(output.classes) == width else None
    return tuple(f"{output.name}.{entry}" for entry in classes or range(width))


def _single(values: Array) -> Array:
    """Return one entry a row: the value, or where a row has several, all of them as a list."""
    flat = values.reshape(len(values), -1)
    if flat.shape[1] == 1:
        return np.ascontiguousarray(flat[:, 0])
    lists = np.empty(len(values), dtype=object)
    lists[:] = values.tolist()
    return lists
