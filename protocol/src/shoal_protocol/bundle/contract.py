"""Data-quality contracts: what the values of a model's features must be, rule by rule.

Owns the rules, their written form (``contract.yaml``, already parsed) and their words. Leaves counting on devices to
`shoal_protocol.profile.contract`. A rule is about one feature; breaking it is counted, or refuses the request.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

import msgspec

from shoal_protocol.canonical import rounded
from shoal_protocol.errors import ContentError
from shoal_protocol.profile.grid import category_text

if TYPE_CHECKING:
    from shoal_protocol.bundle.schema import FieldSpec

MOST_RULES = 1024
_UNPROMISED = 0.01
_KEYS = frozenset({"range", "categories", "missing", "tolerate", "action"})
_EXAMPLE = "fields: {age: {range: [0, 120], missing: 0.01}, city: {categories: [Bern, Basel], action: refuse}}"


class Rule(msgspec.Struct, frozen=True, kw_only=True):
    """One rule about one feature."""

    field: str
    check: str
    """``range``, ``categories`` or ``missing``; a rule of another kind is kept and not counted."""
    low: float | None = None
    high: float | None = None
    categories: tuple[str, ...] = ()
    tolerate: float = 0.0
    """Share of the rows that may break the rule before people are told."""
    action: Literal["count", "refuse"] = "count"
    """Whether a row that breaks it is answered and counted, or refused with an error that names the field."""

    @property
    def words(self) -> str:
        """The rule as a sentence about the feature."""
        if self.check == "range":
            return f"{self.field} must be {_range_words(self.low, self.high)}"
        if self.check == "categories":
            some = ", ".join(self.categories[:8]) + (", …" if len(self.categories) > 8 else "")
            return f"{self.field} must be one of {some}"
        if self.check == "missing":
            return f"{self.field} must not be missing"
        return f"{self.field} has a rule {self.check!r:.40} that this version doesn't know"

    def is_broken(self, violations: int, rows: int) -> bool:
        """Tell whether more rows break the rule than it tolerates."""
        return rows > 0 and violations > self.tolerate * rows


def _range_words(low: float | None, high: float | None) -> str:
    if low is None:
        return f"at most {high:g}"
    return f"at least {low:g}" if high is None else f"from {low:g} to {high:g}"


def parse_contract(document: Any, *, fields: Collection[str] | None = None) -> tuple[Rule, ...]:
    """Read the written form: ``{fields: {NAME: {range, categories, missing, tolerate, action}}}``.

    Args:
        document: What a YAML or JSON parser gave.
        fields: The features that there are; none: any name will do.

    Raises:
        ContentError: It names every fault.

    >>> [rule.words for rule in parse_contract({"fields": {"age": {"range": [0, 120], "missing": 0}}})]
    ['age must be from 0 to 120', 'age must not be missing']
    """
    if not isinstance(document, Mapping) or not isinstance(document.get("fields"), Mapping):
        raise ContentError("a contract has a mapping `fields` of features and their rules", hint=f"write: {_EXAMPLE}")
    faults: list[str] = [f"unknown key {key!r:.40} beside `fields`" for key in document if key != "fields"]
    rules: list[Rule] = []
    for name, entry in document["fields"].items():
        if fields is not None and name not in fields:
            faults.append(f"{name!r} is no feature of this model (there are: {', '.join(sorted(fields)[:12])})")
        elif not isinstance(entry, Mapping):
            faults.append(f"{name}: expected rules such as range: [0, 1], got {entry!r:.40}")
        else:
            rules += _rules(str(name), entry, faults)
    if len(rules) > MOST_RULES:
        faults.append(f"{len(rules)} rules, at most {MOST_RULES} are counted")
    if faults:
        raise ContentError("; ".join(faults[:20]), hint=f"a contract looks like this: {_EXAMPLE}")
    return tuple(rules)


def _rules(name: str, entry: Mapping[Any, Any], faults: list[str]) -> list[Rule]:
    faults += [
        f"{name}: unknown rule {key!r:.40}; there are {', '.join(sorted(_KEYS))}" for key in entry.keys() - _KEYS
    ]
    action, tolerate = entry.get("action", "count"), entry.get("tolerate", 0)
    if action not in {"count", "refuse"}:
        faults.append(f"{name}: action is {action!r:.40}, expected count or refuse")
        return []
    if not _is_share(tolerate):
        faults.append(f"{name}: tolerate is {tolerate!r:.40}, expected a share of rows such as 0.01")
        return []
    found = []
    if "range" in entry:
        bounds = _bounds(entry["range"])
        if bounds is None:
            faults.append(f"{name}: range is {entry['range']!r:.40}, expected [low, high], one of which may be null")
        else:
            low, high = bounds
            found.append(Rule(field=name, check="range", low=low, high=high, tolerate=tolerate, action=action))
    if "categories" in entry:
        given = entry["categories"]
        if isinstance(given, list) and any(isinstance(category, bool) for category in given):
            faults.append(f'{name}: YAML reads yes, no, on, off, true and false as truth values: write "no" in quotes')
        elif not isinstance(given, list) or not given or not all(isinstance(c, (str, int, float)) for c in given):
            faults.append(f"{name}: categories is {given!r:.40}, expected a list of texts or numbers")
        else:
            texts = tuple(dict.fromkeys(map(category_text, given)))
            found.append(Rule(field=name, check="categories", categories=texts, tolerate=tolerate, action=action))
    if "missing" in entry:
        share = entry["missing"]
        if not _is_share(share):
            faults.append(
                f"{name}: missing is {share!r:.40}, expected the share of rows that may miss it, such as 0.01"
            )
        else:  # a share above zero can't be refused row by row
            found.append(Rule(field=name, check="missing", tolerate=share, action="count" if share else action))
    if not found and not (entry.keys() & {"range", "categories", "missing"}):
        faults.append(f"{name}: no rule; give range, categories or missing")
    return found


def _bounds(given: Any) -> tuple[float | None, float | None] | None:
    if not isinstance(given, list) or len(given) != 2 or given == [None, None]:
        return None
    if not all(bound is None or (_is_number(bound) and math.isfinite(bound)) for bound in given):
        return None
    low, high = (None if bound is None else float(bound) for bound in given)
    return None if low is not None and high is not None and low > high else (low, high)


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _is_share(value: Any) -> bool:
    return _is_number(value) and 0 <= value < 1


def derived_contract(inputs: Sequence[FieldSpec]) -> dict[str, Any]:
    """Write a contract from what a schema says of the training data: a beginning for whoever knows the values.

    Ranges are the sample's, a tenth wider; categories those that it had; a feature that was never missing may not be.
    One row in a hundred may break a range or a list: nobody promised them, and a sample's largest value is not the
    largest that there is.

    Args:
        inputs: The features of a bundle's schema.

    Returns:
        The written form; features of which nothing is known are left out.
    """
    fields: dict[str, Any] = {}
    for field in inputs:
        rules: dict[str, Any] = {}
        if field.low is not None and field.high is not None and field.dtype not in {"string", "bool"}:
            margin = (field.high - field.low) / 10
            rules["range"] = [rounded(field.low - margin, 4), rounded(field.high + margin, 4)]
            if field.dtype.startswith(("int", "uint")):
                rules["range"] = [math.floor(field.low - margin), math.ceil(field.high + margin)]
        if field.categories:
            rules["categories"] = list(field.categories)
        if rules:
            rules["tolerate"] = _UNPROMISED
        if field.missing == "refused" and field.dtype.startswith(("float", "string")):
            rules["missing"] = 0
        if rules:
            fields[field.name] = rules
    return {"fields": fields}
