"""Plain rows: the form of ``POST /v1/predict`` for those who have records, not tensors.

``[{"age": 34, "city": "Bern"}]`` goes in; for each row its outputs by name come out, probabilities by class.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec
import numpy.typing as npt

from shoal_agent.serving.inference_protocol import RequestError
from shoal_protocol.bundle.schema import ModelSchema

MAX_ROWS = 65_536

_rows_decoder = msgspec.json.Decoder(list[dict[str, Any]])
_object_decoder = msgspec.json.Decoder(dict[str, Any])


def parse_rows(body: bytes, *, most: int | None = MAX_ROWS) -> list[dict[str, Any]]:
    """Parse a body: a list of rows, ``{"rows": [...]}``, or one row alone.

    Args:
        body: JSON.
        most: Rows that are taken; none: any number.

    Raises:
        RequestError: It is none of these, or too long.
    """
    try:
        rows = _rows_decoder.decode(body) if body.lstrip()[:1] == b"[" else _from_object(_object_decoder.decode(body))
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise RequestError(f'the body is no list of rows such as [{{"age": 34}}]: {error}') from error
    if not rows or (most is not None and len(rows) > most):
        raise RequestError(f"the body has {len(rows)} rows, expected {'some' if most is None else f'1 to {most}'}")
    return rows


def answer_rows(prediction: Mapping[str, npt.NDArray[Any]], schema: ModelSchema) -> list[dict[str, Any]]:
    """Turn a prediction into one object a row.

    Args:
        prediction: Each output, rows first.
        schema: Gives the texts of the classes.
    """
    classes = {output.name: output.classes for output in schema.outputs}
    columns = {name: _column(array, classes.get(name)) for name, array in prediction.items()}
    count = max((len(values) for values in columns.values()), default=0)
    return [{name: values[at] for name, values in columns.items() if at < len(values)} for at in range(count)]


def _from_object(document: dict[str, Any]) -> list[dict[str, Any]]:
    rows = document.get("rows")
    if isinstance(rows, list) and len(document) == 1:
        return msgspec.convert(rows, list[dict[str, Any]])
    return [document]


def _column(array: npt.NDArray[Any], classes: tuple[str, ...] | None) -> list[Any]:
    values: Any = array.tolist()
    if array.ndim < 2:
        return values if array.ndim else [values]
    width = array.size // max(1, len(array))
    if width != 1 and (classes is None or len(classes) != width):
        return list(values)
    if array.ndim > 2:
        values = array.reshape(-1, width).tolist()
    if width == 1 or classes is None:
        return [value for (value,) in values]
    return [dict(zip(classes, row, strict=True)) for row in values]


def as_json(document: Mapping[str, Any]) -> bytes:
    """Encode an answer; NaN and infinities become ``null``."""
    return msgspec.json.encode(document)
