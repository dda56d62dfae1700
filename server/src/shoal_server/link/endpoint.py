"""The embedded MQTT endpoint: devices connect to the server itself, no broker to install.

Owns the listening socket, an asyncio loop in a thread of its own, the table of connected devices and what is stored
for them. The protocol's rules are `session`'s, one device's bytes are `connection`'s. Speaks MQTT 3.1.1, QoS 0 and 1,
and only Shoal's own topics; nobody but the server hears devices.

Invariants:
    - All state but the mailboxes belongs to the loop's thread; other threads post work to it.
    - Reading stops while too much is handed over and not done, per device and in all; TCP then slows the senders.
    - What is stored (retained) lives in memory: after a restart `connections` tells the publisher to send it again.
    - Sessions do not outlive their connection: a device subscribes after every connect, and resends what it has no
      acknowledgement of the server for.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import ssl
import threading
from collections import Counter, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from shoal_protocol.errors import LocalError
from shoal_protocol.mqtt.messages import ServerStatus, encode_message
from shoal_protocol.mqtt.topics import SERVER_STATUS
from shoal_server.link.access_rules import addressee
from shoal_server.link.connection import Connection
from shoal_server.link.port import Credential, Inbound, InboundHandler, LinkError
from shoal_server.link.session import HandOver
from shoal_server.link.verifiers import verify_secret
from shoal_server.storage.database import Clock

log = logging.getLogger(__name__)

_PATIENCE_S = 10.0
_GOODBYE_S = 0.5


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What one endpoint bears.

    Attributes:
        connections: Open at once; further ones are closed as they come.
        unproven_per_address: Open at once from one address before they have proven who they are; loopback is not
            counted, where a proxy may speak for many.
        undone: Messages handed over and not done, of all devices.
        undone_per_device: The same, of one device.
        connect_s: Time from the opening of a connection to its CONNECT.
        max_keep_alive_s: A device that asks for a longer keep-alive, or for none, gets this.
        sweep_s: How often the silent are looked for.
        unsent_bytes: A device that leaves more than this unread is thrown out.
    """

    connections: int = 20_000
    unproven_per_address: int = 200
    undone: int = 4_000
    undone_per_device: int = 200
    connect_s: float = 10.0
    max_keep_alive_s: int = 1200
    sweep_s: float = 0.5
    unsent_bytes: int = 256 * 1024


class EmbeddedLink:
    """A `DeviceLink` that listens itself.

    Args:
        host: Address to listen on.
        port: Port to listen on; 0 takes a free one, which `url` tells and a later `start` keeps.
        clock: For the server's status message.
        ssl_context: Speaks TLS when given.
        limits: What it bears.
    """

    def __init__(
        self,
        host: str,
        port: int,
        *,
        clock: Clock,
        ssl_context: ssl.SSLContext | None = None,
        limits: Limits | None = None,
    ) -> None:
        self.host, self.port = host, port
        self.limits = limits or Limits()
        self._clock = clock
        self._tls = ssl_context
        self._handler: InboundHandler | None = None
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop, self._all_gone = asyncio.Event(), asyncio.Event()
        self._failure: BaseException | None = None
        self._listening = threading.Event()
        self._connections = 0
        self._mail: deque[Callable[[], None]] = deque()
        self._done: deque[tuple[Connection, int]] = deque()
        self._waking = False
        self._credentials: dict[str, str] = {}
        self._stored: dict[str, bytes] = {}
        self._open: set[Connection] = set()
        self._devices: dict[str, Connection] = {}
        self._unproven: Counter[str] = Counter()
        self._paused: set[Connection] = set()
        self._undone = 0

    @property
    def connected(self) -> bool:
        """Whether it listens."""
        return self._listening.is_set() and self._thread is not None and self._thread.is_alive()

    @property
    def connections(self) -> int:
        """How often it was started; what was stored before is gone."""
        return self._connections

    @property
    def devices(self) -> int:
        """How many devices are connected now."""
        return len(self._devices)

    @property
    def undone(self) -> int:
        """How many messages are handed over and not done."""
        return self._undone

    @property
    def url(self) -> str:
        """Where devices connect."""
        return f"{'mqtts' if self._tls else 'mqtt'}://{self.host}:{self.port}"

    def start(self, handler: InboundHandler) -> None:
        """Listen, in a thread of its own.

        Raises:
            LocalError: The address can't be listened on.
        """
        self._handler = handler
        self._failure, self._stop, self._all_gone = None, asyncio.Event(), asyncio.Event()
        self._listening.clear()
        ready = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(ready,), name="shoal-mqtt-endpoint", daemon=True)
        self._thread.start()
        ready.wait(_PATIENCE_S)
        if not self._listening.is_set():
            raise LocalError(
                f"can't listen for MQTT on {self.host}:{self.port}: {self._failure}",
                hint="choose another port with --mqtt-listen, or 0 for a free one",
            )

    def publish(self, topic: str, payload: bytes, *, retain: bool = False) -> None:
        """Send a message to the device that its topic names, or to all.

        Raises:
            ContentError: The server does not speak on this topic.
            LinkError: The endpoint is not running.
        """
        addressee(topic)
        if not self.connected:
            raise LinkError("the embedded MQTT endpoint is not running", hint="see the server's log for why it ended")
        self._post(partial(self._deliver, topic, payload, retain=retain))

    def sync_credentials(self, credentials: Sequence[Credential]) -> None:
        """Let exactly these devices in; throw out who is gone or changed."""
        wanted = dict(credentials)
        if self.connected:
            self._call(partial(self._take_credentials, wanted))
        else:
            self._credentials = wanted

    def kick(self, device: str) -> None:
        """End the device's session."""
        if self.connected:
            self._call(partial(self._kick, device))

    def stop(self) -> None:
        """Say goodbye, close every connection and the socket; the handler is not called again."""
        thread, self._thread = self._thread, None
        if thread is not None:
            self._post(self._stop.set)
            thread.join(_PATIENCE_S)

    # --------------------------------------------------------------------------------- called by any thread

    def _post(self, work: Callable[[], None]) -> None:
        self._mail.append(work)
        self._wake()

    def _call(self, work: Callable[[], None]) -> None:
        """Have the loop's thread do something, and wait for it."""
        finished = threading.Event()

        def work_and_tell() -> None:
            try:
                work()
            finally:
                finished.set()

        self._post(work_and_tell)
        if threading.current_thread() is not self._thread and not finished.wait(_PATIENCE_S):
            raise LinkError("the embedded MQTT endpoint does not answer")

    def _post_done(self, connection: Connection, packet_id: int) -> None:
        self._done.append((connection, packet_id))
        self._wake()

    def _wake(self) -> None:
        if not self._waking and self._loop is not None:
            self._waking = True
            with contextlib.suppress(RuntimeError):  # the loop has ended: nobody is left to hear
                self._loop.call_soon_threadsafe(self._read_mail)

    # ------------------------------------------------------------------------ the rest: the loop's thread only

    def _run(self, ready: threading.Event) -> None:
        try:
            asyncio.run(self._serve(ready))
        except Exception as error:
            self._failure = error
            log.exception("the MQTT endpoint ended")
        finally:
            self._listening.clear()
            ready.set()

    async def _serve(self, ready: threading.Event) -> None:
        loop = self._loop = asyncio.get_running_loop()
        self._waking = False
        self._devices, self._open, self._paused = {}, set(), set()
        self._unproven = Counter()
        try:
            server = await loop.create_server(
                partial(Connection, self),
                self.host,
                self.port,
                ssl=self._tls,
                ssl_handshake_timeout=self.limits.connect_s if self._tls else None,
                backlog=1024,
            )
        except OSError as error:
            self._failure = error
            return
        self.port = server.sockets[0].getsockname()[1]
        self._stored = {SERVER_STATUS: self._status(online=True)}
        self._connections += 1
        self._listening.set()
        ready.set()
        sweeping = loop.create_task(self._sweep())
        await self._stop.wait()
        sweeping.cancel()
        server.close()
        await self._say_goodbye()

    async def _say_goodbye(self) -> None:
        self._all_gone.clear()
        self._handler = None  # no wills: it is the server that goes
        self._deliver(SERVER_STATUS, self._status(online=False), retain=True)
        for connection in list(self._open):
            connection.carry_out(connection.session.close("the server stops"))
        if self._open:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._all_gone.wait(), _GOODBYE_S)
        for connection in list(self._open):
            connection.abort()
        await asyncio.sleep(0)

    async def _sweep(self) -> None:
        while True:
            await asyncio.sleep(self.limits.sweep_s)
            now = asyncio.get_running_loop().time()
            for connection in list(self._open):
                connection.end_if_silent(now)

    def _status(self, *, online: bool) -> bytes:
        return encode_message(ServerStatus(online=online, at=round(self._clock() * 1000)))

    def _read_mail(self) -> None:
        self._waking = False  # first: whatever is posted from here on wakes the loop again
        while self._done:
            connection, packet_id = self._done.popleft()
            self._undone -= 1
            connection.done(packet_id)
        while self._mail:
            try:
                self._mail.popleft()()
            except Exception:
                log.exception("work posted to the MQTT endpoint failed")
        if self._paused and self._undone <= self.limits.undone // 2:
            for connection in list(self._paused):
                connection.resume_if_low()

    def _deliver(self, topic: str, payload: bytes, *, retain: bool) -> None:
        if retain and payload:
            self._stored[topic] = payload
        elif retain:
            self._stored.pop(topic, None)
        device = addressee(topic)
        connections = list(self._devices.values()) if device is None else [self._devices.get(device)]
        for connection in connections:
            if connection is not None:
                connection.carry_out(connection.session.deliver(topic, payload, retain=False))

    def _take_credentials(self, wanted: dict[str, str]) -> None:
        before, self._credentials = self._credentials, wanted
        for device in [device for device in self._devices if before.get(device) != wanted.get(device)]:
            self._kick(device)

    def _kick(self, device: str) -> None:
        if (connection := self._devices.get(device)) is not None:
            connection.carry_out(connection.session.close("kicked"))

    # What connections ask for and tell.

    def authenticate(self, device: str, secret: bytes) -> bool:
        """Tell whether this is that device."""
        line = self._credentials.get(device)
        return line is not None and verify_secret(secret, line)

    def opened(self, connection: Connection) -> bool:
        """Count a new connection in; False when there are too many."""
        if len(self._open) >= self.limits.connections:
            return False
        if connection.address:
            if self._unproven[connection.address] >= self.limits.unproven_per_address:
                return False
            self._unproven[connection.address] += 1
        self._open.add(connection)
        return True

    def proven(self, connection: Connection) -> None:
        """Count a connection out of those that have not proven who they are."""
        address, connection.address = connection.address, ""
        if address:
            self._unproven[address] -= 1
            if not self._unproven[address]:
                del self._unproven[address]

    def admitted(self, device: str, connection: Connection) -> None:
        """Give a device to its new connection, ending the one before (3.1.4)."""
        self.proven(connection)
        older = self._devices.get(device)
        if older is not None:
            older.carry_out(older.session.close("the device has connected again"))
        self._devices[device] = connection

    def closed(self, connection: Connection) -> None:
        """Take a device off its connection, which may still flush."""
        self._paused.discard(connection)
        if self._devices.get(connection.session.device) is connection:
            del self._devices[connection.session.device]

    def gone(self, connection: Connection) -> None:
        """Forget a connection."""
        if connection in self._open:
            self.proven(connection)
        self._open.discard(connection)
        if not self._open:
            self._all_gone.set()

    def hand_over(self, connection: Connection, effect: HandOver) -> bool:
        """Give a message to the handler; False when it was not taken, so that the device keeps it."""
        if self._handler is None:
            return False
        done = partial(self._post_done, connection, effect.packet_id)
        self._undone += 1
        try:
            self._handler(Inbound(connection.session.device, effect.kind, effect.payload, retained=False, done=done))
        except Exception:
            log.exception("the handler of device messages failed")
            self._undone -= 1
            return False
        return True

    def stored(self, topic: str) -> bytes | None:
        """Return what is stored on a topic."""
        return self._stored.get(topic)

    @property
    def full(self) -> bool:
        """Whether too much is handed over and not done."""
        return self._undone >= self.limits.undone

    def paused(self, connection: Connection) -> None:
        """Remember a connection that has stopped reading."""
        self._paused.add(connection)

    def resumed(self, connection: Connection) -> None:
        """Forget a connection that reads again."""
        self._paused.discard(connection)
