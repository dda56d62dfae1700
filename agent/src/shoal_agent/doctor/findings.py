"""What one check found: a value that people and programs read alike."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any


class State(StrEnum):
    """How a check ended."""

    OK = "ok"
    NOTE = "note"  # nothing is broken, but somebody should know
    WRONG = "wrong"  # the agent does not do its work like this
    SKIPPED = "skipped"  # could not be checked, because something before it failed or is not there


@dataclass(frozen=True)
class Finding:
    """The outcome of one check.

    Attributes:
        check: What was looked at, as a stable word: ``dns``, ``broker_acl``.
        state: How it ended.
        came: What was found, in a sentence.
        advice: What to do; empty where nothing is to be done.
    """

    check: str
    state: State
    came: str
    advice: str = ""

    def document(self) -> dict[str, Any]:
        """Return the finding as JSON values."""
        return {**asdict(self), "state": self.state.value}


def ok(check: str, came: str) -> Finding:
    """Return a finding of a check that went well."""
    return Finding(check, State.OK, came)


def note(check: str, came: str, advice: str = "") -> Finding:
    """Return a finding that somebody should know."""
    return Finding(check, State.NOTE, came, advice)


def wrong(check: str, came: str, advice: str) -> Finding:
    """Return a finding of something broken."""
    return Finding(check, State.WRONG, came, advice)


def skipped(check: str, why: str) -> Finding:
    """Return a finding of a check that could not be made."""
    return Finding(check, State.SKIPPED, why)


def is_well(findings: Iterable[Finding]) -> bool:
    """Tell whether nothing is wrong."""
    return all(finding.state is not State.WRONG for finding in findings)
