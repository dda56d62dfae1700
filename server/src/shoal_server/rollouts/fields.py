"""Reading a mapping field by field, so that all its faults are told together.

Owns the reader and the parsers of plain values. Knows no plan: what may be in one is in `plan`.
"""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, TypeVar

from shoal_protocol.errors import ShoalError
from shoal_server.rollouts.quantities import parse_duration

MAX_ITEMS = 20

_T = TypeVar("_T")


class Reader:
    """One mapping of the document: each read notes its fault instead of raising."""

    def __init__(self, document: Mapping[str, Any], where: str, faults: list[dict[str, str]]) -> None:
        # YAML 1.1 reads the key `on` as true, and JSON then writes it as "true".
        self._document = {"on" if str(key).lower() == "true" else str(key): value for key, value in document.items()}
        self._where = where
        self._faults = faults
        self._known: list[str] = []

    def fault(self, what: str, key: str = "") -> None:
        """Note a fault of a key, or of the whole mapping."""
        self._faults.append({"where": ".".join(part for part in (self._where, key) if part), "what": what})

    def has(self, key: str) -> bool:
        """Tell whether the key is there, which then counts as known."""
        self._known.append(key)
        return key in self._document

    def read(self, key: str, parse: Callable[[object], _T], default: _T) -> _T:
        """Return the parsed value, or the default when it is absent or wrong."""
        if not self.has(key):
            return default
        try:
            return parse(self._document[key])
        except (ValueError, ShoalError) as error:
            self.fault(error.message if isinstance(error, ShoalError) else str(error), key)
            return default

    def require(self, key: str, parse: Callable[[object], _T], default: _T) -> _T:
        """Return the parsed value; absence is a fault."""
        if not self.has(key):
            self.fault("is missing", key)
        return self.read(key, parse, default)

    def refuse(self, key: str, why: str) -> None:
        """Note a fault when a key is there that can't be obeyed."""
        if self.has(key):
            self.fault(why, key)

    def child(self, key: str) -> Reader | None:
        """Return the reader of a mapping inside this one, None when it is absent or no mapping."""
        if not self.has(key):
            return None
        inner = self._document[key]
        if not isinstance(inner, Mapping):
            self.fault(f"expected a mapping, got {inner!r:.60}", key)
            return None
        return Reader(inner, ".".join(part for part in (self._where, key) if part), self._faults)

    def children(self, key: str) -> list[Reader]:
        """Return the readers of a list of mappings."""
        nothing: Sequence[Mapping[str, Any]] = ()
        listed = self.read(key, _mappings, nothing)
        return [Reader(inner, f"{key}[{place}]", self._faults) for place, inner in enumerate(listed, start=1)]

    def close(self) -> None:
        """Note a fault for each key that nothing has asked for."""
        for key in self._document:
            if key not in self._known:
                near = difflib.get_close_matches(key, self._known, n=1)
                known = f"did you mean {near[0]!r}?" if near else f"known are {', '.join(sorted(set(self._known)))}"
                self.fault(f"is not a key of a plan; {known}", key)


def _mappings(value: object) -> Sequence[Mapping[str, Any]]:
    if isinstance(value, list) and 1 <= len(value) <= MAX_ITEMS and all(isinstance(one, Mapping) for one in value):
        return value
    raise ValueError(f"expected a list of 1 to {MAX_ITEMS} mappings")


def matching(pattern: re.Pattern[str], what: str) -> Callable[[object], str]:
    """Make the parser of text that matches a pattern as a whole; `what` says what is expected."""

    def parse(value: object) -> str:
        if isinstance(value, str) and pattern.fullmatch(value):
            return value
        raise ValueError(f"expected {what}, got {value!r:.80}")

    return parse


def choice(*known: str) -> Callable[[object], str]:
    """Make the parser of one of some words."""

    def parse(value: object) -> str:
        if isinstance(value, str) and value in known:
            return value
        raise ValueError(f"expected {' or '.join(known)}, got {value!r:.60}")

    return parse


def count(lowest: int) -> Callable[[object], int]:
    """Make the parser of whole numbers from `lowest`."""

    def parse(value: object) -> int:
        if isinstance(value, int) and not isinstance(value, bool) and value >= lowest:
            return value
        raise ValueError(f"expected a whole number from {lowest}, got {value!r:.60}")

    return parse


def number(low: float, high: float) -> Callable[[object], float]:
    """Make the parser of numbers from `low` to `high`."""

    def parse(value: object) -> float:
        if isinstance(value, int | float) and not isinstance(value, bool) and low <= value <= high:
            return float(value)
        raise ValueError(f"expected a number from {low:g} to {high:g}, got {value!r:.60}")

    return parse


def flag(value: object) -> bool:
    """Parse true or false."""
    if isinstance(value, bool):
        return value
    raise ValueError(f"expected true or false, got {value!r:.60}")


def positive_duration(value: object) -> float:
    """Parse a duration above zero, to seconds."""
    duration = parse_duration(value)
    if not 0 < duration < math.inf:
        raise ValueError(f"expected a duration above zero, got {value!r:.60}")
    return duration


def instant(value: object) -> float | None:
    """Parse a time as RFC 3339, or as YAML reads one, to seconds since the epoch; UTC unless it names a zone."""
    moment = datetime.fromisoformat(value) if isinstance(value, str) else value
    if isinstance(moment, datetime):
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    raise ValueError(f"expected a time such as 2026-12-01T22:00:00Z, got {value!r:.60}")
