"""A hold: somebody at the device said "no updates for now". Values only."""

from __future__ import annotations

import msgspec


class Hold(msgspec.Struct, frozen=True):
    """Updates wait.

    Attributes:
        since_ms: When it began, milliseconds since the epoch.
        until_ms: When it ends by itself; none: by `unhold` alone.
        reason: In the operator's words.
    """

    since_ms: int
    until_ms: int | None = None
    reason: str = ""

    def holds_at(self, now_ms: int) -> bool:
        """Tell whether it still holds."""
        return self.until_ms is None or now_ms < self.until_ms
