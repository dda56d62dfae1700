"""Rows from which a model's figures come, and what the converted model says on them.

Owns the two roles that rows can have: the sample, which may be training data, and validation data, which the model has
never seen. Each figure of a bundle says of which of the two it is.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from shoal_converter.errors import SampleError
from shoal_converter.sample import Column, Sample
from shoal_protocol.profile.quality import DataKind

Array = npt.NDArray[Any]


@dataclass(frozen=True, eq=False)
class Evidence:
    """Labelled or unlabelled rows, answered by the ONNX model.

    Attributes:
        kind: Whether these are the sample or validation data.
        tensors: Inputs by name, rows first.
        found: Outputs by name.
        truth: Labels or values of shape (N,), or none.
        columns: Columns by which figures are split, by name, shape (N,).
    """

    kind: DataKind
    tensors: Mapping[str, Array]
    found: Mapping[str, Array]
    truth: Array | None = None
    columns: Mapping[str, Array] = field(default_factory=dict)

    @property
    def rows(self) -> int:
        """Number of rows."""
        return len(next(iter(self.tensors.values())))

    def thinned(self, most: int) -> Evidence:
        """Return at most so many rows, evenly spread."""
        rows = self.rows
        if rows <= most:
            return self
        kept = np.unique(np.linspace(0, rows - 1, most).astype(np.int64))
        return replace(
            self,
            tensors={name: values[kept] for name, values in self.tensors.items()},
            found={name: values[kept] if len(values) == rows else values for name, values in self.found.items()},
            truth=None if self.truth is None else self.truth[kept],
            columns={name: values[kept] for name, values in self.columns.items()},
        )


def as_fed(validation: Sample, like: Sample) -> Sample:
    """Return validation rows with the element types of the sample, which are the model's.

    Raises:
        SampleError: Other columns than the sample's, or numbers that its type can't hold.
    """
    if [column.name for column in validation.columns] != [column.name for column in like.columns]:
        raise SampleError(
            f"the validation data has {len(validation.columns)} columns, the sample {len(like.columns)}; "
            "expected the same ones"
        )
    tensors = dict(validation.tensors)
    for have, want in zip(validation.columns, like.columns, strict=True):
        if have.dtype != want.dtype:
            tensors[want.tensor] = _cast(have, want, validation.tensors[have.tensor])
    return replace(validation, columns=like.columns, tensors={name: tensors[name] for name in like.tensors})


def _cast(have: Column, want: Column, values: Array) -> Array:
    texts = "string" in {have.dtype, want.dtype}
    if texts or (want.dtype == "int64" and not np.array_equal(values, np.round(values))):
        raise SampleError(
            f"column {want.name!r} is {have.dtype} in the validation data and {want.dtype} in the sample",
            hint="read both files in the same way, and let the sample have the missing values that occur",
        )
    return values.astype(want.dtype)
