"""A spool in memory: the spare for a disk that takes nothing, and the fake of the tests.

It keeps the promises of `shoal_agent.adapters.spool` but one: nothing outlives the process. So its budget is small, and
its numbers must be none that the file will ever give: both speak in one epoch, because the server hears no device that
goes back to an earlier one.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Sequence

from shoal_agent.domain.outbox import surplus
from shoal_agent.ports import Spooled, SpoolUsage
from shoal_protocol.mqtt.messages import Ack
from shoal_protocol.mqtt.topics import Up

_MAX_KEYS = 1000


class MemorySpool:
    """Messages in a dictionary.

    Args:
        budget_bytes: Sum of the messages' sizes that is kept at most.
        epoch: 16 hexadecimal digits.
        boot: Number of this start.
        first: Number of the first message about the device's state.
        after: Number after which the messages of the spool are numbered.
        fault: Why there is no spool on the disk; empty: that is as it should be.
    """

    def __init__(
        self,
        *,
        budget_bytes: int = 1 << 20,
        epoch: str = "00" * 8,
        boot: int = 1,
        first: int = 1,
        after: int = 0,
        fault: str = "",
    ) -> None:
        self.epoch, self.boot, self.first = epoch, boot, first
        self.items: dict[int, Spooled] = {}
        self._budget, self._fault = budget_bytes, fault
        self._seq, self._dropped = after, 0
        self._keys: dict[str, None] = {}
        self._lock = threading.RLock()

    def append(self, kind: Up, build: Callable[[int], bytes], *, key: str | None = None) -> int | None:
        """Store a message under the next number; one with a key is stored once."""
        with self._lock:
            if key is not None and key in self._keys:
                return None
            body = build(self._seq + 1)
            self._seq += 1
            self.items[self._seq] = Spooled(self._seq, kind, body)
            if key is not None:
                self._keys[key] = None
                while len(self._keys) > _MAX_KEYS:
                    del self._keys[next(iter(self._keys))]
            return self._seq

    def make_room(self, tell: Callable[[int, list[int]], bytes]) -> list[int]:
        """Drop the oldest messages until the budget is kept, and store an event that says which."""
        with self._lock:
            sizes = [(seq, len(item.body)) for seq, item in self.items.items()]
            total = sum(size for _, size in sizes)
            return self.give_up(surplus(sizes, total_bytes=total, budget_bytes=self._budget), tell)

    def give_up(self, seqs: Iterable[int], tell: Callable[[int, list[int]], bytes] | None) -> list[int]:
        """Drop messages, and store an event that says which."""
        with self._lock:
            dropped = sorted(set(seqs).intersection(self.items))
            for seq in dropped:
                del self.items[seq]
            self._dropped += len(dropped)
            if dropped and tell is not None:
                self.append(Up.EVENT, lambda seq: tell(seq, dropped))
            return dropped

    def waiting(self, limit: int = 1024) -> list[int]:
        """Return the numbers of the oldest unacknowledged messages, ascending."""
        with self._lock:
            return sorted(self.items)[:limit]

    def read(self, seqs: Sequence[int]) -> list[Spooled]:
        """Return messages by number, ascending; those that are gone are left out."""
        with self._lock:
            return [self.items[seq] for seq in sorted(seqs) if seq in self.items]

    def acknowledge(self, ack: Ack) -> int:
        """Delete what the server has committed; return how many messages that were."""
        with self._lock:
            gone = [seq for seq in self.items if ack.epoch == self.epoch and ack.covers(seq)]
            for seq in gone:
                del self.items[seq]
            return len(gone)

    def usage(self) -> SpoolUsage:
        """Return what waits, and what was dropped since the start."""
        with self._lock:
            windows = sum(item.kind is Up.PROFILE for item in self.items.values())
            size_bytes = sum(len(item.body) for item in self.items.values())
            return SpoolUsage(windows=windows, size_bytes=size_bytes, dropped=self._dropped, fault=self._fault)

    def close(self) -> None:
        """Do nothing: what waits is lost with the process."""
