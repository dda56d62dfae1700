"""The link over MQTT: connects for ever, and knows why it is not connected.

One guarded thread per link connects with full jitter between the tries; the wait grows also while connections are made
but don't last, as between two devices of one identity that throw each other out. One connection is a `Line`; which
version of MQTT it speaks is the `Dialect`'s to say.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from shoal_agent.adapters.guarded_thread import GuardedThread, Shift
from shoal_agent.adapters.mqtt_dialect import Dialect
from shoal_agent.adapters.mqtt_line import KEEPALIVE_S, Line, broker_at
from shoal_agent.domain.backoff import Backoff
from shoal_agent.ports import Clock, LinkFault, LinkHandlers, LinkReport
from shoal_protocol.mqtt.topics import Up

if TYPE_CHECKING:
    import ssl

    from shoal_agent.adapters.tls import CertificateTime

LASTING_S = 30.0
"""A connection that was up for so long was a good one: the next try comes soon."""

PATIENCE_S = 180.0
"""So long a name look-up, a connection and a TLS handshake together may take; beyond, the thread counts as hanging."""

_POLL_S = 1.0
_BEAT_S = 30.0
_HANGS_UP_S = 10.0
_MANY = 3
_LOST = LinkFault("lost", "the connection to the broker was lost")
_SHORT_LIVED = LinkFault(
    "short_lived",
    f"the broker took the last {_MANY} connections or more and ended each after a moment, as it does when another "
    "machine connects as this device: is there a copy of it? Or something in between cuts connections",
)
_log = logging.getLogger(__name__)


class MqttLink:
    """A device's connection to a broker.

    Args:
        url: ``mqtt(s)://host:port``, or ``ws(s)://host:port/path`` over websockets.
        device: Client id and user name.
        secret: Gives the password of each connection.
        ca_file: Certificate authority to trust instead of the system's.
        certificate_time: By which time the broker's certificate is judged; none: by the device's clock.
        client: Certificate and key of this device, for a broker that asks for them.
        dialect: Which version to speak; none: found out anew.
        keepalive_s: Seconds of silence after which a sign of life is sent.
        backoff: Bounds of the wait between tries.
        chance: Gives uniform draws from [0, 1).
        monotonic: Seconds for durations.
        patience_s: So long the thread may be silent before another one takes over.
    """

    def __init__(
        self,
        url: str,
        *,
        device: str,
        secret: Callable[[], str],
        ca_file: Path | None,
        certificate_time: CertificateTime | None = None,
        client: tuple[Path, Path] | None = None,
        dialect: Dialect | None = None,
        keepalive_s: int = KEEPALIVE_S,
        backoff: Backoff,
        chance: Callable[[], float],
        monotonic: Clock = time.monotonic,
        patience_s: float = PATIENCE_S,
    ) -> None:
        self._broker = broker_at(url, tls=self._tls)
        self._certificate_time, self._client_files = certificate_time, client
        self._device, self._secret, self._ca_file = device, secret, ca_file
        self._dialect = dialect or Dialect(None, broker=url, agent="", clock=time.time)
        self._keepalive_s = keepalive_s
        self._backoff, self._chance, self._monotonic = backoff, chance, monotonic
        self._stopping = threading.Event()
        self._line: Line | None = None
        self._placing = threading.Lock()
        self._fault: LinkFault | None = None
        self._short = 0
        self._handlers: LinkHandlers | None = None
        self._thread = GuardedThread(f"mqtt-{device}", self._run, patience_s=patience_s, monotonic=monotonic)

    @property
    def connected(self) -> bool:
        """Whether the broker takes what this device says, and the server hears it."""
        line = self._line
        return line is not None and line.is_up and not line.server_away

    @property
    def is_too_narrow(self) -> bool:
        """Whether a message waits that is larger than this broker takes."""
        line = self._line
        return line is not None and line.is_too_narrow

    def start(self, handlers: LinkHandlers) -> None:
        """Begin to connect in the background."""
        self._handlers = handlers
        self._thread.start()

    def publish(self, kind: Up, payload: bytes) -> bool:
        """Hand a message to the connection of now; it goes out on the link's thread."""
        line = self._line
        return line is not None and not line.server_away and line.publish(kind, payload)

    def tend(self) -> None:
        """See to it that a thread works."""
        self._thread.tend()

    def report(self) -> LinkReport:
        """Return how the broker is talked to, or why it is not."""
        line = self._line
        fault = (line.fault if line is not None else None) or self._fault
        protocol = str(line.version) if line is not None and self.connected else ""
        return LinkReport(protocol=protocol, fault=fault, replaced=self._thread.replaced)

    def stop(self) -> None:
        """Publish the offline presence, disconnect, and wait for the thread."""
        line = self._line
        if self._handlers is not None and line is not None:
            line.publish(Up.PRESENCE, self._handlers.farewell())
        self._stopping.set()
        self._thread.stop(timeout_s=10.0)
        self._line = None

    def _run(self, shift: Shift) -> None:
        assert self._handlers is not None
        tries = 0
        while not shift.over() and not self._stopping.is_set():
            shift.beat()
            lasted = False
            try:
                lasted = self._serve(shift, self._handlers)
            except OSError as error:
                self._note(shift, LinkFault("unreachable", f"{self._broker.host}:{self._broker.port}: {error}"))
                _log.info("mqtt: %s:%d can't be reached: %s", self._broker.host, self._broker.port, error)
            except Exception:  # noqa: BLE001 - the boundary of the thread: nothing may end it but stop()
                _log.exception("mqtt: the connection ended by an error of the agent")
            finally:
                self._put(shift, None)
            tries = 1 if lasted else tries + 1
            self._pause(shift, self._backoff.delay_s(tries, self._chance()))

    def _pause(self, shift: Shift, left_s: float) -> None:
        while left_s > 0 and not shift.over():
            shift.beat()
            if self._stopping.wait(min(left_s, _BEAT_S)):
                return
            left_s -= _BEAT_S
        shift.beat()

    def _serve(self, shift: Shift, handlers: LinkHandlers) -> bool:
        """Run one connection until it ends; return whether the next try should come soon.

        Raises:
            OSError: The broker can't be reached.
        """
        line = self._make_line(handlers)
        if not self._put(shift, line):
            return False
        line.open()
        began = self._monotonic()
        while not shift.over() or self._stopping.is_set():
            shift.beat()
            if not line.turn(0.1 if self._stopping.is_set() else _POLL_S):
                break
            lasted = self._monotonic() - began >= LASTING_S
            if line.is_up and line.fault is None and (lasted or self._short < _MANY):
                self._note(shift, None)
            if self._stopping.is_set() and line.say_goodbye():
                return False
        if shift.over():
            line.say_goodbye()
            return False
        return self._learn(shift, line, lasted_s=self._monotonic() - began)

    def _put(self, shift: Shift, line: Line | None) -> bool:
        """Make a line the one of now, unless another thread has taken over; returns whether it is.

        Under a lock: the other's line must not be replaced by one who looked just before its shift ended.
        """
        with self._placing:
            if shift.over():
                return False
            self._line = line
            return True

    def _learn(self, shift: Shift, line: Line, *, lasted_s: float) -> bool:
        """Take from a connection that has ended what it tells about the next one."""
        if line.is_unsupported:
            self._dialect.unsupported()
        elif line.is_answered:
            self._dialect.answered(line.version)
        elif lasted_s < _HANGS_UP_S:  # later it is the network that swallows everything
            self._dialect.unanswered()
        lasted = lasted_s >= LASTING_S
        self._short = self._short + 1 if line.is_up and not lasted else 0
        self._note(shift, line.fault or (_SHORT_LIVED if self._short >= _MANY else _LOST))
        return line.is_unsupported or (line.is_up and lasted)

    def _make_line(self, handlers: LinkHandlers) -> Line:
        return Line(
            self._broker,
            device=self._device,
            secret=self._secret(),
            version=self._dialect.version,
            handlers=handlers,
            keepalive_s=self._keepalive_s,
        )

    def _note(self, shift: Shift, fault: LinkFault | None) -> None:
        if not shift.over():
            self._fault = fault

    def _tls(self) -> ssl.SSLContext:
        from shoal_agent.adapters.tls import client_context  # noqa: PLC0415 - as paho

        return client_context(ca_file=self._ca_file, certificate_time=self._certificate_time, client=self._client_files)
