"""What a decision wants to be done, as values.

The runner carries them out in the transaction that saves the rollout, so a decision and its effects happen both or
neither.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeAlias

from shoal_protocol.trust.assignment import SlotTarget


@dataclass(frozen=True, kw_only=True)
class Assign:
    """Write what a device's slot should run; its generation is then told by `Rollout.with_generations`."""

    device: str
    target: SlotTarget


@dataclass(frozen=True, kw_only=True)
class Record:
    """Add to the rollout's history and to the audit.

    Attributes:
        action: Such as ``rollout.pause`` or ``rollout.stage.passed``.
        reason: Why, in words.
        stage: From 1, where it is about one.
        actor: Who; empty: the server itself.
        before, after: States, or whatever says what changed.
    """

    action: str
    reason: str
    stage: int | None = None
    actor: str = ""
    before: Any = None
    after: Any = None


@dataclass(frozen=True, kw_only=True)
class Notify:
    """Raise the rollout's alert, or tell it again: a rollout has at most one that is open."""

    kind: str
    severity: str
    title: str
    body: str


@dataclass(frozen=True, kw_only=True)
class Deny:
    """Put the rollout's bundle on the deny list."""

    digest: str
    reason: str


@dataclass(frozen=True, kw_only=True)
class LiftDenial:
    """Take the rollout's bundle off the deny list."""

    digest: str
    reason: str


Effect: TypeAlias = Assign | Record | Notify | Deny | LiftDenial
