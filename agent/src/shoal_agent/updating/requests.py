"""What somebody at the device asks the running agent for; whoever asked waits for `done`."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any, TypeAlias

import msgspec


class _Asked(msgspec.Struct, kw_only=True):
    """What every request has.

    Attributes:
        done: Set when it was carried out or refused.
        error: Why it was refused.
        told: What to tell of it.
    """

    done: threading.Event = msgspec.field(default_factory=threading.Event)
    error: Exception | None = None
    told: dict[str, Any] = msgspec.field(default_factory=dict)


class RollBackRequest(_Asked):
    """Go back to the previous model."""

    slot: str
    reason: str


class ImportRequest(_Asked):
    """Take a parcel in."""

    path: Path


class ExportRequest(_Asked):
    """Write mail."""

    path: Path


Request: TypeAlias = RollBackRequest | ImportRequest | ExportRequest
