"""What shoalctl prints: aligned tables, facts and JSON; times and digests as people read them.

Owns the look. Text that came from devices is stripped of control characters, so that no device can steer a terminal.
"""

from __future__ import annotations

import json
import sys
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import click

NOTHING = "-"
_GOOD = frozenset(
    {
        "online",
        "accepted",
        "completed",
        "passed",
        "pass",
        "healthy",
        "running",
        "none",
        "active",
        "allowed",
        "delivered",
    }
)
_BAD = frozenset(
    {"failed", "fail", "drift", "rolled_back", "rolling_back", "revoked", "lost", "no_model", "critical", "denied"}
)
_NOTABLE = frozenset({"paused", "pending", "awaiting_approval", "inconclusive", "offline", "warning", "too_few"})


def print_json(value: Any) -> None:
    """Print a value for programs."""
    click.echo(json.dumps(value, indent=2, ensure_ascii=False))


def print_table(headers: Sequence[str], rows: Iterable[Sequence[Any]], *, empty: str) -> None:
    """Print rows under headers, each column as wide as it needs; `empty` tells what to type when there are none."""
    cells = [[plain(cell) for cell in row] for row in rows]
    if not cells:
        click.echo(empty)
        return
    for line in table_lines(headers, cells):
        click.echo(line)


def table_lines(headers: Sequence[str], rows: Sequence[Sequence[Any]]) -> list[str]:
    """Return the lines of a table, the first one its headers."""
    cells = [[plain(cell) for cell in row] for row in rows]
    widths = [max(_width(row[i]) for row in [list(headers), *cells]) for i in range(len(headers))]
    head = "  ".join(_padded(name.upper(), width) for name, width in zip(headers, widths, strict=True))
    body = ("  ".join(coloured(_padded(c, w), c) for c, w in zip(row, widths, strict=True)).rstrip() for row in cells)
    return [click.style(head.rstrip(), bold=True), *body]


def print_facts(facts: Mapping[str, Any]) -> None:
    """Print names with their values, one a line."""
    width = max((len(name) for name in facts), default=0)
    for name, value in facts.items():
        text = plain(value)
        click.echo(f"{name:<{width}}  {coloured(text, text)}")


def coloured(text: str, state: str) -> str:
    """Colour a known state; click drops the colour when the output is no terminal."""
    word = state.split(" ", 1)[0].lower()
    if word in _GOOD:
        return click.style(text, fg="green")
    if word in _BAD:
        return click.style(text, fg="red")
    if word in _NOTABLE:
        return click.style(text, fg="yellow")
    return text


def plain(value: Any) -> str:
    r"""Make any value one line of printable text.

    >>> plain("evil\x1b[2J"), plain(None), plain({"site": "bern"}), plain(0.123456789)
    ('evil?[2J', '-', 'site=bern', '0.1235')
    """
    if value is None or value == "":
        return NOTHING
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, Mapping):
        return plain(" ".join(f"{key}={inner}" for key, inner in value.items()))
    if isinstance(value, list | tuple | set | frozenset):
        return plain(", ".join(str(inner) for inner in value))
    return "".join("?" if unicodedata.category(c).startswith("C") else c for c in str(value))


def short_digest(digest: str | None) -> str:
    """Shorten a digest to what tells bundles apart.

    >>> short_digest("sha256:0123456789abcdef")
    'sha256:0123456789ab'
    """
    return NOTHING if not digest else digest[:19]


def ago(text: str | None, *, now: datetime | None = None) -> str:
    """Tell how long ago an RFC 3339 instant was.

    >>> ago("2026-11-21T09:00:00.000Z", now=datetime(2026, 11, 21, 9, 2, 30, tzinfo=UTC))
    '2 min ago'
    """
    if not text:
        return NOTHING
    try:
        seconds = ((now or datetime.now(UTC)) - datetime.fromisoformat(text)).total_seconds()
    except (ValueError, TypeError):
        return text
    past = seconds >= 0
    for unit, size in (("d", 86_400), ("h", 3600), ("min", 60)):
        if abs(seconds) >= size:
            amount = f"{int(abs(seconds) // size)} {unit}"
            return f"{amount} ago" if past else f"in {amount}"
    return f"{int(abs(seconds))} s ago" if past else f"in {int(abs(seconds))} s"


def percent(share: float | None) -> str:
    """Write a share of 1 in percent.

    >>> percent(0.05)
    '5 %'
    """
    return NOTHING if share is None else f"{share * 100:.3g} %"


def is_terminal() -> bool:
    """Tell whether a person watches the output."""
    return sys.stdout.isatty()


def _width(text: str) -> int:
    return sum(2 if unicodedata.east_asian_width(character) in "WF" else 1 for character in text)


def _padded(text: str, width: int) -> str:
    return text + " " * (width - _width(text))
