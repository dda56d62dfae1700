"""Facts put into words and signs for people: how long ago, how much, how a state looks. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType


@dataclass(frozen=True)
class Look:
    """How a state is shown: `kind` chooses the colour, `sign` says the same without it."""

    kind: str
    sign: str


_GOOD, _WARN, _BAD = Look("good", "✓"), Look("warn", "!"), Look("bad", "✕")
_BUSY, _IDLE = Look("busy", "▸"), Look("", "○")
_WELL = ("accepted", "completed", "delivered", "passed", "pass", "healthy", "none", "released", "intact", "active")
_WORKING = (
    "assigned",
    "verified",
    "activating",
    "committed",
    "running",
    "rolling",
    "soaking",
    "working",
    "scheduled",
    "downloading",
    "verifying",
    "preflight",
    "trial",
)
_DOUBTFUL = ("awaiting_approval", "deprecated", "inconclusive", "warning", "lost", "too_few")
_WRONG = ("failed", "fail", "drift", "rejected", "revoked", "denied", "no_model", "critical", "error")

_LOOKS: Mapping[str, Look] = MappingProxyType(
    {
        **dict.fromkeys(_WELL, _GOOD),
        **dict.fromkeys(_WORKING, _BUSY),
        **dict.fromkeys(_DOUBTFUL, _WARN),
        **dict.fromkeys(_WRONG, _BAD),
        "online": Look("good", "●"),
        "paused": Look("warn", "‖"),
        "rolling_back": Look("warn", "↶"),
        "on_its_way_back": Look("warn", "↶"),
        "returned": Look("", "↶"),
        "rolled_back": Look("bad", "↶"),
        "info": Look("info", "i"),
        "acknowledged": Look("", "✓"),
    }
)

_CAUSES: Mapping[str, str] = MappingProxyType(
    {
        "location": "the typical value moved",
        "shape": "the spread or shape of the values changed",
        "cells": "some values became much more or less frequent",
        "range": "values fall outside the range seen in training",
        "missing": "the share of missing values changed",
    }
)


def look_of(state: object) -> Look:
    """Return how a state is shown; an unknown one is neutral.

    >>> look_of("fail").sign
    '✕'
    """
    return _LOOKS.get(str(state).lower(), _IDLE)


def words(state: object) -> str:
    """Write a state's name as people do.

    >>> words("awaiting_approval")
    'awaiting approval'
    """
    return str(state).lower().replace("_", " ")


def cause_of(view: str | None) -> str:
    """Say what a view that fired means."""
    return _CAUSES.get(view or "", "the values changed")


def span(seconds: float) -> str:
    """Write a span of time in its two largest units.

    >>> span(0.4), span(75), span(3600 * 26)
    ('0.4 s', '1 min 15 s', '1 d 2 h')
    """
    seconds = abs(seconds)
    if seconds < 10 and seconds != int(seconds):
        return f"{seconds:.1f} s"
    left = int(seconds)
    parts = []
    for unit, size in (("d", 86_400), ("h", 3600), ("min", 60), ("s", 1)):
        amount, left = divmod(left, size)
        if amount:
            parts.append(f"{amount} {unit}")
        elif parts:
            break
    return " ".join(parts[:2]) or "0 s"


def ago(at: float, now: float) -> str:
    """Say how long ago an instant was, or how soon it will be.

    >>> ago(100.0, 100.2), ago(40.0, 100.0), ago(160.0, 100.0)
    ('now', '1 min ago', 'in 1 min')
    """
    past = now - at
    if abs(past) < 1:
        return "now"
    largest = " ".join(span(float(int(abs(past)))).split(" ")[:2])
    return f"{largest} ago" if past > 0 else f"in {largest}"


def percent(share: float | None) -> str:
    """Write a share of 1 in percent.

    >>> percent(0.051), percent(1), percent(None)
    ('5.1 %', '100 %', '–')
    """
    return "–" if share is None else f"{share * 100:.3g} %"


def amount(value: float | None) -> str:
    """Write a number with as many digits as mean something.

    >>> amount(1234567), amount(0.12345), amount(None)
    ('1,234,567', '0.123', '–')
    """
    if value is None:
        return "–"
    return f"{value:,.0f}" if float(value).is_integer() or abs(value) >= 1000 else f"{value:.3g}"


def size(size_bytes: float | None) -> str:
    """Write a size in bytes.

    >>> size(512), size(1536000)
    ('512 B', '1.5 MB')
    """
    if size_bytes is None:
        return "–"
    value = float(size_bytes)
    for unit in ("B", "kB", "MB", "GB"):
        if value < 1000 or unit == "GB":
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1000
    return ""


def short_digest(digest: str) -> str:
    """Shorten a digest to what tells bundles apart.

    >>> short_digest("sha256:0123456789abcdef")
    '0123456789ab'
    """
    return digest.removeprefix("sha256:")[:12]


def plural(count: int, noun: str) -> str:
    """Write a count with its noun.

    >>> plural(1, "device"), plural(30, "device")
    ('1 device', '30 devices')
    """
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"
