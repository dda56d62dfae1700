"""The line to the devices over an external MQTT broker, with paho-mqtt.

Owns one connection to the broker, a thread that drives it, and the order of acknowledgements. Which devices the broker
lets in is `credentials`'. Speaks MQTT 3.1.1, QoS 1, with a persistent session under the server's own user name, so that
the broker keeps what devices send while the server is away.

Invariants:
    - Everything that paho does, it does in one thread of ours, never in its own: an error in a callback is logged and
      can't end it, and no acknowledgement can slip onto a newer connection.
    - A message is acknowledged only after `done()`, in the order of those calls; when its connection has gone the
      acknowledgement is dropped, and the broker sends the message again.
    - Reading stops while too much is handed over and not done.
"""

from __future__ import annotations

import contextlib
import logging
import selectors
import socket
import ssl
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeoutError
from functools import partial
from typing import Any, NamedTuple
from urllib.parse import SplitResult, unquote, urlsplit

from paho.mqtt.client import Client, MQTTMessage
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion

from shoal_protocol.errors import CallerError, ContentError
from shoal_protocol.mqtt.messages import ServerStatus, encode_message
from shoal_protocol.mqtt.topics import SERVER_STATUS, UP_FILTER, Up, parse_topic
from shoal_server.link.access_rules import addressee
from shoal_server.link.credentials import BrokerCredentials, ManagedElsewhere
from shoal_server.link.port import Credential, Inbound, InboundHandler, LinkError
from shoal_server.storage.database import Clock

log = logging.getLogger(__name__)

SERVER_USER = "server"
"""The server's user name and client id at the broker when the URL names none; no device can be called so."""

DEFAULT_PORTS = {"mqtt": 1883, "mqtts": 8883, "ws": 80, "wss": 443}
"""By scheme of a broker's URL."""

_SECURE = frozenset({"mqtts", "wss"})
_KEEP_ALIVE_S = 30
_TICK_S = 0.25
_BURST = 64
_MAX_UNSENT = 10_000
_RETRY_S = (0.05, 5.0)
_LASTING_S = 10.0


class _Mail(NamedTuple):
    """A message to be sent; `stored` is resolved by the broker's acknowledgement."""

    topic: str
    payload: bytes
    stored: Future[None] | None


class BrokerLink:
    """A `DeviceLink` over a broker.

    Args:
        url: ``mqtt(s)://user:password@host:port`` or ``ws(s)://…/path``; the user defaults to ``server``.
        clock: For the server's status message.
        credentials: How the broker learns which devices to let in; by default somebody else tells it.
        ssl_context: For ``mqtts``; by default the system's certificate authorities.
        max_undone: Messages handed over and not done at which reading stops.
        confirm_s: How long a message to be stored may take.

    Raises:
        CallerError: The URL is not of this form.
    """

    def __init__(
        self,
        url: str,
        *,
        clock: Clock,
        credentials: BrokerCredentials | None = None,
        ssl_context: ssl.SSLContext | None = None,
        max_undone: int = 2000,
        confirm_s: float = 5.0,
    ) -> None:
        self._address = _parsed(url)
        if self._address.scheme in _SECURE:
            self._tls = ssl_context or ssl.create_default_context()
        self._clock = clock
        self._credentials: BrokerCredentials = credentials or ManagedElsewhere()
        self._max_undone = max_undone
        self._confirm_s = confirm_s
        self._handler: InboundHandler | None = None
        self._thread: threading.Thread | None = None
        self._stopping = threading.Event()
        self._connected = threading.Event()
        self._connections = 0
        self._bell: socket.socket | None = None
        self._clapper: socket.socket | None = None
        self._ringing = False
        self._mail: deque[_Mail] = deque()
        self._done: deque[tuple[int, int]] = deque()
        # of the link's thread only:
        self._line = 0
        self._received = 0
        self._undone = 0
        self._waiting: dict[int, Future[None]] = {}
        self._is_told_down = False

    @property
    def connected(self) -> bool:
        """Whether the broker has granted our subscription and nothing has ended since."""
        return self._connected.is_set()

    @property
    def connections(self) -> int:
        """How often the line was established."""
        return self._connections

    @property
    def undone(self) -> int:
        """How many messages are handed over and not done."""
        return self._undone

    @property
    def url(self) -> str:
        """Where devices connect."""
        path = self._address.path if self._is_web else ""
        return f"{self._address.scheme}://{self._host}:{self._port}{path}"

    @property
    def _is_web(self) -> bool:
        return self._address.scheme in {"ws", "wss"}

    @property
    def _host(self) -> str:
        return self._address.hostname or ""

    @property
    def _port(self) -> int:
        return self._address.port or DEFAULT_PORTS[self._address.scheme]

    def start(self, handler: InboundHandler) -> None:
        """Connect, and connect again whenever the line is lost; returns at once.

        Raises:
            LinkError: The broker's files can't be written, so that it would never let the server in.
        """
        self._credentials.prepare()
        self._handler = handler
        self._bell, self._clapper = socket.socketpair()
        self._bell.settimeout(0)
        self._ringing = False
        self._stopping.clear()
        self._thread = threading.Thread(target=self._run, name="shoal-mqtt-broker", daemon=True)
        self._thread.start()

    def publish(self, topic: str, payload: bytes, *, retain: bool = False) -> None:
        """Send a message; with `retain` wait until the broker has stored it.

        Raises:
            ContentError: The server does not speak on this topic.
            LinkError: The broker did not confirm a message to be stored.
        """
        addressee(topic)
        if not retain:
            if self.connected and len(self._mail) < _MAX_UNSENT:
                self._post(_Mail(topic, payload, None))
            return
        if not self.connected:
            raise LinkError(f"the broker {self.url} is not connected", hint="see the server's log for the reason")
        stored: Future[None] = Future()
        self._post(_Mail(topic, payload, stored))
        if threading.current_thread() is self._thread:
            return
        try:
            stored.result(self._confirm_s)
        except FutureTimeoutError as error:
            raise LinkError(f"the broker {self.url} did not confirm within {self._confirm_s:g} s") from error

    def sync_credentials(self, credentials: Sequence[Credential]) -> None:
        """Have the broker let exactly these devices in."""
        self._credentials.sync(credentials)

    def kick(self, device: str) -> None:
        """End the device's session at the broker."""
        self._credentials.kick(device)

    def stop(self) -> None:
        """Tell the devices, disconnect and end the thread; the handler is not called again."""
        self._stopping.set()
        self._ring()
        thread, self._thread = self._thread, None
        if thread is not None:
            thread.join()
        for end in (self._clapper, self._bell):
            if end is not None:
                end.close()

    # --------------------------------------------------------------------------------- called by any thread

    def _post(self, mail: _Mail) -> None:
        self._mail.append(mail)
        self._ring()

    def _post_done(self, line: int, packet_id: int) -> None:
        self._done.append((line, packet_id))
        self._ring()

    def _ring(self) -> None:
        if not self._ringing and self._clapper is not None:
            self._ringing = True
            with contextlib.suppress(OSError):  # closed by stop(): nobody is left to hear
                self._clapper.send(b"!")

    # ------------------------------------------------------------------------ the rest: the link's thread only

    def _run(self) -> None:
        shortest, longest = _RETRY_S
        pause_s = shortest
        while not self._stopping.is_set():
            since = time.monotonic()
            try:
                self._converse()
            except OSError as error:
                self._tell_down(f"can't reach the broker {self.url}: {error}")
            except Exception:
                log.exception("the line to the broker failed")
            finally:
                self._hang_up()
            # A line that is soon lost again counts as none: two servers under one name would throw each other out.
            pause_s = shortest if time.monotonic() - since > _LASTING_S else min(2 * pause_s, longest)
            self._stopping.wait(pause_s)

    def _converse(self) -> None:
        """Connect and exchange messages until the line is lost or we stop."""
        client = self._client()
        client.connect(self._host, self._port, _KEEP_ALIVE_S)
        bell, line = self._bell, client.socket()
        assert bell is not None
        assert line is not None
        with selectors.DefaultSelector() as selector:
            selector.register(bell, selectors.EVENT_READ)
            selector.register(line, selectors.EVENT_READ)
            tick_at = 0.0
            while client.socket() is not None and not self._stopping.is_set():
                wanted = (0 if self._full else selectors.EVENT_READ) | (client.want_write() * selectors.EVENT_WRITE)
                self._select(selector, line, wanted)
                self._read_mail(client)
                if not self._full:
                    self._read(client)
                    if time.monotonic() >= tick_at:  # not while we don't read: answers to our pings would lie unread
                        client.loop_misc()
                        tick_at = time.monotonic() + _TICK_S
                if client.want_write():
                    client.loop_write()
        if self._stopping.is_set():
            self._say_goodbye(client)

    def _select(self, selector: selectors.BaseSelector, line: Any, wanted: int) -> None:
        if wanted:
            if line in selector.get_map():
                selector.modify(line, wanted)
            else:
                selector.register(line, wanted)
        elif line in selector.get_map():
            selector.unregister(line)
        has_pending = getattr(line, "pending", int)() > 0  # decrypted by TLS, so no longer seen by select
        selector.select(0 if has_pending else _TICK_S)

    def _client(self) -> Client:
        user = unquote(self._address.username or SERVER_USER)
        client = Client(
            CallbackAPIVersion.VERSION2,
            client_id=user,
            clean_session=False,
            protocol=MQTTProtocolVersion.MQTTv311,
            manual_ack=True,
            reconnect_on_failure=False,
            transport="websockets" if self._is_web else "tcp",
        )
        if self._is_web:
            client.ws_set_options(path=self._address.path or "/mqtt")
        client.username_pw_set(user, unquote(self._address.password or "") or None)
        if self._address.scheme in _SECURE:
            client.tls_set_context(self._tls)
        client.will_set(SERVER_STATUS, self._status(online=False), qos=1, retain=True)
        self._line += 1
        client.on_connect = _guarded(self._on_connect)
        client.on_subscribe = _guarded(self._on_subscribe)
        client.on_disconnect = _guarded(self._on_disconnect)
        client.on_publish = _guarded(self._on_publish)
        client.on_message = _guarded(partial(self._on_message, self._line))
        client.on_socket_register_write = lambda *_: None  # else paho would write from within ack() and publish()
        return client

    def _on_connect(self, client: Client, _data: object, _flags: object, reason: Any, _properties: object) -> None:
        if reason.is_failure:
            self._tell_down(f"the broker {self.url} refuses the user {client.username!r}: {reason}")
            return
        client.subscribe(UP_FILTER, qos=1)
        client.publish(SERVER_STATUS, self._status(online=True), qos=1, retain=True)

    def _on_subscribe(self, _client: Client, _data: object, _id: int, codes: list[Any], _properties: object) -> None:
        if any(code.is_failure for code in codes):
            self._tell_down(f"the broker {self.url} does not let the server read {UP_FILTER}: check its ACL")
            return
        self._connections += 1
        self._connected.set()
        self._is_told_down = False
        log.info("connected to the broker %s", self.url)

    def _on_disconnect(self, _client: Client, _data: object, _flags: object, reason: Any, _properties: object) -> None:
        if self._connected.is_set() and not self._stopping.is_set():
            self._tell_down(f"the line to the broker {self.url} is lost: {reason}")
        self._connected.clear()

    def _on_publish(self, _client: Client, _data: object, packet_id: int, _reason: object, _properties: object) -> None:
        stored = self._waiting.pop(packet_id, None)
        if stored is not None:
            stored.set_result(None)

    def _on_message(self, line: int, client: Client, _data: object, message: MQTTMessage) -> None:
        self._received += 1
        try:
            topic = parse_topic(message.topic)
        except (ContentError, UnicodeDecodeError):
            topic = None
        if topic is None or not isinstance(topic.kind, Up) or self._handler is None:
            client.ack(message.mid, message.qos)
            return
        self._undone += 1
        done = partial(self._post_done, line, message.mid if message.qos else 0)
        self._handler(Inbound(topic.device, topic.kind, bytes(message.payload), message.retain, done))

    @property
    def _full(self) -> bool:
        return self._undone >= self._max_undone

    def _read(self, client: Client) -> None:
        """Read packets while there are any: paho takes one at a time, and asking the selector for each is slow."""
        for _ in range(_BURST):
            before = self._received
            client.loop_read()
            if self._received == before or self._full or client.socket() is None:
                return

    def _read_mail(self, client: Client) -> None:
        self._ringing = False  # before reading: whatever is posted from here on rings again
        if self._bell is not None:
            with contextlib.suppress(BlockingIOError):  # nobody rang; or two did at once, and both are heard
                self._bell.recv(64)
        while self._done:
            line, packet_id = self._done.popleft()
            self._undone -= 1
            if packet_id and line == self._line:
                client.ack(packet_id, 1)
        while self._mail and self._connected.is_set():
            mail = self._mail.popleft()
            if mail.stored is None:
                client.publish(mail.topic, mail.payload)
            else:
                self._waiting[client.publish(mail.topic, mail.payload, qos=1, retain=True).mid] = mail.stored

    def _say_goodbye(self, client: Client) -> None:
        if client.socket() is None:
            return
        if self._connected.is_set():
            client.publish(SERVER_STATUS, self._status(online=False), qos=1, retain=True)
        client.disconnect()
        until = time.monotonic() + 1
        while client.socket() is not None and client.want_write() and time.monotonic() < until:
            client.loop_write()

    def _hang_up(self) -> None:
        """Fail whatever waits for the line that is gone."""
        self._connected.clear()
        self._line += 1
        waiting = list(self._waiting.values())
        self._waiting.clear()
        while self._mail:  # one by one: other threads may post to it meanwhile
            mail = self._mail.popleft()
            if mail.stored is not None:
                waiting.append(mail.stored)
        for stored in waiting:
            stored.set_exception(LinkError(f"the line to the broker {self.url} was lost"))

    def _tell_down(self, reason: str) -> None:
        """Log why the line is down, once until it is up again."""
        if not self._is_told_down:
            log.warning("%s; trying again", reason)
        self._is_told_down = True

    def _status(self, *, online: bool) -> bytes:
        return encode_message(ServerStatus(online=online, at=round(self._clock() * 1000)))


def _guarded(callback: Callable[..., None]) -> Callable[..., None]:
    """Return a callback whose errors are logged: in paho they would end the thread or the connection, silently."""

    def call(*args: object) -> None:
        try:
            callback(*args)
        except Exception:
            log.exception("a callback of the broker's line failed")

    return call


def _parsed(url: str) -> SplitResult:
    parsed = urlsplit(url)
    if parsed.scheme not in DEFAULT_PORTS or not parsed.hostname:
        raise CallerError(
            f"expected mqtt(s)://user:password@host:port or ws(s)://… for the broker, got {parsed.scheme}://…"
        )
    return parsed
