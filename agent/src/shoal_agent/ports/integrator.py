"""What the device's integrator and its operator say about updates."""

from __future__ import annotations

from typing import Protocol

import msgspec

from shoal_agent.domain.hold import Hold
from shoal_agent.domain.occasion import HookKind, Occasion


class HookOutcome(msgspec.Struct, frozen=True):
    """What became of a hook.

    Attributes:
        exit_code: With which it ended; none: it did not end by itself.
        said: The first line that it printed.
        fault: Why it did not run to its end; empty: it did.
    """

    exit_code: int | None = None
    said: str = ""
    fault: str = ""


class Hooks(Protocol):
    """The integrator's programs around an update."""

    def has(self, kind: HookKind) -> bool:
        """Tell whether there is a hook of this kind."""

    def run(self, occasion: Occasion) -> HookOutcome:
        """Run the hook for an occasion, bounded in time; never raises for what it does."""


class HoldSource(Protocol):
    """Where an operator at the device says that updates should wait."""

    def load(self) -> Hold | None:
        """Return what was said last; none: nothing. It may be over."""
