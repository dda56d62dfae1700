"""Which spooled messages to hand to the transport next, and which to give up when the spool is full.

The spool keeps a message until the *server's* acknowledgement; a broker's PUBACK proves nothing. So everything that was
handed over but not acknowledged is handed over again after every reconnect and after a while. What this module knows
of the transport lives only as long as the process: a restart sends all again, which the server counts once.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace


@dataclass(frozen=True)
class Outbox:
    """What was handed to the transport on the present connection.

    Attributes:
        limit: So many messages are under way at most.
        resend_s: After so many seconds without acknowledgement a message is handed over again.
        handed: Sequence number -> when it was handed over, monotonic seconds.
    """

    limit: int = 64
    resend_s: float = 30.0
    handed: Mapping[int, float] = field(default_factory=dict)

    def due(self, waiting: Sequence[int], now: float) -> list[int]:
        """Return what to hand over now, oldest first.

        Args:
            waiting: Sequence numbers in the spool, ascending.
            now: Monotonic seconds.
        """
        late = now - self.resend_s
        under_way = {seq for seq in waiting if self.handed.get(seq, float("-inf")) > late}
        free = max(self.limit - len(under_way), 0)
        return [seq for seq in waiting if seq not in under_way][:free]

    def hand_over(self, seqs: Iterable[int], now: float) -> Outbox:
        """Return the outbox after these were handed to the transport."""
        return replace(self, handed={**self.handed, **dict.fromkeys(seqs, now)})

    def forget(self, waiting: Iterable[int]) -> Outbox:
        """Return the outbox without what is no longer in the spool."""
        kept = set(waiting)
        return replace(self, handed={seq: at for seq, at in self.handed.items() if seq in kept})

    def reconnected(self) -> Outbox:
        """Return the outbox of a new connection: nothing is under way."""
        return replace(self, handed={})


def surplus(sizes: Iterable[tuple[int, int]], *, total_bytes: int, budget_bytes: int) -> list[int]:
    """Return the sequence numbers to drop so that the spool fits its budget: the oldest first, the newest never.

    Args:
        sizes: (sequence number, bytes), ascending.
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
