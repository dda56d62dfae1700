"""Which numbered messages of one device and epoch were received: the memory that makes every message count once.

Pure. It outlives the windows themselves, so that a duplicate is known as one after weeks, and it is what an
acknowledgement says. Numbers begin at 1.

Invariants:
    - `through` and `ranges` hold every number that was ever added, and none that wasn't, but for those in `lost` and
      those that the device skipped.
    - Ranges are closed, ascending, apart from each other and from `through`; there are at most `MAX_RANGES`: beyond
      that the oldest gap is given up, and its numbers count as lost.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

MAX_RANGES = 256


@dataclass(frozen=True, slots=True)
class Ledger:
    """Numbers received.

    Attributes:
        through: All up to here, which is 0 at first.
        ranges: Closed ranges beyond.
        lost: How many of them were given up without having come.
    """

    through: int = 0
    ranges: tuple[tuple[int, int], ...] = ()
    lost: int = 0

    def covers(self, seq: int) -> bool:
        """Tell whether a number was received or given up."""
        if seq <= self.through:
            return True
        at = bisect_left(self.ranges, (seq + 1,)) - 1
        return at >= 0 and self.ranges[at][1] >= seq

    def add(self, seq: int) -> Ledger:
        """Return the ledger with a number received."""
        if seq == self.through + 1 and not self.ranges:  # nearly always
            return Ledger(seq, (), self.lost)
        if self.covers(seq):
            return self
        return _joined(self, [*self.ranges, (seq, seq)])

    def give_up(self, ranges: Iterable[Sequence[int]]) -> Ledger:
        """Return the ledger with closed ranges that the device has dropped; what came before stays received."""
        ledger = self
        for first, last in ranges:
            if 1 <= first <= last:
                joined = _joined(ledger, [*ledger.ranges, (max(first, ledger.through + 1), last)])
                ledger = replace(joined, lost=ledger.lost + joined.size - ledger.size)
        return ledger

    def skip(self, ranges: Iterable[Sequence[int]]) -> Ledger:
        """Return the ledger with closed ranges that the device never sent and never will, without a loss."""
        return replace(self.give_up(ranges), lost=self.lost)

    @property
    def size(self) -> int:
        """How many numbers it covers."""
        return self.through + sum(last - first + 1 for first, last in self.ranges)


def _joined(ledger: Ledger, ranges: list[tuple[int, int]]) -> Ledger:
    """Return the ledger with these ranges, which may overlap and come in any order, instead of its own."""
    through, lost, joined = ledger.through, ledger.lost, list[tuple[int, int]]()
    for first, last in sorted(ranges):
        if last < first or last <= through:
            continue
        if first <= through + 1:
            through = last
        elif joined and first <= joined[-1][1] + 1:
            joined[-1] = (joined[-1][0], max(joined[-1][1], last))
        else:
            joined.append((first, last))
    while len(joined) > MAX_RANGES:
        first, last = joined.pop(0)
        lost += first - through - 1
        through = last
    return Ledger(through, tuple(joined), lost)
