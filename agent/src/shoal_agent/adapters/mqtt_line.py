"""One connection to a broker, from CONNECT to its end, with paho underneath; MQTT 5 or 3.1.1.

Every connection is a fresh client with a clean session: what was under way is the outbox's to send again, and no
acknowledgement of an old connection can be mistaken for a new one. It counts as up when the broker has acknowledged the
device's presence, which proves that it takes what this device says. Callbacks are guarded, because an exception in one
would end the thread.

What MQTT 5 adds: why something was refused, and why the broker ends a connection; how large a packet it takes; copies
of spooled messages expire at the broker, since the device sends them again anyhow; what a payload is.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import msgspec

from shoal_agent.adapters.mqtt_causes import TOO_LARGE, cause
from shoal_agent.adapters.mqtt_dialect import Version
from shoal_agent.errors import SettingsError
from shoal_agent.ports import LinkFault, LinkHandlers
from shoal_protocol.errors import ContentError
from shoal_protocol.mqtt.messages import MAX_PAYLOAD, parse_server_status
from shoal_protocol.mqtt.packets import MAX_PACKET
from shoal_protocol.mqtt.topics import RETAINED, SERVER_STATUS, Down, Up, down_filter, parse_topic, up

if TYPE_CHECKING:
    import ssl

    from paho.mqtt.client import Client
    from paho.mqtt.properties import Properties

DEFAULT_PORTS = {"mqtt": 1883, "mqtts": 8883, "ws": 80, "wss": 443}
KEEPALIVE_S = 60
_UNDER_WAY = 10
"""Messages that the broker has not acknowledged, at most: as many as the strictest of the common brokers takes."""

_EXPIRES_S = 3600
_HEAD_BYTES = 64
"""Of a packet beside topic and payload, at most."""

_UNSUPPORTED = "Unsupported protocol version"
_UNHEARD = "No matching subscribers"
_log = logging.getLogger(__name__)


class Broker(msgspec.Struct, frozen=True, kw_only=True):
    """Where a broker is.

    Attributes:
        host: Its name or address.
        port: Its port.
        path: Of its websocket; none: plain TCP.
        tls: Makes the context; none: not encrypted.
    """

    host: str
    port: int
    path: str | None = None
    tls: Callable[[], ssl.SSLContext] | None = None


def broker_at(url: str, *, tls: Callable[[], ssl.SSLContext]) -> Broker:
    """Return where a URL leads to.

    Args:
        url: ``mqtt(s)://host:port``, or ``ws(s)://host:port/path``.
        tls: Makes the context where the URL asks for encryption.

    Raises:
        SettingsError: It is none of these.
    """
    parts = urlsplit(url)
    if parts.scheme not in DEFAULT_PORTS or not parts.hostname:
        raise SettingsError(f"expected mqtt(s)://host:port or ws(s)://host:port/path, got {url!r}")
    return Broker(
        host=parts.hostname,
        port=parts.port or DEFAULT_PORTS[parts.scheme],
        path=(parts.path or "/mqtt") if parts.scheme in {"ws", "wss"} else None,
        tls=tls if parts.scheme in {"mqtts", "wss"} else None,
    )


class Line:
    """A connection of a device.

    Args:
        broker: Where to.
        device: Client id and user name.
        secret: Password.
        version: Of MQTT.
        handlers: Whom to call.
        keepalive_s: Seconds of silence after which a sign of life is sent.
    """

    def __init__(
        self,
        broker: Broker,
        *,
        device: str,
        secret: str,
        version: Version,
        handlers: LinkHandlers,
        keepalive_s: int = KEEPALIVE_S,
    ) -> None:
        self._keepalive_s = keepalive_s
        self.version = version
        self.is_open = self.is_answered = self.is_unsupported = self.is_up = False
        self.server_away = False
        """Whether the server has told, or the broker, that it listens to nobody now."""
        self.is_too_narrow = False
        """Whether a message was larger than the broker takes."""
        self.fault: LinkFault | None = None
        self._broker, self._device, self._handlers = broker, device, handlers
        self._online, will = handlers.greeting()
        self._presence: int | None = None
        self._largest = MAX_PACKET
        self._client = self._make_client(secret, will)

    def open(self) -> None:
        """Connect and send CONNECT.

        Raises:
            OSError: The broker can't be reached.
        """
        host, port = self._broker.host, self._broker.port
        if self.version is Version.V5:
            wanted = _properties("CONNECT", SessionExpiryInterval=0, MaximumPacketSize=MAX_PACKET)
            self._client.connect(host, port, self._keepalive_s, clean_start=True, properties=wanted)
        else:
            self._client.connect(host, port, self._keepalive_s)
        self.is_open = True

    def turn(self, seconds: float) -> bool:
        """Read and write for a while; return whether the connection goes on."""
        return int(self._client.loop(seconds)) == 0

    def publish(self, kind: Up, payload: bytes) -> bool:
        """Hand a message to paho; it goes out on the thread that calls `turn`."""
        topic = up(self._device, kind)
        if not self.is_up:
            return False
        if len(topic) + len(payload) + _HEAD_BYTES > self._largest:
            self.is_too_narrow = True
            self.fault = LinkFault(TOO_LARGE, f"the broker takes no message of more than {self._largest} bytes")
            return False
        return self._send(kind, payload) is not None

    def say_goodbye(self) -> bool:
        """Send DISCONNECT once nothing else is to be sent; return whether it was."""
        if self._client.want_write():
            return False
        self._client.disconnect()
        self._client.loop_write()
        return True

    def _send(self, kind: Up, payload: bytes) -> int | None:
        properties = None
        if self.version is Version.V5:
            content = "application/vnd.msgpack" if kind is Up.PROFILE else "application/json"
            lasting = {} if kind in RETAINED else {"MessageExpiryInterval": _EXPIRES_S}
            properties = _properties("PUBLISH", ContentType=content, **lasting)
        retain = kind in RETAINED
        info = self._client.publish(up(self._device, kind), payload, qos=1, retain=retain, properties=properties)
        return info.mid if int(info.rc) == 0 else None

    def _make_client(self, secret: str, will: bytes) -> Client:
        from paho.mqtt.client import Client  # noqa: PLC0415 - a start without network should not pay
        from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion  # noqa: PLC0415 - as above

        client = Client(
            CallbackAPIVersion.VERSION2,
            client_id=self._device,
            clean_session=None if self.version is Version.V5 else True,
            protocol=MQTTProtocolVersion(int(self.version)),
            reconnect_on_failure=False,
            transport="tcp" if self._broker.path is None else "websockets",
        )
        if self._broker.path is not None:
            client.ws_set_options(path=self._broker.path)
        client.max_inflight_messages_set(_UNDER_WAY)
        client.username_pw_set(self._device, secret)
        client.will_set(up(self._device, Up.PRESENCE), will, qos=1, retain=True)
        if self._broker.tls is not None:
            client.tls_set_context(self._broker.tls())
        client.on_connect = _guarded(self._on_connect)
        client.on_subscribe = _guarded(self._on_subscribe)
        client.on_publish = _guarded(self._on_publish)
        client.on_message = _guarded(self._on_message)
        client.on_disconnect = _guarded(self._on_disconnect)
        # With a callback here, publish() leaves the writing to the loop, which it wakes; else paho writes from the
        # calling thread, and two threads could write into each other's packets.
        client.on_socket_register_write = lambda _client, _data, _socket: None
        return client

    def _on_connect(self, client: Client, _data: object, _flags: object, reason: Any, properties: Any) -> None:
        self.is_answered = True
        if reason.is_failure:
            self.is_unsupported = str(reason) == _UNSUPPORTED
            self._refuse(reason, doing="login")
            return
        self._largest = min(getattr(properties, "MaximumPacketSize", MAX_PACKET), MAX_PACKET)
        client.subscribe([(down_filter(self._device), 1), (SERVER_STATUS, 1)])

    def _on_subscribe(self, _client: Client, _data: object, _mid: int, reasons: list[Any], _properties: object) -> None:
        if reasons and reasons[0].is_failure:
            self._refuse(reasons[0], doing="subscription")
            return
        self._presence = self._send(Up.PRESENCE, self._online)

    def _on_publish(self, _client: Client, _data: object, mid: int, reason: Any, _properties: object) -> None:
        is_presence, self._presence = mid == self._presence, None if mid == self._presence else self._presence
        if reason.is_failure:  # one refusal means more: what is due goes over HTTP
            self._refuse(reason, doing="publishing")
            return
        if str(reason) == _UNHEARD:
            self.fault, self.server_away = cause(reason, doing="publishing"), True
        if is_presence:
            self.is_up = True
            if not self.server_away:
                self._tell_connected()

    def _on_message(self, _client: Client, _data: object, message: Any) -> None:
        if len(message.payload) > MAX_PAYLOAD:
            return
        try:
            if message.topic == SERVER_STATUS:
                self._heed(online=parse_server_status(bytes(message.payload)).online)
                return
            kind = parse_topic(message.topic).kind
        except ContentError as error:
            _log.warning("mqtt: %s", error)
            return
        if isinstance(kind, Down):
            self._handlers.on_message(kind, bytes(message.payload))

    def _heed(self, *, online: bool) -> None:
        """While the server is away, the device keeps what it has to say, and tries HTTP."""
        was_away, self.server_away = self.server_away, not online
        self.fault = None if online else LinkFault("server_away", "the server is not connected to the broker")
        if online and was_away and self.is_up:
            self._tell_connected()

    def _on_disconnect(self, _client: Client, _data: object, flags: Any, reason: Any, _properties: object) -> None:
        if flags.is_disconnect_packet_from_server:
            self.fault = cause(reason, doing="the end of the connection")

    def _refuse(self, reason: Any, *, doing: str) -> None:
        self.fault = cause(reason, doing=doing)
        self.is_up = False
        if not self.is_unsupported:
            _log.warning("mqtt: %s", self.fault.message)
        self._client.disconnect()

    def _tell_connected(self) -> None:
        _guarded(self._handlers.on_connected)()


def _properties(packet: str, **values: Any) -> Properties:
    from paho.mqtt.packettypes import PacketTypes  # noqa: PLC0415 - as paho's client
    from paho.mqtt.properties import Properties  # noqa: PLC0415 - as above

    made = Properties(getattr(PacketTypes, packet))  # type: ignore[no-untyped-call]  # paho types the rest
    for name, value in values.items():
        setattr(made, name, value)
    return made


def _guarded(call: Callable[..., None]) -> Callable[..., None]:
    def guard(*args: object) -> None:
        try:
            call(*args)
        except Exception:  # noqa: BLE001 - an exception in a callback would end the network thread
            _log.exception("mqtt: a handler failed")

    return guard
