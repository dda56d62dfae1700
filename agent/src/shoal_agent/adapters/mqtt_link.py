"""The link over MQTT 3.1.1, with paho underneath.

One thread per link runs the network loop and connects for ever, with full jitter between the tries; the wait grows also
while connections are made but don't last, as between two devices of one identity that throw each other out. Every
connection is a fresh client with a clean session: what was under way is the outbox's to send again, and no
acknowledgement of an old connection can be mistaken for a new one. Callbacks are guarded, because an exception in one
would end the thread.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from shoal_agent.domain.backoff import Backoff
from shoal_agent.errors import SettingsError
from shoal_agent.ports import Clock, LinkHandlers
from shoal_protocol.errors import ContentError
from shoal_protocol.mqtt.messages import MAX_PAYLOAD
from shoal_protocol.mqtt.topics import RETAINED, SERVER_STATUS, Down, Up, down_filter, parse_topic, up

if TYPE_CHECKING:
    import ssl

    from paho.mqtt.client import Client

    from shoal_agent.adapters.tls import CertificateTime

DEFAULT_PORTS = {"mqtt": 1883, "mqtts": 8883, "ws": 80, "wss": 443}
KEEPALIVE_S = 60
LASTING_S = 30.0
"""A connection that was up for so long was a good one: the next try comes soon."""

_POLL_S = 1.0
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
        backoff: Bounds of the wait between tries.
        chance: Gives uniform draws from [0, 1).
        monotonic: Seconds for durations.
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
        backoff: Backoff,
        chance: Callable[[], float],
        monotonic: Clock = time.monotonic,
    ) -> None:
        parts = urlsplit(url)
        if parts.scheme not in DEFAULT_PORTS or not parts.hostname:
            raise SettingsError(f"expected mqtt(s)://host:port or ws(s)://host:port/path, got {url!r}")
        self._secure = parts.scheme in {"mqtts", "wss"}
        self._path = (parts.path or "/mqtt") if parts.scheme in {"ws", "wss"} else None
        self._host, self._port = parts.hostname, parts.port or DEFAULT_PORTS[parts.scheme]
        self._certificate_time, self._client_files = certificate_time, client
        self._device, self._secret, self._ca_file = device, secret, ca_file
        self._backoff, self._chance, self._monotonic = backoff, chance, monotonic
        self._stopping = threading.Event()
        self._up: Client | None = None
        self._thread: threading.Thread | None = None
        self._handlers: LinkHandlers | None = None

    @property
    def connected(self) -> bool:
        """Whether the broker took the subscription and messages can be handed over."""
        return self._up is not None

    def start(self, handlers: LinkHandlers) -> None:
        """Begin to connect in the background."""
        self._handlers = handlers
        self._thread = threading.Thread(target=self._run, args=(handlers,), name=f"mqtt-{self._device}", daemon=True)
        self._thread.start()

    def publish(self, kind: Up, payload: bytes) -> bool:
        """Hand a message to paho; it goes out on the link's thread."""
        client = self._up
        if client is None:
            return False
        info = client.publish(up(self._device, kind), payload, qos=1, retain=kind in RETAINED)
        return int(info.rc) == 0

    def stop(self) -> None:
        """Publish the offline presence, disconnect, and wait for the thread."""
        if self._handlers is not None and self.connected:
            self.publish(Up.PRESENCE, self._handlers.farewell())
        self._stopping.set()
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join(timeout=10.0)

    def _run(self, handlers: LinkHandlers) -> None:
        tries = 0
        while not self._stopping.is_set():
            lasted = False
            try:
                lasted = self._serve(self._client(handlers))
            except OSError as error:
                _log.info("mqtt: %s:%d can't be reached: %s", self._host, self._port, error)
            except Exception:  # noqa: BLE001 - the boundary of the thread: nothing may end it but stop()
                _log.exception("mqtt: the connection ended by an error of the agent")
            finally:
                self._up = None
            tries = 1 if lasted else tries + 1
            self._stopping.wait(self._backoff.delay_s(tries, self._chance()))

    def _serve(self, client: Client) -> bool:
        """Run the network loop until the connection ends; return whether it was up for long.

        Raises:
            OSError: The broker can't be reached.
        """
        client.connect(self._host, self._port, keepalive=KEEPALIVE_S)
        began = self._monotonic()
        while int(client.loop(_POLL_S if not self._stopping.is_set() else 0.1)) == 0:
            if self._stopping.is_set() and not client.want_write():
                client.disconnect()
                client.loop_write()
                break
        return self.connected and self._monotonic() - began >= LASTING_S

    def _client(self, handlers: LinkHandlers) -> Client:
        from paho.mqtt.client import Client, MQTTv311  # noqa: PLC0415 - a start without network should not pay
        from paho.mqtt.enums import CallbackAPIVersion  # noqa: PLC0415

        online, will = handlers.greeting()
        client = Client(
            CallbackAPIVersion.VERSION2,
            client_id=self._device,
            clean_session=True,
            protocol=MQTTv311,
            reconnect_on_failure=False,
            transport="tcp" if self._path is None else "websockets",
        )
        if self._path is not None:
            client.ws_set_options(path=self._path)
        client.username_pw_set(self._device, self._secret())
        client.will_set(up(self._device, Up.PRESENCE), will, qos=1, retain=True)
        if self._secure:
            client.tls_set_context(self._tls())
        client.on_connect = self._on_connect
        client.on_subscribe = lambda c, _data, _mid, reasons, _properties: self._on_subscribe(c, reasons, online)
        client.on_message = self._on_message
        # With a callback here, publish() leaves the writing to the loop, which it wakes; else paho writes from the
        # calling thread, and two threads could write into each other's packets.
        client.on_socket_register_write = lambda _client, _data, _socket: None
        return client

    def _tls(self) -> ssl.SSLContext:
        from shoal_agent.adapters.tls import client_context  # noqa: PLC0415 - as paho

        return client_context(ca_file=self._ca_file, certificate_time=self._certificate_time, client=self._client_files)

    def _on_connect(self, client: Client, _data: object, _flags: object, reason: Any, _properties: object) -> None:
        if reason.is_failure:
            _log.warning("mqtt: the broker refused this device: %s", reason)
            client.disconnect()
            return
        client.subscribe([(down_filter(self._device), 1), (SERVER_STATUS, 1)])

    def _on_subscribe(self, client: Client, reasons: list[Any], online: bytes) -> None:
        if reasons and reasons[0].is_failure:
            _log.warning("mqtt: the broker refused the subscription: %s", reasons[0])
            client.disconnect()
            return
        self._up = client
        self.publish(Up.PRESENCE, online)
        if self._handlers is not None:
            _guarded(self._handlers.on_connected)

    def _on_message(self, _client: Client, _data: object, message: Any) -> None:
        handlers = self._handlers
        if handlers is None or len(message.payload) > MAX_PAYLOAD or message.topic == SERVER_STATUS:
            return
        try:
            kind = parse_topic(message.topic).kind
        except ContentError as error:
            _log.warning("mqtt: %s", error)
            return
        if isinstance(kind, Down):
            _guarded(partial(handlers.on_message, kind, bytes(message.payload)))


def _guarded(call: Callable[[], None]) -> None:
    try:
        call()
    except Exception:  # noqa: BLE001 - an exception in a callback would end the network thread
        _log.exception("mqtt: a handler failed")
