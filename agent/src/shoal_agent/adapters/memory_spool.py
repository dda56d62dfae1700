"""A spool in memory: the spare for a disk that takes nothing, and the fake of the tests.

It keeps the promises of `shoal_agent.adapters.spool` but one: nothing outlives the process. So its budget is small, and
its numbers must be none that the file will ever give: both speak in one epoch, because the server hears no device that
goes back to an earlier one.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Sequence
from functools import partial

from shoal_agent.domain.coarsening import Span, mergeable, together
from shoal_agent.domain.outbox import surplus
from shoal_agent.domain.shedding import Told
from shoal_agent.errors import SpoolError
from shoal_agent.ports import Shed, Spooled, SpoolUsage
from shoal_protocol.errors import ContentError
from shoal_protocol.mqtt.messages import Ack
from shoal_protocol.mqtt.topics import Up

_MAX_KEYS = 1000
_ROOMY = 0.75
"""Share of the budget that merging leaves at most, so that it isn't done again at every window."""


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
        self._spans: dict[int, Span] = {}
        self._handed = 0
        self._told: dict[str, Told] = {}
        self._budget, self._fault = budget_bytes, fault
        self._seq, self._dropped = after, 0
        self._keys: dict[str, None] = {}
        self._lock = threading.RLock()

    def append(
        self, kind: Up, build: Callable[[int], bytes], *, key: str | None = None, span: Span | None = None
    ) -> int | None:
        """Store a message under the next number; one with a key is stored once."""
        with self._lock:
            if key is not None and key in self._keys:
                return None
            body = build(self._seq + 1)
            self._seq += 1
            self.items[self._seq] = Spooled(self._seq, kind, body)
            if span is not None:
                self._spans[self._seq] = span
            if key is not None:
                self._keys[key] = None
                while len(self._keys) > _MAX_KEYS:
                    del self._keys[next(iter(self._keys))]
            return self._seq

    def has_stored(self, key: str) -> bool:
        """Tell whether a message with this key was ever stored.

        Raises:
            SpoolError: This is the spare, and it was none of its own: the file may know.
        """
        with self._lock:
            if key not in self._keys and self._fault:
                raise SpoolError(f"the spool's file can't be asked: {self._fault}")
            return key in self._keys

    def hand_over(self, seqs: Sequence[int]) -> None:
        """Remember that these never change any more."""
        with self._lock:
            self._handed = max([self._handed, *seqs])

    def make_room(self, shed: Shed) -> list[int]:
        """Keep the budget: merge what was never handed over, then drop the oldest; store events that say so."""
        with self._lock:
            if self._total() <= self._budget:
                return []
            gone = self._coarsen(shed.merge) if shed.merge is not None else []
            aged = sorted(self.items, key=lambda seq: (seq not in self._spans, self._started(seq), seq))
            sizes = [(seq, len(self.items[seq].body)) for seq in aged]
            beyond = surplus(sizes, total_bytes=self._total(), budget_bytes=self._budget)
            dropped = sorted(set(beyond).difference(told.seq for told in self._told.values()))
            rows = self._delete(dropped)
            if dropped:
                gone += self._tell("lost", dropped, shed.tell_lost, rows=rows)
            if gone and shed.tell_merged is not None:
                tell_merged = shed.tell_merged
                self._tell("merged", gone, lambda seq, parts, _rows: tell_merged(seq, parts))
            return dropped

    def give_up(self, seqs: Iterable[int], tell: Callable[[int, list[int], int], bytes] | None) -> list[int]:
        """Drop messages, and store an event that says which."""
        with self._lock:
            dropped = sorted(set(seqs).intersection(self.items))
            rows = self._delete(dropped)
            if dropped and tell is not None:
                self.append(Up.EVENT, lambda seq: tell(seq, dropped, rows))
            return dropped

    def _tell(
        self, name: str, numbers: list[int], build: Callable[[int, list[int], int], bytes], *, rows: int = 0
    ) -> list[int]:
        """Store the event about numbers, in the place of one that was never sent; return that one's number, if any."""
        last = self._told.get(name, Told())
        waits = last.seq > self._handed
        replaced = [last.seq] if waits else []
        for seq in replaced:
            self._remove(seq)
        merged = replaced if name == "merged" else []  # its own number is one more that never comes
        told = last.next(self._seq + 1, [*numbers, *merged], rows=rows, waits=waits)
        self.append(Up.EVENT, lambda seq: build(seq, list(told.numbers), told.rows))
        self._told[name] = told
        return replaced

    def _delete(self, dropped: list[int]) -> int:
        """Delete messages and count them as dropped; return the rows that were counted in them."""
        rows = sum(self._spans[seq].rows for seq in dropped if seq in self._spans)
        for seq in dropped:
            self._remove(seq)
        self._dropped += len(dropped)
        return rows

    def _coarsen(self, merge: Callable[[int, list[bytes]], bytes]) -> list[int]:
        """Merge until there is room again, or nothing is left that could be merged; return the numbers merged."""
        gone, stuck = list[int](), set[int]()
        while self._total() > self._budget * _ROOMY:
            free = {seq: at for seq, at in self._spans.items() if seq > self._handed and seq not in stuck}
            groups = mergeable(free)
            if not groups:
                break
            for group in groups:
                bodies = [self.items[seq].body for seq in group]
                try:
                    self.append(Up.PROFILE, partial(_build, merge, bodies), span=together(free[seq] for seq in group))
                except ContentError:
                    stuck.update(group)
                    continue
                for seq in group:
                    self._remove(seq)
                gone += group
                if self._total() <= self._budget * _ROOMY:
                    break
        return gone

    def _remove(self, seq: int) -> None:
        del self.items[seq]
        self._spans.pop(seq, None)

    def _started(self, seq: int) -> int:
        span = self._spans.get(seq)
        return span.start_ms if span else 0

    def _total(self) -> int:
        return sum(len(item.body) for item in self.items.values())

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
                self._remove(seq)
            return len(gone)

    def usage(self) -> SpoolUsage:
        """Return what waits, and what was dropped since the start."""
        with self._lock:
            windows = sum(item.kind is Up.PROFILE for item in self.items.values())
            size_bytes = sum(len(item.body) for item in self.items.values())
            return SpoolUsage(windows=windows, size_bytes=size_bytes, dropped=self._dropped, fault=self._fault)

    def close(self) -> None:
        """Do nothing: what waits is lost with the process."""


def _build(merge: Callable[[int, list[bytes]], bytes], bodies: list[bytes], seq: int) -> bytes:
    return merge(seq, bodies)
