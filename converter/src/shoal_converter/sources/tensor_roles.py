"""What the outputs of a foreign graph mean: label, probabilities, scores or value.

A graph says names, types and shapes and nothing else, so this is a judgement, by type first and then by what the sample
shows. Where it is not clear the role is ``other``, and nothing is claimed.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, cast

import numpy as np
import numpy.typing as npt

from shoal_protocol.bundle.schema import DType, OutputSpec

Array = npt.NDArray[Any]

_LABEL = re.compile(r"label|class|^pred", re.IGNORECASE)
_SCORES = re.compile(r"logit|score|decision", re.IGNORECASE)
_SUM_TOLERANCE = 1e-3


def output_specs(
    found: Mapping[str, Array], shapes: Mapping[str, tuple[int | None, ...]], classes: tuple[str, ...] | None
) -> tuple[OutputSpec, ...]:
    """Describe the outputs.

    Args:
        found: On the sample, rows first.
        shapes: As the graph states them, none where free.
        classes: Texts of the classes, if the graph says them.
    """
    roles: dict[str, Any] = {}
    for name, values in found.items():
        roles[name] = _role(name, values, alone=len(found) == 1, taken=set(roles.values()))
    return tuple(
        OutputSpec(
            name=name,
            dtype=cast("DType", "string" if values.dtype.kind in "OUS" else str(values.dtype)),
            shape=(None, *shapes.get(name, values.shape)[1:]),
            role=roles[name],
            classes=_classes(values, roles[name], classes),
        )
        for name, values in found.items()
    )


def task_of_outputs(outputs: tuple[OutputSpec, ...]) -> Any:
    """Return what kind of model gives such outputs."""
    roles = {output.role for output in outputs}
    if roles & {"label", "probabilities"}:
        return "classification"
    return "regression" if "value" in roles else "other"


def by_role(found: Mapping[str, Array], outputs: Sequence[OutputSpec]) -> dict[str, Array]:
    """Return outputs by name, and label and value by these names too, as figures look for them."""
    named = dict(found)
    for output in outputs:
        if output.role in {"label", "value"} and output.name in found:
            named.setdefault(output.role, found[output.name])
    return named


def _role(name: str, values: Array, *, alone: bool, taken: set[str]) -> str:
    flat = values.ndim == 1 or (values.ndim == 2 and values.shape[1] == 1)
    if values.dtype.kind in "OUSiu" and flat and "label" not in taken and (not alone or _LABEL.search(name)):
        return "label"
    if values.dtype.kind != "f":
        return "other"
    if "probabilities" not in taken and _are_probabilities(values):
        return "probabilities"
    if _SCORES.search(name) and values.ndim <= 2 and not flat:
        return "scores"
    return "value" if flat and alone else "other"


def _are_probabilities(values: Array) -> bool:
    if values.ndim != 2 or values.shape[1] < 2 or not np.isfinite(values).all():
        return False
    near = bool((np.abs(values.sum(axis=1, dtype=np.float64) - 1) < _SUM_TOLERANCE).all())
    return near and bool((values >= 0).all())


def _classes(values: Array, role: str, classes: tuple[str, ...] | None) -> tuple[str, ...] | None:
    if classes is None or role not in {"label", "probabilities"}:
        return None
    return classes if role == "label" or values.shape[1] == len(classes) else None
