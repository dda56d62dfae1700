"""Plain rows of plain tables of floats, read straight into the model's inputs: the short way of ``POST /v1/predict``.

Owns no wording: whatever it does not read at once (another form, a text, a missing or unknown feature) is left to
`plain_rows` and the model's input plan, which take more forms and say what is wrong. Invariant: what it does read, they
read as the same bytes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from shoal_agent.runtime.conversion import floats
from shoal_agent.runtime.inputs import float_tables
from shoal_agent.serving.plain_rows import MAX_ROWS
from shoal_protocol.bundle.schema import ModelSchema

_MOST_FEATURES = 512
"""Their names cost half a kilobyte each, for good."""


class RowTable:
    """Reads the rows of one schema.

    Args:
        schema: The bundle's.
    """

    def __init__(self, schema: ModelSchema) -> None:
        self.schema = schema
        self._tables = float_tables(schema) or []
        names = [name for _, features, _ in self._tables for name in features]
        dtypes = {dtype for _, _, dtype in self._tables}
        is_read = len(dtypes) == 1 and len(names) == len(schema.inputs) <= _MOST_FEATURES
        self._decoder = _decoder(names) if is_read else None
        self._width = len(names)
        self._dtype = self._tables[0][2] if self._tables else np.dtype(np.float32)

    def read(self, body: bytes) -> dict[str, npt.NDArray[Any]] | None:
        """Return the model's inputs, rows first; none: read it the long way, which may still take it."""
        if self._decoder is None:
            return None
        try:
            rows = self._decoder.decode(body)
        except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
            return None
        if not 0 < len(rows) <= MAX_ROWS:
            return None
        values = [value for row in rows for value in msgspec.structs.astuple(row)]
        whole = floats(values, self._dtype).reshape(len(rows), self._width)
        if len(self._tables) == 1:
            return {self._tables[0][0]: whole}
        feeds, at = {}, 0
        for tensor, features, _ in self._tables:
            feeds[tensor] = np.ascontiguousarray(whole[:, at : at + len(features)])
            at += len(features)
        return feeds


def _decoder(features: Sequence[str]) -> msgspec.json.Decoder[Any] | None:
    """Return what takes rows that have exactly these features; none where one's name can't be a field's."""
    fields = [f"f{at}" for at in range(len(features))]
    try:
        row = msgspec.defstruct(
            "Row",
            [(field, float | None) for field in fields],
            rename=dict(zip(fields, features, strict=True)),
            forbid_unknown_fields=True,
            gc=False,
        )
    except ValueError:
        return None
    return msgspec.json.Decoder(list[row])  # type: ignore[valid-type]  # made of this schema
