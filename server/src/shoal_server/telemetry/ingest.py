"""Takes in what devices send: a queue, a writer, and acknowledgements after the commit.

Owns the one thread that writes telemetry, the gathering of messages into transactions, what happens while the database
is away, and the answers to devices. What a message means is `batch`'s.

Invariants:
    - Nothing is acknowledged, to a broker or to a device, before its transaction is committed.
    - While the database can't be written, the same batch is tried again and nothing is acknowledged; the link stops
      reading, devices keep spooling, and `status` is not ready.
    - A message that can't be taken in, whatever the reason, is recorded, counted and acknowledged: it can't come
      between other messages and the store.
"""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import ClassVar, TypeAlias

import msgspec
from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlmodel import Session

from shoal_protocol.errors import LocalError
from shoal_protocol.mqtt.messages import Ack, encode_message
from shoal_protocol.mqtt.topics import Down, Up, down
from shoal_server.link.port import DeviceLink, Inbound, LinkError
from shoal_server.signals import Signals
from shoal_server.storage.database import Clock, Database
from shoal_server.telemetry.arrivals import Arrival, arrival
from shoal_server.telemetry.batch import CloneAlarm, Handler, Outcome, give_up, store_batch
from shoal_server.telemetry.ledger import Ledger
from shoal_server.telemetry.rollup import KnownPairs, Meant
from shoal_server.telemetry.store import LedgerKey

log = logging.getLogger(__name__)


_TOO_LARGE = "54"
"""SQLSTATE class of what goes beyond a limit of PostgreSQL: an operational error by name, yet the message's own."""

_ROLLED_BACK = "40"
"""SQLSTATE class of a transaction that PostgreSQL gave up for another's sake: two waited for each other."""


class BusyError(LocalError):
    """The server can't take messages in now; the device keeps them and comes again."""

    code = "busy"
    status: ClassVar[int] = 503


@dataclass(frozen=True, kw_only=True)
class Pace:
    """How messages are gathered.

    Attributes:
        batch: Messages of one transaction at most.
        linger_s: How long the first message waits for others.
        waiting: Messages by HTTP are refused while so many wait; those by the link are bounded by the link.
        waiting_per_device: The same, of one device: whoever sends without end is refused before others wait for it.
        retry_s: Between two tries while the database is away, at first and at most.
    """

    batch: int = 1000
    linger_s: float = 0.005
    waiting: int = 10_000
    waiting_per_device: int = 512
    retry_s: tuple[float, float] = (0.1, 5.0)


@dataclass(frozen=True, kw_only=True)
class IngestStatus:
    """How it goes; `reason` says what is wrong when it is not ready."""

    ready: bool
    reason: str
    waiting: int
    counts: Mapping[str, int]


@dataclass(eq=False)
class Submission:
    """Messages that came by HTTP, and what became of them.

    Attributes:
        arrivals: Each message, with its fault if it is malformed.
        acks: By epoch, once they are committed.
    """

    arrivals: list[Arrival]
    acks: dict[str, Ack] = field(default_factory=dict)
    left: int = 0
    finished: threading.Event = field(default_factory=threading.Event)


class _Submitted(msgspec.Struct, frozen=True):
    """One message of a submission, in the queue."""

    arrived: Arrival
    submission: Submission


_Waiting: TypeAlias = Inbound | _Submitted


class Ingest:
    """The way in for everything that devices send.

    Args:
        link: The line to the devices; started and stopped along with this.
        database: Where it goes.
        handlers: For presence, birth, reported and event.
        clock: Seconds since the epoch.
        on_clone: Told, inside the transaction, of a device that seems to exist twice.
        signals: Bumped after a commit: ``windows``, ``events``, ``devices``.
        pace: How messages are gathered.
        meant: Which slots and bundles devices may be meant to run, see `rollup`; none: any.
    """

    def __init__(
        self,
        link: DeviceLink,
        database: Database,
        handlers: Mapping[Up, Handler],
        clock: Clock,
        *,
        on_clone: CloneAlarm | None = None,
        signals: Signals | None = None,
        pace: Pace | None = None,
        meant: Meant | None = None,
    ) -> None:
        self._known = KnownPairs(meant, clock)
        self._link = link
        self._database = database
        self._handlers = handlers
        self._clock = clock
        self._on_clone = on_clone or _log_clone
        self._signals = signals or Signals()
        self._pace = pace or Pace()
        self._queue: queue.SimpleQueue[_Waiting | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._stopping = threading.Event()
        self._down = ""
        self._submitted: Counter[str] = Counter()
        self._submitting = threading.Lock()
        self._counts = dict.fromkeys(("windows", "events", "duplicates", "clones", "malformed", "messages"), 0)

    def start(self) -> None:
        """Begin to take messages in."""
        self._stopping.clear()
        self._thread = threading.Thread(target=self._run, name="shoal-ingest", daemon=True)
        self._thread.start()
        self._link.start(self.receive)

    def stop(self) -> None:
        """Take in what waits, acknowledge it, and close the line."""
        self._stopping.set()
        self._queue.put(None)
        thread, self._thread = self._thread, None
        if thread is not None:
            thread.join()
        self._link.stop()

    def receive(self, inbound: Inbound) -> None:
        """Take a message of the link; never blocks."""
        if not self._stopping.is_set():
            self._queue.put(inbound)

    def submit_and_wait(
        self, device: str, messages: Sequence[tuple[Up, bytes]], *, timeout_s: float = 10.0
    ) -> Submission:
        """Take messages that came by HTTP, and wait until they are committed.

        Args:
            device: Who sends them, proven.
            messages: Kind and bytes of each.
            timeout_s: How long to wait.

        Returns:
            The acknowledgements of what is numbered, and each message with its fault if it is malformed.

        Raises:
            BusyError: Too much waits, of all devices or of this one, the database is away, or it took too long. They
                may be stored nevertheless.
        """
        status = self.status()
        if not status.ready or status.waiting + len(messages) > self._pace.waiting:
            raise BusyError(status.reason or f"{status.waiting} messages wait", hint="keep them and come again")
        with self._place_for(device, len(messages)):
            return self._submit(device, messages, timeout_s=timeout_s)

    @contextmanager
    def _place_for(self, device: str, count: int) -> Iterator[None]:
        """Count a device's messages in while they wait; who has waiting ones has no more than its part."""
        with self._submitting:
            waiting = self._submitted[device]
            if waiting and waiting + count > self._pace.waiting_per_device:
                raise BusyError(f"{waiting} messages of this device wait", hint="wait for one answer before the next")
            self._submitted[device] = waiting + count
        try:
            yield
        finally:
            with self._submitting:
                self._submitted[device] -= count
                if self._submitted[device] <= 0:
                    del self._submitted[device]

    def _submit(self, device: str, messages: Sequence[tuple[Up, bytes]], *, timeout_s: float) -> Submission:
        submission = Submission([arrival(device, kind, payload) for kind, payload in messages], left=len(messages))
        if not messages:
            return submission
        for arrived in submission.arrivals:
            self._queue.put(_Submitted(arrived, submission))
        if not submission.finished.wait(timeout_s):
            raise BusyError(f"not stored within {timeout_s:g} s", hint="keep them and come again")
        return submission

    def status(self) -> IngestStatus:
        """Tell whether messages are taken in."""
        thread, waiting = self._thread, self._queue.qsize()
        reason = self._down
        if thread is None or not thread.is_alive():
            reason = "the writer does not run"
        elif not reason and waiting > self._pace.waiting:
            reason = f"{waiting} messages wait to be stored"
        return IngestStatus(ready=not reason, reason=reason, waiting=waiting, counts=dict(self._counts))

    # --------------------------------------------------------------------------------- the writer's thread only

    def _run(self) -> None:
        while True:
            batch = self._gather()
            if not batch and self._stopping.is_set():
                return
            try:
                self._take_in(batch)
            except Exception:
                log.exception("a batch of %d messages was not taken in; devices will send it again", len(batch))

    def _gather(self) -> list[_Waiting]:
        """Wait for a message and for a moment more, then take what is there."""
        first = self._queue.get()
        if self._queue.qsize() < self._pace.batch and not self._stopping.is_set():
            time.sleep(self._pace.linger_s)
        gathered = [first] if first is not None else []
        try:
            while len(gathered) < self._pace.batch:
                waiting = self._queue.get_nowait()
                if waiting is not None:
                    gathered.append(waiting)
        except queue.Empty:
            pass
        if self._stopping.is_set():
            self._queue.put(None)  # so that the next turn comes, and ends when nothing is left
        return gathered

    def _take_in(self, batch: list[_Waiting]) -> None:
        arrivals = [_arrived(waiting) for waiting in batch]
        try:
            outcomes = [self._write(lambda session: self._store(session, arrivals))]
        except _GivenUpError:
            return
        except Exception:
            log.exception("a batch of %d messages failed; taking them one by one", len(batch))
            outcomes = [self._take_one(arrived) for arrived in arrivals]
        for waiting in batch:
            if isinstance(waiting, Inbound):
                waiting.done()
        ledgers: dict[LedgerKey, Ledger] = {}
        for outcome in outcomes:
            ledgers.update(outcome.ledgers)
        self._answer(batch, ledgers)
        self._tell(outcomes, len(batch))

    def _store(self, session: Session, arrivals: Sequence[Arrival]) -> Outcome:
        now = self._clock()
        return store_batch(
            session, arrivals, handlers=self._handlers, on_clone=self._on_clone, now=now, known=self._known
        )

    def _take_one(self, arrived: Arrival) -> Outcome:
        try:
            return self._write(lambda session: self._store(session, [arrived]))
        except _GivenUpError:
            raise
        except Exception as error:
            log.exception("a %s message of %s could not be taken in", arrived.kind.value, arrived.device)
            return self._give_up(arrived, f"it could not be taken in: {error!r}")

    def _give_up(self, arrived: Arrival, reason: str) -> Outcome:
        try:
            return self._write(lambda session: give_up(session, arrived, reason=reason, now=self._clock()))
        except _GivenUpError:
            raise
        except Exception:
            # Without a word to the link it would count as under way for ever, and a few of them would stop the line.
            log.exception("a %s message of %s could not even be recorded", arrived.kind.value, arrived.device)
            return Outcome(malformed=1)

    def _write(self, work: Callable[[Session], Outcome]) -> Outcome:
        """Do something in a transaction, again and again while the database is away."""
        pause_s, longest = self._pace.retry_s
        while True:
            try:
                with self._database.write() as session:
                    outcome = work(session)
            except (DBAPIError, PoolTimeoutError) as error:
                if _state_of(error).startswith(_ROLLED_BACK):
                    log.info("a batch is written again: another transaction was in its way")
                    continue
                if not _is_away(error):
                    raise
                if not self._down:
                    log.warning("the database can't be written; devices keep their messages: %s", error)
                self._down = f"the database can't be written: {type(error).__name__}"
                if self._stopping.wait(pause_s):
                    raise _GivenUpError from error
                pause_s = min(2 * pause_s, longest)
            else:
                if self._down:
                    log.info("the database can be written again")
                self._down = ""
                return outcome

    def _answer(self, batch: Iterable[_Waiting], ledgers: Mapping[LedgerKey, Ledger]) -> None:
        """Acknowledge what is committed: by MQTT to whom it came from there, by HTTP to who waits."""
        acks = {
            key: Ack(epoch=key.epoch, through=ledger.through, ranges=ledger.ranges) for key, ledger in ledgers.items()
        }
        by_link = {waiting.device for waiting in batch if isinstance(waiting, Inbound)}
        for key, ack in acks.items():
            if key.device in by_link:
                try:
                    self._link.publish(down(key.device, Down.ACK), encode_message(ack))
                except LinkError as error:  # lost like any message: the device sends again, and is told again
                    log.debug("an acknowledgement was not sent: %s", error)
        for waiting in batch:
            if isinstance(waiting, _Submitted):
                _count_off(waiting, acks)

    def _tell(self, outcomes: Iterable[Outcome], messages: int) -> None:
        self._counts["messages"] += messages
        kinds: set[Up] = set()
        for outcome in outcomes:
            kinds |= outcome.kinds
            for name in ("windows", "events", "duplicates", "clones", "malformed"):
                self._counts[name] += getattr(outcome, name)
        if Up.PROFILE in kinds:
            self._signals.bump("windows")
        if Up.EVENT in kinds:
            self._signals.bump("events")
        if kinds & {Up.PRESENCE, Up.BIRTH, Up.REPORTED}:
            self._signals.bump("devices")


class _GivenUpError(Exception):
    """The program ends while the database is away: the batch stays with the devices."""


def _arrived(waiting: _Waiting) -> Arrival:
    if isinstance(waiting, _Submitted):
        return waiting.arrived
    return arrival(waiting.device, waiting.kind, waiting.payload)


def _count_off(submitted: _Submitted, acks: Mapping[LedgerKey, Ack]) -> None:
    """Note that a message of a submission is committed; the last one lets its sender go on."""
    submission = submitted.submission
    submission.acks.update({key.epoch: ack for key, ack in acks.items() if key.device == submitted.arrived.device})
    submission.left -= 1
    if submission.left == 0:
        submission.finished.set()


def _is_away(error: DBAPIError | PoolTimeoutError) -> bool:
    """Tell an absent or failing database from a message that it refuses."""
    if isinstance(error, DBAPIError):
        if _state_of(error).startswith(_TOO_LARGE):
            return False
        return error.connection_invalidated or isinstance(error, OperationalError | InterfaceError)
    return True


def _state_of(error: Exception) -> str:
    """Return the SQLSTATE of an error; empty: it has none."""
    return getattr(getattr(error, "orig", None), "sqlstate", None) or ""


def _log_clone(_session: Session, device: str, seq: int, _now: float) -> None:
    log.warning("device %s sent message %d with two contents: it seems to exist twice", device, seq)
