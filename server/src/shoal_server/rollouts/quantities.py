"""The quantities that a plan is written in: durations, shares and bounds.

Owns their text forms. `500ms`, `6s`, `30m`, `2h`, `3d`, also added up as `1h30m`; `5%` and `1pp` are shares of 1, a
bare number in a percent field counts percent; a bound is `<=` and a share.
"""

from __future__ import annotations

import math
import re

_UNITS_S = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0}
_DURATION = re.compile(r"(\d+(?:\.\d+)?)\s*(ms|s|m|h|d)\s*")
_SHARE = re.compile(r"(\d+(?:\.\d+)?)\s*(%|pp)?")


def parse_duration(text: object) -> float:
    """Return seconds.

    >>> parse_duration("1h30m")
    5400.0

    Raises:
        ValueError: Not a duration; a number without a unit is none.
    """
    if isinstance(text, str) and (body := text.strip()) and re.fullmatch(f"(?:{_DURATION.pattern})+", body):
        return math.fsum(float(number) * _UNITS_S[unit] for number, unit in _DURATION.findall(body))
    raise ValueError(f"expected a duration such as 500ms, 6s, 30m, 2h or 3d, got {text!r:.60}")


def parse_percent(value: object) -> float:
    """Return a share of 1 from `5`, `5.0` or `"5%"`.

    Raises:
        ValueError: Not between 0 and 100 percent.
    """
    if isinstance(value, int | float) and not isinstance(value, bool):
        share = value / 100
    elif isinstance(value, str) and (match := _SHARE.fullmatch(value.strip())) and match[2] != "pp":
        share = float(match[1]) / 100
    else:
        raise ValueError(f"expected a percentage such as 5 or '5%', got {value!r:.60}")
    if not 0 <= share <= 1:
        raise ValueError(f"expected 0 to 100 percent, got {value!r:.60}")
    return share


def parse_bound(text: object) -> float:
    """Return the largest share that `"<= 5%"`, `"<= 1pp"` or `"<= 0.05"` lets pass.

    Raises:
        ValueError: Not such a bound.
    """
    if isinstance(text, str) and text.strip().startswith("<="):
        match = _SHARE.fullmatch(text.strip().removeprefix("<=").strip())
        if match is not None:
            share = float(match[1]) / (100 if match[2] else 1)
            if share <= 1:
                return share
    raise ValueError(f"expected a bound such as '<= 5%', got {text!r:.60}")


def parse_floor(text: object) -> float:
    """Return the smallest share that `">= 93%"` or `">= 0.93"` lets pass.

    Raises:
        ValueError: Not such a bound.
    """
    if isinstance(text, str) and text.strip().startswith(">="):
        match = _SHARE.fullmatch(text.strip().removeprefix(">=").strip())
        if match is not None and match[2] != "pp":
            share = float(match[1]) / (100 if match[2] else 1)
            if share <= 1:
                return share
    raise ValueError(f"expected a bound such as '>= 93%' or '>= 0.93', got {text!r:.60}")


def duration_text(seconds: float) -> str:
    """Write seconds as a plan would.

    >>> duration_text(5400), duration_text(0.5)
    ('1h30m', '500ms')
    """
    left_ms = round(seconds * 1000)
    parts: list[str] = []
    for unit, size_ms in (("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1000), ("ms", 1)):
        count, left_ms = divmod(left_ms, size_ms)
        if count:
            parts.append(f"{count}{unit}")
    return "".join(parts[:2]) or "0s"
