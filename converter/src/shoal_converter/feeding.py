"""From rows as a person has them to the tensors that a bundle's model takes, by its schema.json.

Owns the checks on the way: every feature present, of its type, and missing only where the schema allows it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from shoal_converter.errors import SampleError
from shoal_converter.sources.sample_file import Table
from shoal_protocol.bundle.schema import FieldSpec, ModelSchema

Array = npt.NDArray[Any]


def feed(schema: ModelSchema, table: Table) -> dict[str, Array]:
    """Return the input tensors of a table's rows.

    Raises:
        SampleError: A feature is absent, of another type, or missing where that is refused.
    """
    columns = _columns(schema, table)
    rows = len(next(iter(columns.values())))
    tensors: dict[str, Array] = {}
    for spec in schema.tensors:
        dtype: Any = object if spec.dtype == "string" else spec.dtype
        tensors[spec.name] = np.empty((rows, spec.shape[1] or 1), dtype=dtype)
    for field in schema.inputs:
        tensors[field.tensor][:, field.column or 0] = _values(field, columns[field.name])
    return tensors


def _columns(schema: ModelSchema, table: Table) -> Mapping[str, Array]:
    names = [field.name for field in schema.inputs]
    if table.columns is None:
        matrix = np.asarray(table.matrix)
        matrix = matrix.reshape(-1, 1) if matrix.ndim == 1 else matrix
        if matrix.ndim != 2 or matrix.shape[1] != len(names) or not len(matrix):
            raise SampleError(f"the input has shape {matrix.shape}, the model takes (rows, {len(names)})")
        return {name: matrix[:, at] for at, name in enumerate(names)}
    absent = [name for name in names if name not in table.columns]
    if absent:
        raise SampleError(
            f"the input lacks {', '.join(absent[:10])}", hint=f"the model takes the columns {', '.join(names[:20])}"
        )
    return table.columns


def _values(field: FieldSpec, values: Array) -> Array:
    if field.dtype == "string":
        gaps = np.array([value is None or value != value for value in values.tolist()], dtype=bool)  # noqa: PLR0124 - NaN
        if gaps.any() and field.missing_sentinel is not None:
            values = np.where(gaps, field.missing_sentinel, values.astype(object))
        elif gaps.any():
            raise SampleError(f"{field.name} is missing in some rows, and the model does not take that")
        return values.astype(str).astype(object)
    try:
        numbers = values.astype(np.float64)
    except (TypeError, ValueError) as error:
        raise SampleError(f"{field.name} is {field.dtype}, the input has text in it: {error}") from error
    missing = np.isnan(numbers)
    if missing.any() and (field.missing == "refused" or field.dtype == "int64"):
        raise SampleError(f"{field.name} is missing in {int(missing.sum())} rows, and the model does not take that")
    return numbers if field.dtype == "bool" else values.astype(field.dtype)
