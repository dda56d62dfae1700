"""The thread of updating: it takes documents and requests in, and keeps the transactions going.

One thread per agent does all that may take long (downloads, self-tests, loading). A newer document makes the step under
way give up at the next chance. Predictions never wait for it.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from shoal_agent.domain.device import DeviceState
from shoal_agent.ports import Clock, Spool
from shoal_agent.updating.assignments import AssignmentIntake
from shoal_agent.updating.list_watch import ListWatch
from shoal_agent.updating.messages import Messages
from shoal_agent.updating.requests import ExportRequest, ImportRequest, Request, RollBackRequest
from shoal_agent.updating.transaction import Transactions
from shoal_protocol.errors import CallerError, ExpiredError, PeerError, ShoalError
from shoal_protocol.mqtt.topics import Up

_RETRY_S = 15.0
_CLOCK_RETRY_S = 60.0
_IDLE_S = 2.0
_MOST_DOCUMENTS = 8
_log = logging.getLogger(__name__)


class Inbox:
    """What waits for the updating thread: the last documents that came, and requests."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._documents: deque[bytes] = deque(maxlen=_MOST_DOCUMENTS)
        self._requests: deque[Request] = deque()
        self._wake = threading.Event()
        self._stopping = False

    def put_document(self, raw: bytes) -> None:
        """Leave a document.

        It takes no other one's place: MQTT and HTTP bring them on threads of their own, so that the last to come may be
        the older one. Which is newer is known only once they are verified.
        """
        with self._lock:
            if raw not in self._documents:
                self._documents.append(raw)
        self._wake.set()

    def put_request(self, request: Request) -> None:
        """Leave a request."""
        with self._lock:
            self._requests.append(request)
        self._wake.set()

    def stop(self) -> None:
        """Ask the thread to end."""
        self._stopping = True
        self._wake.set()

    @property
    def stopping(self) -> bool:
        """Whether the thread is to end."""
        return self._stopping

    def has_news(self) -> bool:
        """Tell whether a long step should be given up."""
        return self._stopping or bool(self._documents) or bool(self._requests)

    def take(self) -> tuple[list[bytes], list[Request]]:
        """Return what waits in the order in which it came, and empty the inbox."""
        with self._lock:
            documents, requests = list(self._documents), list(self._requests)
            self._documents.clear()
            self._requests.clear()
            self._wake.clear()
            if self._stopping:
                self._wake.set()
        return documents, requests

    def wait(self, seconds: float) -> None:
        """Sleep until something comes, or the time is over."""
        self._wake.wait(seconds)


class _Postponed(NamedTuple):
    """A document to be tried again, at a monotonic time, since it could not be judged or seemed expired."""

    raw: bytes
    due_at: float
    is_expired: bool = False


class RequestDesk(Protocol):
    """Where other processes of the device leave requests."""

    def requests(self) -> Iterable[tuple[Request, Path]]:
        """Return what was asked for, and the file of each."""

    def answer(self, request: Request, path: Path) -> None:
        """Say what came of a request."""

    def show(self) -> None:
        """Let others see how things stand."""


class ByHand(Protocol):
    """What somebody carries to the device, and from it."""

    def receive(self, path: Path, intake: AssignmentIntake, state: DeviceState) -> tuple[bytes, dict[str, Any]]:
        """Verify and store a parcel; returns the assignment's document, and what to tell of it."""

    def write_mail(self, path: Path) -> dict[str, Any]:
        """Write what waits for the server; returns what to tell of it."""


class Updater:
    """Keeps one device's slots going.

    Args:
        transactions: The slots.
        intake: Verifies documents; none without a server.
        inbox: Where others leave documents and requests.
        spool: Takes refusals.
        messages: Makes refusals.
        desk: Where other processes leave requests, and see the status.
        tick_s: Seconds between two looks at a model on trial.
        monotonic: Seconds for durations.
        watch: Looks at the signed list for what is revoked; none without a server.
        by_hand: Makes what takes parcels in and writes mail; none: nothing is taken by hand.
        beat: Called at every turn, as a sign of life.
        rotate: Told which credentials an assignment asks for; also when it has nothing else that is new.
    """

    def __init__(
        self,
        transactions: Transactions,
        *,
        intake: Callable[[], AssignmentIntake] | None,
        inbox: Inbox,
        spool: Spool,
        messages: Messages,
        desk: RequestDesk,
        tick_s: float,
        monotonic: Clock,
        watch: ListWatch | None = None,
        by_hand: Callable[[], ByHand] | None = None,
        beat: Callable[[], None] = lambda: None,
        rotate: Callable[[int], None] = lambda _credential: None,
    ) -> None:
        self._rotate = rotate
        self._beat = beat
        self._transactions = transactions
        self._watch = watch
        self._make_intake = intake
        self._intake: AssignmentIntake | None = None
        self._inbox = inbox
        self._spool = spool
        self._messages = messages
        self._desk = desk
        self._by_hand = by_hand
        self._tick_s = tick_s
        self._monotonic = monotonic
        self._postponed: _Postponed | None = None

    @property
    def intake(self) -> AssignmentIntake | None:
        """Who verifies documents, once the first came."""
        return self._intake

    def run(self) -> None:
        """Work until told to stop; for a thread of its own."""
        while not self._inbox.stopping:
            pause_s = self._tick_s
            self._beat()
            try:
                pause_s = self.turn()
            except Exception:  # noqa: BLE001 - the boundary of the thread
                _log.exception("updating: a turn failed")
            self._inbox.wait(pause_s)

    def turn(self) -> float:
        """Take in what waits, work it off, and return how many seconds may pass until the next turn."""
        documents, requests = self._inbox.take()
        if self._postponed is not None and self._monotonic() >= self._postponed.due_at:
            documents.insert(0, self._postponed.raw)
            self._postponed = None
        newest = self._transactions.state.generation
        for document in documents:
            self._take_document(document, newest=newest)
        for request in requests:
            self._carry_out(request)
        for request, path in self._desk.requests():
            self._carry_out(request)
            self._desk.answer(request, path)
        self._transactions.tick()
        self._transactions.work()
        self._desk.show()  # before the look at the list, which may take seconds
        self._look_at_list()
        self._desk.show()
        wait_s = self._transactions.idle_s()
        pause_s = self._tick_s if self._transactions.on_trial() else _IDLE_S
        return pause_s if wait_s is None else min(wait_s, pause_s)

    def _look_at_list(self) -> None:
        if self._watch is None:
            return
        revoked = self._watch.look(self._transactions.digests())
        if revoked is not None:
            self._transactions.bar(revoked)

    def _take_document(self, raw: bytes, *, newest: int | None = None) -> None:
        """Take one document in.

        Args:
            raw: The document.
            newest: Generation before others that came along with it; one that is older than these is no attack, since
                they may have crossed on two ways.
        """
        intake = self._need_intake()
        if intake is None:
            return
        try:
            assignment = intake.take(raw, self._transactions.state)
        except (PeerError, OSError) as error:
            _log.info("an assignment can't be taken over yet: %s", error)
            self._postponed = _Postponed(raw, self._monotonic() + _RETRY_S)
            return
        if intake.refusal is None:
            if assignment is not None or (self._postponed is not None and self._postponed.is_expired):
                self._postponed = None  # else it may be newer than this one
            self._rotate(intake.credential)
            if self._watch is not None:
                self._watch.look_soon()
        if assignment is not None:
            self._transactions.take_over(assignment)
        elif intake.refusal is not None:
            present = self._transactions.state.generation
            if newest is not None and newest < present and 0 < intake.refusal.generation < present:
                intake.refusal = None
                return
            if intake.refusal.code == ExpiredError.code:  # by a clock that may be set later
                self._postponed = _Postponed(raw, self._monotonic() + _CLOCK_RETRY_S, is_expired=True)
            self._tell_refusal()

    def _tell_refusal(self) -> None:
        refusal = self._intake.refusal if self._intake else None
        if refusal is None:
            return
        _log.warning("an assignment was refused: %s", refusal.message)
        event = self._messages.event("refused", data={"code": refusal.code, "message": refusal.message[:500]})
        try:
            self._spool.append(Up.EVENT, event, key=f"refused/{refusal.code}/{refusal.document}")
        except ShoalError as error:
            _log.error("the refusal could not be spooled: %s", error)

    def _carry_out(self, request: Request) -> None:
        try:
            match request:
                case RollBackRequest():
                    self._roll_back(request)
                case ImportRequest():
                    request.told = self._import(request.path)
                case ExportRequest():
                    request.told = self._carrier().write_mail(request.path)
        except (ShoalError, OSError) as error:
            request.error = error
        finally:
            request.done.set()

    def _roll_back(self, request: RollBackRequest) -> None:
        """Go back, but to nothing that the signed list bars as it is known here; that needs no network."""
        revoked = None if self._watch is None else self._watch.known(self._transactions.digests())
        if revoked is not None:
            self._transactions.bar(revoked)
        self._transactions.roll_back(request.slot, request.reason)

    def _import(self, path: Path) -> dict[str, Any]:
        intake, by_hand = self._need_intake(), self._carrier()
        if intake is None:
            raise CallerError("without a server there is nobody whose parcels could be believed")
        before = self._transactions.state.generation
        document, told = by_hand.receive(path, intake, self._transactions.state)
        self._take_document(document)
        return {**told, "new": self._transactions.state.generation > before}

    def _carrier(self) -> ByHand:
        if self._by_hand is None:
            raise CallerError("this agent takes nothing by hand")
        return self._by_hand()

    def _need_intake(self) -> AssignmentIntake | None:
        if self._intake is None and self._make_intake is not None:
            self._intake = self._make_intake()
        return self._intake
