"""Signs of life of a thread: when it last came round, so that somebody else can tell that it hangs."""

from __future__ import annotations

from shoal_agent.ports import Clock


class Pulse:
    """Beaten by one thread, read by others.

    Args:
        name: Of the thread's work.
        patience_s: Silent for so many seconds it hangs; above the longest step that can't beat.
        monotonic: Seconds for durations.
    """

    def __init__(self, name: str, *, patience_s: float, monotonic: Clock) -> None:
        self.name = name
        self._patience_s = patience_s
        self._monotonic = monotonic
        self._at = monotonic()

    def beat(self) -> None:
        """Say: here I am."""
        self._at = self._monotonic()

    def fault(self) -> str | None:
        """Return why the thread counts as hanging; none: it does not."""
        silent_s = self._monotonic() - self._at
        return f"{self.name} was silent for {silent_s:.0f} s" if silent_s > self._patience_s else None
