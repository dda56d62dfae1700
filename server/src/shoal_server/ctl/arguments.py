"""Words of a command line made into values: labels, spans of time, files with plans."""

from __future__ import annotations

import re
from collections.abc import Iterable
from datetime import datetime
from pathlib import Path
from typing import Any

from shoal_protocol.errors import CallerError
from shoal_protocol.yaml_nodes import repeated_keys
from shoal_server.ctl.errors import FileError

_SPAN = re.compile(r"(\d+(?:\.\d+)?)\s*(s|m|min|h|d)?")
_SECONDS = {None: 1, "s": 1, "m": 60, "min": 60, "h": 3600, "d": 86_400}


def parse_labels(words: Iterable[str]) -> dict[str, str]:
    """Split KEY=VALUE words; raises `CallerError`.

    >>> parse_labels(["site=bern", "line=a=b"])
    {'site': 'bern', 'line': 'a=b'}
    """
    labels = {}
    for word in words:
        key, sign, value = word.partition("=")
        if not key or not sign:
            raise CallerError(f"expected KEY=VALUE such as site=bern, got {word!r}")
        labels[key] = value
    return labels


def parse_seconds(text: str) -> float:
    """Read a span of time; raises `CallerError`.

    >>> parse_seconds("90"), parse_seconds("30m"), parse_seconds("1.5h")
    (90.0, 1800.0, 5400.0)
    """
    match = _SPAN.fullmatch(text.strip())
    if match is None:
        raise CallerError(f"expected a span of time such as 90s, 30m, 24h or 7d, got {text!r}")
    return float(match[1]) * _SECONDS[match[2]]


def parse_instant(text: str) -> datetime:
    """Read a time with its zone; raises `CallerError`.

    >>> parse_instant("2026-12-01T22:00:00Z").isoformat()
    '2026-12-01T22:00:00+00:00'
    """
    try:
        found = datetime.fromisoformat(text.strip())
    except ValueError as error:
        raise CallerError(f"expected a time such as 2026-12-01T22:00:00Z, got {text!r:.40}") from error
    if found.tzinfo is None:
        raise CallerError(f"{text} has no zone: write {found.isoformat()}Z for UTC")
    return found


_ONE_IN = re.compile(r"1\s*(?:in|/)\s*(\d+)")


def parse_share(text: str) -> float:
    """Read a probability; raises `CallerError`.

    >>> parse_share("0.01"), parse_share("5%"), parse_share("1 in 1000")
    (0.01, 0.05, 0.001)
    """
    words = text.strip().lower()
    match = _ONE_IN.fullmatch(words)
    try:
        if match is not None:
            return 1 / int(match[1])
        return float(words[:-1]) / 100 if words.endswith("%") else float(words)
    except (ValueError, ZeroDivisionError) as error:
        raise CallerError(f"expected a probability such as 0.01, 1% or '1 in 100', got {text!r:.40}") from error


def written(path: Path, text: str) -> None:
    """Write a file for people; raises `FileError`."""
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise FileError(f"{path} can't be written: {error.strerror or error}", hint="does its folder exist?") from error


def read_document(path: Path, *, like: str = "name: …, bundle: …") -> dict[str, Any]:
    """Read a mapping from a YAML or JSON file; `-` is standard input.

    Args:
        path: Of the file.
        like: How such a document begins, for errors.

    Raises:
        FileError: it can't be read, is no mapping, or has a key twice.
    """
    import sys  # noqa: PLC0415 - beside its only use

    import yaml  # noqa: PLC0415 - 20 ms that other commands needn't pay

    try:
        text = sys.stdin.read() if str(path) == "-" else path.read_text(encoding="utf-8")
        document = yaml.safe_load(text)
        twice = repeated_keys(yaml.compose(text, Loader=yaml.SafeLoader))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        tabs = "indent with spaces: YAML takes no tabs" if "'\\t'" in str(error) else ""
        raise FileError(f"{path} can't be read: {error}", hint=tabs) from error
    if not isinstance(document, dict):
        came = "nothing: it is empty" if document is None else f"a {type(document).__name__}"
        raise FileError(f"{path}: expected a mapping ({like}), got {came}")
    if twice:
        raise FileError(f"{path}: stands twice in a mapping: {', '.join(twice[:5])}", hint="leave one of each")
    return document
