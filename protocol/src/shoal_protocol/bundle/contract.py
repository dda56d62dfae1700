"""Data-quality contracts: what the values of a model's features must be, rule by rule.

Owns the rules, their written form (``contract.yaml``, already parsed) and their words. Leaves counting on devices to
`shoal_protocol.profile.contract`. A rule is about one feature; breaking it is counted, or refuses the request.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import date
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
    came = _not_a_contract(document)
    if came:
        raise ContentError(
            f"a contract has a mapping `fields` of features and their rules; {came}", hint=f"write: {_EXAMPLE}"
        )
    faults: list[str] = [f"unknown key {key!r:.40} beside `fields`" for key in document if key != "fields"]
    rules: list[Rule] = []
    for key, entry in document["fields"].items():
        name = key if isinstance(key, str) else category_text(key)  # a feature may be called 1
        if fields is not None and name not in fields:
            near, some = _meant(name, fields), ", ".join(sorted(fields)[:12])
            faults.append(f"{name!r} is no feature of this model{near or f' (there are: {some})'}")
        elif not isinstance(entry, Mapping):
            faults.append(f"{name}: expected rules such as range: [0, 1], got {_came(entry)}")
        else:
            rules += _rules(name, entry, faults)
    if len(rules) > MOST_RULES:
        faults.append(f"{len(rules)} rules, at most {MOST_RULES} are counted")
    if faults:
        raise ContentError("; ".join(faults[:20]), hint=f"a contract looks like this: {_EXAMPLE}")
    return tuple(rules)


def _not_a_contract(document: Any) -> str:
    """Say what came instead of a contract; empty: it has the form of one."""
    if not isinstance(document, Mapping):
        return f"this is {_came(document)}"
    if "fields" not in document:
        return f"there is no `fields` among {', '.join(map(str, document))[:80] or 'nothing'}"
    return "" if isinstance(document["fields"], Mapping) else f"`fields` is {_came(document['fields'])}"


def _rules(name: str, entry: Mapping[Any, Any], faults: list[str]) -> list[Rule]:
    """Read what is said of one feature; adds a fault for each thing that is wrong with it."""
    unknown = [key for key in entry if key not in _KEYS]
    listed = ", ".join(sorted(_KEYS))
    faults += [f"{name}: unknown rule {key!r:.40}{_meant(key, _KEYS) or f'; there are {listed}'}" for key in unknown]
    action, tolerate = entry.get("action", "count"), entry.get("tolerate", 0)
    wrong = []
    if action not in ("count", "refuse"):  # no set: it may be a list
        wrong.append(f"{name}: action is {_came(action)}, expected count or refuse")
    if not _is_share(tolerate):
        wrong.append(f"{name}: tolerate is {_came(tolerate)}, expected a share of rows from 0 to below 1, such as 0.01")
    wrong += [fault for key, fault_in in _FAULTS.items() if key in entry and (fault := fault_in(name, entry[key]))]
    checks = entry.keys() & _FAULTS.keys()
    if not checks and not unknown:
        wrong.append(f"{name}: no rule; give range, categories or missing")
    if action == "refuse" and checks == {"missing"} and _is_share(entry["missing"]) and entry["missing"]:
        wrong.append(f"{name}: a share above zero can't be refused row by row: write missing: 0, or action: count")
    faults += wrong
    return [] if wrong else _read(name, entry, tolerate=tolerate, action=action)


def _read(name: str, entry: Mapping[Any, Any], *, tolerate: float, action: Literal["count", "refuse"]) -> list[Rule]:
    """Return the rules of an entry without faults."""
    found = []
    if "range" in entry:
        low, high = (None if bound is None else float(bound) for bound in entry["range"])
        found.append(Rule(field=name, check="range", low=low, high=high, tolerate=tolerate, action=action))
    if "categories" in entry:
        texts = tuple(dict.fromkeys(map(category_text, entry["categories"])))
        found.append(Rule(field=name, check="categories", categories=texts, tolerate=tolerate, action=action))
    if "missing" in entry:  # a share above zero can't be refused row by row
        share = entry["missing"]
        found.append(Rule(field=name, check="missing", tolerate=share, action="count" if share else action))
    return found


def _range_fault(name: str, given: Any) -> str:
    expected = f"{name}: range is {_came(given)}, expected [low, high], one of which may be null"
    if not isinstance(given, list) or len(given) != 2 or given == [None, None]:
        return expected
    if not all(bound is None or (_is_number(bound) and math.isfinite(bound)) for bound in given):
        return f"{expected}, both numbers without quotes"
    low, high = given
    if low is not None and high is not None and low > high:
        return f"{name}: range is [{low}, {high}], whose low end lies above its high one; turn them around"
    return ""


def _categories_fault(name: str, given: Any) -> str:
    if isinstance(given, list) and any(isinstance(category, bool) for category in given):
        return f'{name}: YAML reads yes, no, on, off, true and false as truth values: write "no" in quotes'
    if isinstance(given, list) and "" in map(category_text, given):
        return f"{name}: categories has an empty value: how much may be missing is said by missing, such as 0.01"
    if not isinstance(given, list) or not given or not all(isinstance(c, (str, int, float)) for c in given):
        dates = any(isinstance(c, date) for c in given) if isinstance(given, list) else False
        return f"{name}: categories is {_came(given)}, expected a list of texts or numbers" + (
            "; write dates in quotes" if dates else ""
        )
    return ""


def _missing_fault(name: str, given: Any) -> str:
    if _is_share(given):
        return ""
    return (
        f"{name}: missing is {_came(given)}, expected the share of rows that may miss it, from 0 to below 1: "
        "5 in a hundred are 0.05"
    )


_FAULTS: Mapping[str, Callable[[str, Any], str]] = {
    "range": _range_fault,
    "categories": _categories_fault,
    "missing": _missing_fault,
}


def _came(value: Any) -> str:
    """Say what came, briefly."""
    if value is None:
        return "nothing"
    if isinstance(value, Mapping) and not isinstance(value, str):
        return f"a mapping ({', '.join(map(str, value))[:40]})"
    if isinstance(value, list):
        return f"the list [{', '.join(str(one) if isinstance(one, date) else repr(one) for one in value[:6])[:40]}]"
    return f"{value!r:.40}"


def _meant(word: Any, known: Collection[str]) -> str:
    """Name the known word that is nearest to one that is not; empty: none is near."""
    from difflib import get_close_matches  # noqa: PLC0415 - for faults only, and devices load this module

    near = get_close_matches(str(word), known, n=1)
    return f"; do you mean {near[0]}?" if near else ""


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
