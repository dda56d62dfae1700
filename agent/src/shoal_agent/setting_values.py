"""What the words of a setting may be: parsers that return a value, or raise ValueError.

Used by `shoal_agent.settings` alone, which says in words what each of them expects.
"""

from __future__ import annotations

from shoal_agent.logs import FORMATS, LEVELS
from shoal_protocol.errors import ContentError
from shoal_protocol.maintenance import parse_windows


def keep_alive(text: str) -> int:
    """Parse seconds that brokers take."""
    value = int(text)
    if not 5 <= value <= 1200:
        raise ValueError(text)
    return value


def positive(text: str) -> float:
    """Parse a number above 0."""
    value = float(text)
    if not value > 0:
        raise ValueError(text)
    return value


def span_or_none(text: str) -> float:
    """Parse a number from 0 on."""
    value = float(text)
    if not value >= 0:
        raise ValueError(text)
    return value


def share(text: str) -> float:
    """Parse a number from 0 to 1."""
    value = float(text)
    if not 0 <= value <= 1:
        raise ValueError(text)
    return value


def count(text: str) -> int:
    """Parse a whole number, 1 or more."""
    value = int(text)
    if value < 1:
        raise ValueError(text)
    return value


def duration(text: str) -> float:
    """Parse a number, 0 or more."""
    value = float(text)
    if not 0 <= value < float("inf"):
        raise ValueError(text)
    return value


def addresses(text: str) -> tuple[str, ...]:
    """Parse base URLs with commas between."""
    from urllib.parse import urlsplit  # noqa: PLC0415 - only where somebody gives some

    found = tuple(one.strip().rstrip("/") for one in text.split(",") if one.strip())
    for one in found:
        parts = urlsplit(one)
        if parts.scheme not in {"http", "https"} or not parts.hostname or "@" in parts.netloc or parts.query:
            raise ValueError(text)
    return found


def size(text: str) -> int:
    """Parse a whole number, 0 or more."""
    value = int(text)
    if value < 0:
        raise ValueError(text)
    return value


def activation(text: str) -> str:
    """Take one of the two ways to activate."""
    if text not in {"beside", "stop-then-load"}:
        raise ValueError(text)
    return text


def windows(text: str) -> str:
    """Return windows in their one form; a list of TOML may stand for several."""
    try:
        return "; ".join(map(str, parse_windows(text)))
    except ContentError as error:
        raise ValueError(text) from error


def absolute_path(text: str) -> str:
    """Take an absolute path, or nothing."""
    if text and not text.startswith("/"):
        raise ValueError(text)
    return text


def hook_time(text: str) -> float:
    """Parse seconds above 0, at most 300."""
    value = positive(text)
    if value > 300:
        raise ValueError(text)
    return value


def level(text: str) -> str:
    """Take one of the levels of a log."""
    if text not in LEVELS:
        raise ValueError(text)
    return text


def form(text: str) -> str:
    """Take one of the forms of a log."""
    if text not in FORMATS:
        raise ValueError(text)
    return text
