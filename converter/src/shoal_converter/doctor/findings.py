"""What one check of the doctor found: a value that people and programs read alike."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

State = Literal["ok", "note", "wrong", "skipped"]


@dataclass(frozen=True)
class Finding:
    """The outcome of one check.

    Attributes:
        check: What was looked at.
        state: ``note``: nothing is broken, but somebody should know.
        found: In a sentence.
        cure: What to do; empty where nothing is to be done.
    """

    check: str
    state: State
    found: str
    cure: str = ""

    def as_json(self) -> dict[str, Any]:
        """Return it as plain data."""
        return asdict(self)
