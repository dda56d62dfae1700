"""Which spooled messages to hand to the transport next, and which to give up when the spool is full.

The spool keeps a message until the *server's* acknowledgement; a broker's PUBACK proves nothing. So everything that was
handed over but not acknowledged is handed over again after every reconnect and after a while. What this module knows
of the transport lives only as long as the process: a restart sends all again, which the server counts once.

A message that the server can't parse has no number for it to acknowledge. A connection keeps its order, so that an
acknowledgement of a later message passes over the earlier one: it was refused, or lost on the way. Handed over again
three times and passed over each time, it was refused, and is given up. That an acknowledgement stays away proves
nothing: the server may be down, or slow. A slow one acknowledges the first copy of what was handed over again since: an
acknowledgement proves that all came which was handed over before that *first* copy, and nothing of what came after.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

import msgspec
from msgspec.structs import replace


class Outbox(msgspec.Struct, frozen=True):
    """What was handed to the transport on the present connection.

    Attributes:
        limit: So many messages are under way at most.
        resend_s: After so many seconds without acknowledgement a message is handed over again.
        patience: A message that was passed over is handed over again so many times.
        handed: Sequence number -> when it was handed over last, monotonic seconds.
        begun: The same, when it was handed over first.
        passed: Sequence numbers of which a later one was acknowledged since they were handed over.
        again: Sequence number -> how often it was handed over again after it was passed over.
    """

    limit: int = 64
    resend_s: float = 30.0
    patience: int = 3
    handed: Mapping[int, float] = msgspec.field(default_factory=dict)
    begun: Mapping[int, float] = msgspec.field(default_factory=dict)
    passed: frozenset[int] = frozenset()
    again: Mapping[int, int] = msgspec.field(default_factory=dict)

    def due(self, waiting: Sequence[int], now: float) -> list[int]:
        """Return what to hand over now, oldest first.

        What was handed over before leaves half of the room to what never was, or else as many refused messages as may
        be under way would keep everything else back for ever.

        Args:
            waiting: Sequence numbers in the spool, ascending.
            now: Monotonic seconds.
        """
        late = now - self.resend_s
        under_way = {seq for seq in waiting if self.handed.get(seq, float("-inf")) > late}
        free = max(self.limit - len(under_way), 0)
        fresh = [seq for seq in waiting if seq not in self.handed]
        again = [seq for seq in waiting if seq in self.handed and seq not in under_way]
        again = again[: free - min(len(fresh), free // 2)]
        return sorted(again + fresh[: free - len(again)])

    def hand_over(self, seqs: Iterable[int], now: float) -> Outbox:
        """Return the outbox after these were handed to the transport."""
        given = set(seqs)
        again = {**self.again, **{seq: self.again.get(seq, 0) + 1 for seq in given & self.passed}}
        now_handed = dict.fromkeys(sorted(given), now)
        return replace(
            self,
            handed={**self.handed, **now_handed},
            begun={**now_handed, **self.begun},
            passed=self.passed - given,
            again=again,
        )

    def acknowledged(self, covers: Callable[[int], bool]) -> Outbox:
        """Return the outbox after an acknowledgement.

        Args:
            covers: Tells which numbers the server has.
        """
        newest = max(((at, seq) for seq, at in self.begun.items() if covers(seq)), default=None)
        if newest is None:
            return self
        left = {seq: at for seq, at in self.handed.items() if not covers(seq)}
        passed = {seq for seq, at in left.items() if (at, seq) < newest}
        begun = {seq: self.begun[seq] for seq in left}
        return replace(self, handed=left, begun=begun, passed=(self.passed | passed) & left.keys())

    def hopeless(self) -> list[int]:
        """Return what the server will never acknowledge, ascending."""
        return sorted(seq for seq in self.passed if self.again.get(seq, 0) >= self.patience)

    def forget(self, waiting: Iterable[int]) -> Outbox:
        """Return the outbox without what is no longer in the spool."""
        kept = set(waiting)
        return replace(
            self,
            handed={seq: at for seq, at in self.handed.items() if seq in kept},
            begun={seq: at for seq, at in self.begun.items() if seq in kept},
            passed=self.passed & kept,
            again={seq: times for seq, times in self.again.items() if seq in kept},
        )

    def reconnected(self) -> Outbox:
        """Return the outbox of a new connection: nothing is under way."""
        return replace(self, handed={}, begun={}, passed=frozenset(), again={})


def surplus(sizes: Iterable[tuple[int, int]], *, total_bytes: int, budget_bytes: int) -> list[int]:
    """Return the sequence numbers to drop so that the spool fits its budget: the first come first, the last never.

    Args:
        sizes: (sequence number, bytes), in the order in which to drop.
        total_bytes: Sum of all sizes.
        budget_bytes: Bytes allowed.
    """
    dropped: list[int] = []
    entries = list(sizes) if total_bytes > budget_bytes else []
    for seq, size in entries[:-1]:
        if total_bytes <= budget_bytes:
            break
        dropped.append(seq)
        total_bytes -= size
    return dropped


def as_ranges(seqs: Iterable[int]) -> list[list[int]]:
    """Return ascending numbers as closed ranges.

    >>> as_ranges([1, 2, 3, 7])
    [[1, 3], [7, 7]]
    """
    ranges: list[list[int]] = []
    for seq in seqs:
        if ranges and ranges[-1][1] == seq - 1:
            ranges[-1][1] = seq
        else:
            ranges.append([seq, seq])
    return ranges
