"""The configuration file: TOML, each value with the line that gives it.

Owns parsing and lines; leaves what the names mean to `shoal_agent.settings`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec

from shoal_agent.errors import SettingsError

_TABLE = re.compile(r"\s*\[\s*([^\[\]]+?)\s*\]\s*(?:#.*)?$")
_KEY = re.compile(r"\s*([A-Za-z0-9_.\"' -]+?)\s*=")


class Entry(msgspec.Struct, frozen=True):
    """A value of the file.

    Attributes:
        value: As TOML has it.
        line: Where it stands, from 1; 0 where that could not be told.
    """

    value: Any
    line: int


def read_configuration(path: Path) -> dict[str, Entry]:
    """Return the entries of a file by dotted name: ``trial.seconds`` is ``[trial] seconds``.

    Raises:
        FileNotFoundError: There is no such file.
        SettingsError: It can't be read, or does not parse.
    """
    import tomllib  # noqa: PLC0415 - a start without a file should not pay for it

    try:
        text = path.read_bytes().decode()
        document = tomllib.loads(text)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise SettingsError(
            f"the configuration file {path} can't be read: {error.strerror}",
            hint="is --state the agent's folder, and this its user?",
        ) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingsError(f"the configuration file {path} does not parse: {error}") from error
    lines = dict(_lines(text))
    return {name: Entry(value, lines.get(name, 0)) for name, value in _flattened(document)}


def _flattened(table: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in table.items():
        if isinstance(value, dict):
            yield from _flattened(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _lines(text: str) -> Iterator[tuple[str, int]]:
    """Tell where each name stands, by the forms that people write; in an inline table a name has no line of its own."""
    table = ""
    for number, line in enumerate(text.splitlines(), start=1):
        if found := _TABLE.match(line):
            table = f"{_plain(found[1])}."
        elif found := _KEY.match(line):
            yield table + _plain(found[1]), number


def _plain(name: str) -> str:
    return ".".join(part.strip().strip("\"'") for part in name.split("."))
