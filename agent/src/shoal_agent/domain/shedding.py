"""What a full spool has let go of, told in one event as long as that event was never sent.

A month without a server would else leave an event for every merge and every loss, until there is room for nothing else.
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from shoal_agent.domain.outbox import as_ranges


class Told(msgspec.Struct, frozen=True):
    """One event about numbers that the server will never get.

    Attributes:
        seq: Its own number; 0: there is none yet.
        numbers: What it names, ascending.
        rows: Rows that were counted in them.
    """

    seq: int = 0
    numbers: tuple[int, ...] = ()
    rows: int = 0

    def next(self, seq: int, numbers: Iterable[int], *, rows: int = 0, waits: bool) -> Told:
        """Return the event that follows.

        Args:
            seq: Its number.
            numbers: What was let go of since.
            rows: Counted in them.
            waits: Whether this one still waits and was never sent, so that the next one says its part too.
        """
        kept = Told() if not waits else self
        return Told(seq, tuple(sorted({*kept.numbers, *numbers})), kept.rows + rows)

    def as_json(self) -> list[object]:
        """Return the form that is stored."""
        return [self.seq, as_ranges(self.numbers), self.rows]

    @classmethod
    def from_json(cls, stored: list[object]) -> Told:
        """Return what `as_json` stored."""
        match stored:
            case [int(seq), list(ranges), int(rows)]:
                return cls(seq, tuple(n for first, last in ranges for n in range(first, last + 1)), rows)
        return cls()
