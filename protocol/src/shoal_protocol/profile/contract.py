"""Counting how many rows break the rules of a contract: a rule is a stream whose grid has its bounds as edges.

So rules cost a device what streams cost, and add up exactly; only one number a rule travels. Bounds are held to five
digits of the range, always in favour of the value: devices count in float32.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from shoal_protocol.bundle.contract import Rule
from shoal_protocol.bundle.schema import FieldSpec
from shoal_protocol.profile.grid import BELOW, MISSING, OTHER, CategoricalGrid, Grid, NumericGrid
from shoal_protocol.profile.profile import Counts, Stream

_CELLS = 8
_INSIDE = 5
_KNOWN = frozenset({"range", "categories", "missing"})


def contract_streams(rules: Sequence[Rule], fields: Sequence[FieldSpec]) -> tuple[Stream, ...]:
    """Return a stream for each rule, in order; of rules that can't be counted here one of an unknown kind.

    Args:
        rules: Of the bundle.
        fields: Its features.
    """
    known = {field.name: field for field in fields}
    return tuple(_stream(at, rule, known) for at, rule in enumerate(rules))


def violations(rules: Sequence[Rule], counts: Sequence[Counts]) -> tuple[int, ...]:
    """Return how many rows break each rule.

    Args:
        rules: Of the bundle.
        counts: Fine counts of the stream of each.
    """
    return tuple(int(_broken(rule, cells)) for rule, cells in zip(rules, counts, strict=True))


def _stream(at: int, rule: Rule, fields: Mapping[str, FieldSpec]) -> Stream:
    field = fields.get(rule.field)
    if field is None or rule.check not in _KNOWN or (rule.check == "range" and field.dtype == "string"):
        return Stream(f"rule {at}", "input", CategoricalGrid(()), "", None, "nothing")
    return Stream(f"rule {at}", "input", _grid(rule, field), field.tensor, field.column)


def _grid(rule: Rule, field: FieldSpec) -> Grid:
    if rule.check == "range":
        return range_grid(rule.low, rule.high)
    sentinel = () if field.missing_sentinel is None else (field.missing_sentinel,)
    if rule.check == "categories":
        return CategoricalGrid((*(c for c in rule.categories if c not in sentinel), *sentinel))
    return CategoricalGrid(sentinel) if field.dtype == "string" else range_grid(0.0, 1.0)


def _broken(rule: Rule, cells: Counts) -> int:
    if rule.check == "range":
        return int((cells[BELOW] if rule.low is not None else 0) + (cells[-1] if rule.high is not None else 0))
    if rule.check == "categories":
        return int(cells[OTHER])
    if rule.check == "missing":  # after missing and other a text has the sentinel of missing ones, a number its range
        return int(cells[MISSING] + (cells[2] if len(cells) == OTHER + 2 else 0))
    return 0


def range_grid(low: float | None, high: float | None) -> NumericGrid:
    """Return a grid whose cell 1 lies below `low` and whose last lies above `high`; at least one is given."""
    if low is not None and high is not None:
        width, start = (high - low) / _INSIDE, low
    else:
        bound = low if low is not None else high or 0.0
        width = max(abs(bound), 1.0)
        start = bound if low is not None else bound - _INSIDE * width
    largest = max(abs(start), abs(start + _INSIDE * width))
    width = max(width, largest * 1e-5, 1e-30)
    slack = 1e-5 + 2e-6 * largest / width
    return NumericGrid(
        start - (2 + slack) * width, (1 - 0.4 * slack) / width, cells=_CELLS, coarse=(0, 1, 2, _CELLS - 1)
    )
