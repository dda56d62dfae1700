"""The link over HTTP: the same documents and acknowledgements, by polling, while MQTT is down or not wanted.

Owns the two device routes: ``GET /api/v1/device/desired`` (with ETag) and ``POST /api/v1/device/messages``. Polls every
`poll_s` seconds with full jitter around it, so that a fleet does not come at once; messages wait for the next turn, and
that comes early when some are waiting.
"""

from __future__ import annotations

import base64
import logging
import threading
import time
from collections import deque
from collections.abc import Callable

import msgspec

from shoal_agent.adapters.guarded_thread import GuardedThread, Shift
from shoal_agent.adapters.http_client import HttpClient
from shoal_agent.domain.backoff import Backoff
from shoal_agent.errors import TransportError
from shoal_agent.ports import Clock, Link, LinkFault, LinkHandlers, LinkReport
from shoal_protocol.mqtt.messages import Ack, encode_message
from shoal_protocol.mqtt.topics import Down, Up

DESIRED_PATH = "/api/v1/device/desired"
MESSAGES_PATH = "/api/v1/device/messages"
_BATCH = 64
_BATCH_BYTES = 2 << 20
"""Of payloads in one request, which base64 makes longer by a third; the server takes 4 MiB."""

_QUEUE = 256
_GATHER_S = 0.2
_BEAT_S = 30.0
PATIENCE_S = 300.0
"""So long one request may take in all; one that only drips would else hold the thread for ever."""

_log = logging.getLogger(__name__)


class _Rejected(msgspec.Struct):
    index: int
    fault: str = ""


class _Answer(msgspec.Struct):
    acks: tuple[Ack, ...] = ()
    rejected: tuple[_Rejected, ...] = ()


class HttpLink:
    """A device's polling.

    Args:
        http: The server, with the device's credentials.
        poll_s: Seconds between two polls, on average.
        first_s: Seconds before the first poll, at most.
        wanted: Tells whether polling is needed now.
        backoff: Bounds of the wait after failures.
        chance: Gives uniform draws from [0, 1).
        monotonic: Seconds for durations.
        patience_s: So long one request may take before another thread takes over.
    """

    def __init__(
        self,
        http: HttpClient,
        *,
        poll_s: float,
        first_s: float,
        wanted: Callable[[], bool],
        backoff: Backoff,
        chance: Callable[[], float],
        monotonic: Clock = time.monotonic,
        patience_s: float = PATIENCE_S,
    ) -> None:
        self._http = http
        self._poll_s, self._first_s = poll_s, first_s
        self._wanted = wanted
        self._backoff, self._chance, self._monotonic = backoff, chance, monotonic
        self._queue: deque[tuple[Up, bytes]] = deque(maxlen=_QUEUE)
        self._stopping, self._wake = threading.Event(), threading.Event()
        self._reached = False
        self._etag: str | None = None
        self._fault: LinkFault | None = None
        self._handlers: LinkHandlers | None = None
        self._thread = GuardedThread("http-link", self._run, patience_s=patience_s, monotonic=monotonic)

    @property
    def connected(self) -> bool:
        """Whether the last question was answered and polling is needed."""
        return self._reached and self._wanted()

    def start(self, handlers: LinkHandlers) -> None:
        """Begin to poll in the background."""
        self._handlers = handlers
        self._thread.start()

    def publish(self, kind: Up, payload: bytes) -> bool:
        """Take a message for the next turn, which comes at once."""
        if not self.connected or len(self._queue) >= _QUEUE:
            return False
        self._queue.append((kind, payload))
        self._wake.set()
        return True

    def stop(self) -> None:
        """End polling."""
        self._stopping.set()
        self._wake.set()
        self._thread.stop(timeout_s=10.0)

    def tend(self) -> None:
        """See to it that a thread works."""
        self._thread.tend()

    def report(self) -> LinkReport:
        """Return whether the server is polled, or why it can't be."""
        protocol = "HTTP" if self.connected else ""
        return LinkReport(protocol=protocol, fault=self._fault, replaced=self._thread.replaced)

    def _run(self, shift: Shift) -> None:
        handlers = self._handlers
        assert handlers is not None
        tries, pause_s, told = 0, self._first_s * self._chance(), ""
        while not self._sleep(pause_s, shift):
            shift.beat()
            if not self._wanted():
                self._reached, pause_s = False, min(self._poll_s, 5.0)
                continue
            try:
                self._turn(handlers, shift)
                tries, pause_s, told = 0, self._poll_s * (0.5 + self._chance()), ""
                self._fault = None
            except TransportError as error:
                tries, self._reached = tries + 1, False
                pause_s = self._backoff.delay_s(tries, self._chance())
                _log.log(logging.DEBUG if told == str(error) else logging.INFO, "http: %s; trying again", error)
                told = str(error)
                self._fault = LinkFault("unreachable", error.message)
            except Exception:  # noqa: BLE001 - the boundary of the thread: nothing may end it but stop()
                tries, self._reached = tries + 1, False
                pause_s = self._backoff.delay_s(tries, self._chance())
                _log.exception("http: a turn of polling failed")

        if self._stopping.is_set():
            self._send_rest(handlers)
        self._http.close()

    def _send_rest(self, handlers: LinkHandlers) -> None:
        """At the end: one try for what waits; the spool keeps it anyway."""
        try:
            while self._queue and self._reached:
                self._send_batch(handlers)
        except TransportError as error:
            _log.info("http: %s", error)

    def _sleep(self, pause_s: float, shift: Shift) -> bool:
        """Wait for the next turn, or until a message is there; return whether to stop."""
        until = self._monotonic() + pause_s
        while not (woken := self._wake.wait(min(max(until - self._monotonic(), 0), _BEAT_S))):
            shift.beat()
            if shift.over() or self._monotonic() >= until:
                break
        if woken and not self._stopping.is_set():
            self._stopping.wait(_GATHER_S)
            self._wake.clear()
        return shift.over() or self._stopping.is_set()

    def _turn(self, handlers: LinkHandlers, shift: Shift) -> None:
        self._ask_desired(handlers)
        shift.beat()
        if shift.over():
            return
        if not self._reached:
            self._reached = True
            handlers.on_connected()
        while self._queue and not self._stopping.is_set() and not shift.over():
            self._send_batch(handlers)
            shift.beat()

    def _ask_desired(self, handlers: LinkHandlers) -> None:
        headers = {"If-None-Match": self._etag} if self._etag else {}
        status, answered, body = self._http.exchange("GET", DESIRED_PATH, headers=headers)
        if not self._wanted():  # the other way has opened meanwhile: what it brings is as new as this, or newer
            return
        if status == 200:
            self._etag = answered.get("ETag")
            handlers.on_message(Down.DESIRED, body)
        elif status not in {204, 304, 404}:  # 404: nothing is assigned yet
            raise TransportError(f"GET {DESIRED_PATH}: the server answered {status}", status=status)

    def _send_batch(self, handlers: LinkHandlers) -> None:
        batch = self._next_batch()
        document = [{"kind": kind.value, "payload": base64.b64encode(payload).decode()} for kind, payload in batch]
        status, _, body = self._http.exchange(
            "POST", MESSAGES_PATH, headers={"Content-Type": "application/json"}, body=msgspec.json.encode(document)
        )
        if status != 200:
            raise TransportError(f"POST {MESSAGES_PATH}: the server answered {status}", status=status)
        try:
            answer = msgspec.json.decode(body, type=_Answer)
        except msgspec.DecodeError as error:
            raise TransportError(f"POST {MESSAGES_PATH}: the answer does not parse: {error}") from error
        for rejected in answer.rejected:
            if 0 <= rejected.index < len(batch):
                handlers.on_refused(*batch[rejected.index], rejected.fault)
        for ack in answer.acks:
            handlers.on_message(Down.ACK, encode_message(ack))

    def _next_batch(self) -> list[tuple[Up, bytes]]:
        """Take so many messages from the queue as one request may carry."""
        batch = [self._queue.popleft()]
        size = len(batch[0][1])
        while self._queue and len(batch) < _BATCH and size + len(self._queue[0][1]) <= _BATCH_BYTES:
            batch.append(self._queue.popleft())
            size += len(batch[-1][1])
        return batch


class FallbackLink:
    """MQTT while it is up; HTTP polling while it is down."""

    def __init__(self, mqtt: Link, http: Link) -> None:
        self._mqtt, self._http = mqtt, http

    @property
    def connected(self) -> bool:
        """Whether either way is open."""
        return self._mqtt.connected or self._http.connected

    def start(self, handlers: LinkHandlers) -> None:
        """Start both."""
        self._mqtt.start(handlers)
        self._http.start(handlers)

    def publish(self, kind: Up, payload: bytes) -> bool:
        """Hand over by MQTT, else by HTTP."""
        return self._mqtt.publish(kind, payload) or self._http.publish(kind, payload)

    def tend(self) -> None:
        """Look after both."""
        self._mqtt.tend()
        self._http.tend()

    def report(self) -> LinkReport:
        """Return which of both is used, and what is wrong with MQTT, else with HTTP."""
        mqtt, http = self._mqtt.report(), self._http.report()
        fault = mqtt.fault or (None if mqtt.protocol else http.fault)
        protocol = mqtt.protocol or http.protocol
        return LinkReport(protocol=protocol, fault=fault, replaced=mqtt.replaced + http.replaced)

    def stop(self) -> None:
        """Stop both."""
        self._mqtt.stop()
        self._http.stop()
