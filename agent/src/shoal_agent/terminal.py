"""What all commands of ``shoal-agent`` do alike: print a document, read ``--set``."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from typing import Any

from shoal_agent.errors import SettingsError
from shoal_agent.settings import names


def print_json(document: Any) -> None:
    """Print a document for programs."""
    sys.stdout.write(json.dumps(document, indent=2) + "\n")


def flags_of(entries: Sequence[str]) -> dict[str, str]:
    """Return the settings that ``--set NAME=VALUE`` names.

    Raises:
        SettingsError: One is no such pair.
    """
    flags = {}
    for entry in entries:
        name, equals, value = entry.partition("=")
        if not equals:
            raise SettingsError(f"--set {entry!r} is no NAME=VALUE", hint=f"names are: {', '.join(names())}")
        flags[name] = value
    return flags
