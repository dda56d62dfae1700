"""A batch of messages brought into the store within one transaction, each exactly once.

Owns what counts as new, as a duplicate and as a clone's, and the order of effects. Leaves threads, retries and
acknowledgements to `ingest`. What devices say about themselves (presence, birth, reported) and events go to handlers
that the program was put together with.

A clone is suspected when a number that is stored comes again with other content: two devices speak as one.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from sqlmodel import Session

from shoal_protocol.mqtt.messages import Event
from shoal_protocol.mqtt.topics import Up
from shoal_protocol.profile.codec import ProfileMessage
from shoal_server.storage.database import lock_for_transaction
from shoal_server.telemetry import rollup, store
from shoal_server.telemetry.arrivals import Arrival
from shoal_server.telemetry.labels import LabelSums
from shoal_server.telemetry.ledger import Ledger
from shoal_server.telemetry.shadows import ShadowHours
from shoal_server.telemetry.store import LedgerKey

Handler: TypeAlias = Callable[[Session, str, Any, float], object]
"""(session, device, message, now): brings one message into another room's tables, in the batch's transaction."""

CloneAlarm: TypeAlias = Callable[[Session, str, int, float], object]
"""(session, device, seq, now): told once per batch and device whose numbers came with two contents."""

LOST = "lost"
"""The kind of event by which a device tells which numbers it has dropped: data.ranges, closed."""

MERGED = "merged"
"""The kind of event by which a device tells which numbers it merged into later ones before it ever sent them."""

_CLOCK_SLACK_MS = 60_000


@dataclass(kw_only=True)
class Outcome:
    """What a batch brought.

    Attributes:
        ledgers: Of every device and epoch that sent something numbered; what is to be acknowledged.
        windows: Newly stored.
        events: New.
        duplicates: Numbered messages that had come before.
        clones: Duplicates whose content was another.
        malformed: Recorded and dropped.
        kinds: Kinds of the messages that were no duplicates.
    """

    ledgers: dict[LedgerKey, Ledger] = field(default_factory=dict)
    windows: int = 0
    events: int = 0
    duplicates: int = 0
    clones: int = 0
    malformed: int = 0
    kinds: set[Up] = field(default_factory=set)


def store_batch(
    session: Session,
    arrivals: Sequence[Arrival],
    *,
    handlers: Mapping[Up, Handler],
    on_clone: CloneAlarm,
    now: float,
    known: rollup.KnownPairs | None = None,
) -> Outcome:
    """Bring messages into the store, in their order.

    Args:
        session: Of `Database.write()`; all or nothing of the batch is committed.
        arrivals: The messages.
        handlers: For presence, birth, reported and event.
        on_clone: Told of devices that seem to exist twice.
        now: Seconds since the epoch.
        known: Slots and bundles that are summed by themselves; none: all.
    """
    lock_for_transaction(session, "ingest")  # ids of windows then appear in their order, and ledgers are ours
    batch = _Batch(session, handlers, now)
    batch.load(arrivals)
    for arrived in arrivals:
        batch.take(arrived)
    batch.finish(on_clone, known or rollup.KnownPairs())
    return batch.outcome


def give_up(session: Session, arrived: Arrival, *, reason: str, now: float) -> Outcome:
    """Record a message that a handler can't take in as malformed, and its number as lost, so that it ends here."""
    lock_for_transaction(session, "ingest")
    outcome = Outcome(malformed=1)
    store.record_malformed(session, [_malformed(arrived, reason, now)])
    if isinstance(arrived.message, ProfileMessage | Event):
        key = LedgerKey(arrived.device, arrived.message.epoch)
        seq = arrived.message.seq
        outcome.ledgers = {key: store.ledgers(session, [key])[key].give_up([(seq, seq)])}
        store.save_ledgers(session, outcome.ledgers, now)
    return outcome


class _Batch:
    """The state of one batch."""

    def __init__(self, session: Session, handlers: Mapping[Up, Handler], now: float) -> None:
        self.outcome = Outcome()
        self._session = session
        self._handlers = handlers
        self._now = now
        self._loaded: dict[LedgerKey, Ledger] = {}
        self._rows: list[tuple[Any, ...]] = []  # by `store.WINDOW_COLUMNS`
        self._sums = rollup.Sums()
        self._labels = LabelSums()
        self._shadows = ShadowHours()
        self._contents: dict[tuple[LedgerKey, int], bytes] = {}
        self._again: list[tuple[LedgerKey, int, bytes]] = []
        self._malformed: list[dict[str, Any]] = []

    def load(self, arrivals: Sequence[Arrival]) -> None:
        """Read the ledgers of all who sent something numbered."""
        keys = {
            LedgerKey(arrived.device, arrived.message.epoch)
            for arrived in arrivals
            if isinstance(arrived.message, ProfileMessage | Event)
        }
        self._loaded = store.ledgers(self._session, keys)
        self.outcome.ledgers = dict(self._loaded)

    def take(self, arrived: Arrival) -> None:
        """Bring one message in."""
        message = arrived.message
        if message is None:
            self._malformed.append(_malformed(arrived, arrived.fault, self._now))
            self.outcome.malformed += 1
        elif isinstance(message, ProfileMessage):
            self._take_window(arrived, message)
        elif isinstance(message, Event):
            self._take_event(arrived, message)
        else:
            self._handle(arrived)

    def _take_window(self, arrived: Arrival, message: ProfileMessage) -> None:
        key = LedgerKey(arrived.device, message.epoch)
        content = hashlib.sha256(arrived.payload).digest()[:16]
        if not self._is_new(key, message.seq):
            self._again.append((key, message.seq, content))
            return
        self.outcome.windows += 1
        self.outcome.kinds.add(Up.PROFILE)
        self._contents[key, message.seq] = content
        latest_ms = round(self._now * 1000) + _CLOCK_SLACK_MS - message.length_ms
        start_ms = min(message.start_ms, latest_ms)
        self._rows.append(
            (
                arrived.device,
                message.epoch,
                message.seq,
                message.slot,
                message.digest,
                message.spec_hash,
                start_ms,
                message.length_ms,
                message.n,
                message.errors,
                content,
                self._now,
                arrived.payload,
            )
        )
        self._sums.add(slot=message.slot, digest=message.digest, start_ms=start_ms, n=message.n, errors=message.errors)
        self._labels.add(arrived.device, message.labels, latest_ms=round(self._now * 1000))
        self._shadows.add(arrived.device, message, start_ms=start_ms)

    def _take_event(self, arrived: Arrival, message: Event) -> None:
        key = LedgerKey(arrived.device, message.epoch)
        if not self._is_new(key, message.seq):
            return
        self.outcome.events += 1
        if message.kind in {LOST, MERGED}:
            ranges = _ranges_before(message.seq, message.data.get("ranges"))
            ledger = self.outcome.ledgers[key]
            self.outcome.ledgers[key] = ledger.give_up(ranges) if message.kind == LOST else ledger.skip(ranges)
        self._handle(arrived)

    def _is_new(self, key: LedgerKey, seq: int) -> bool:
        """Note a number; False when it was received before."""
        ledger = self.outcome.ledgers[key]
        if ledger.covers(seq):
            self.outcome.duplicates += 1
            return False
        self.outcome.ledgers[key] = ledger.add(seq)
        return True

    def _handle(self, arrived: Arrival) -> None:
        self.outcome.kinds.add(arrived.kind)
        handler = self._handlers.get(arrived.kind)
        if handler is not None:
            handler(self._session, arrived.device, arrived.message, self._now)

    def finish(self, on_clone: CloneAlarm, known: rollup.KnownPairs) -> None:
        """Write what was gathered."""
        clones = self._clones()
        store.insert_windows(self._session, self._rows)
        self._sums.save(self._session, known)
        self._labels.save(self._session)
        self._shadows.save(self._session)
        changed = {key: ledger for key, ledger in self.outcome.ledgers.items() if ledger != self._loaded[key]}
        store.save_ledgers(self._session, changed, self._now)
        if self._malformed:
            store.record_malformed(self._session, self._malformed)
        for device, seq in clones.items():
            on_clone(self._session, device, seq, self._now)

    def _clones(self) -> dict[str, int]:
        """Compare what came again with what is stored; where that is gone nothing can be said."""
        asked: dict[LedgerKey, list[int]] = {}
        for key, seq, _ in self._again:
            if (key, seq) not in self._contents:
                asked.setdefault(key, []).append(seq)
        for key, seqs in asked.items():
            stored = store.content_hashes(self._session, key, seqs)
            self._contents.update({(key, seq): content for seq, content in stored.items()})
        clones: dict[str, int] = {}
        for key, seq, content in self._again:
            if self._contents.get((key, seq), content) != content:
                self.outcome.clones += 1
                clones.setdefault(key.device, seq)
        return clones


def _malformed(arrived: Arrival, reason: str, now: float) -> dict[str, Any]:
    return {
        "device": arrived.device,
        "kind": arrived.kind.value,
        "received_at": now,
        "error": reason,
        "payload": arrived.payload,
    }


def _ranges_before(seq: int, said: object) -> list[tuple[int, int]]:
    """Return closed ranges of numbers before the event that names them; what is no range is left out."""
    ranges = []
    for pair in said if isinstance(said, list) else ():
        match pair:
            case [int(first), int(last)]:
                ranges.append((first, min(last, seq - 1)))
    return ranges
