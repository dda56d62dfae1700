"""Refusing values that break a rule of the bundle's contract whose action is to refuse."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from shoal_agent.runtime.conversion import shown
from shoal_agent.runtime.errors import Fault
from shoal_protocol.bundle.contract import Rule
from shoal_protocol.bundle.schema import FieldSpec
from shoal_protocol.profile.grid import category_text

Array = npt.NDArray[Any]


def rule_faults(rule: Rule, field: FieldSpec, values: Array) -> list[Fault]:
    """Return the fault of the first row that breaks a rule; none does: no fault.

    Args:
        rule: Its action is to refuse; of a kind that is unknown here, or doesn't fit the type, it refuses nothing.
        field: The feature.
        values: Its values, rows first.
    """
    rows = values.reshape(len(values), -1)
    broken = _broken(rule, field, rows)
    if not broken.any():
        return []
    row, column = (int(at) for at in np.argwhere(broken)[0])
    wanted = rule.words.removeprefix(f"{rule.field} must ").removeprefix("be ")
    return [Fault(field.name, f"{wanted} (contract)", shown(rows[row, column]), row)]


def _broken(rule: Rule, field: FieldSpec, rows: Array) -> npt.NDArray[np.bool_]:
    none = np.zeros(rows.shape, dtype=np.bool_)
    is_number = rows.dtype.kind in "fiub"
    if rule.check == "range" and is_number:
        low, high = (-np.inf if rule.low is None else rule.low), (np.inf if rule.high is None else rule.high)
        bounds = np.array([low, high]).astype(rows.dtype if rows.dtype.kind == "f" else np.float64)
        return np.asarray((rows < bounds[0]) | (rows > bounds[1]))  # missing values break no range
    if rule.check == "missing" and rows.dtype.kind == "f":
        return np.isnan(rows)
    if rule.check == "missing" and not is_number:
        return np.array([[category_text(v) in {"", field.missing_sentinel} for v in row] for row in rows.tolist()])
    if rule.check == "categories":
        known = {"", field.missing_sentinel, *rule.categories}
        return np.array([[category_text(v) not in known for v in row] for row in rows.tolist()])
    return none
