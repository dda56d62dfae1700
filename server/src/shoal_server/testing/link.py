"""A line to devices in memory: `FakeLink` is the server's side, `FakeDevice` a device at its other end.

Everything happens in the caller's thread, at once. It keeps the same contract as the real adapters.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from shoal_protocol.mqtt.messages import ServerStatus, encode_message
from shoal_protocol.mqtt.topics import SERVER_STATUS
from shoal_server.link.access_rules import addressee, hearable, matches, spoken
from shoal_server.link.port import Credential, Inbound, InboundHandler, LinkError
from shoal_server.link.verifiers import verify_secret


@dataclass(eq=False)
class FakeDevice:
    """A device at the other end of a `FakeLink`.

    Attributes:
        received: (topic, payload, is a stored one) of each message that came.
        acknowledged: Ids of published messages that the server is done with.
    """

    link: FakeLink
    name: str
    will: tuple[str, bytes] | None = None
    is_connected: bool = True
    received: list[tuple[str, bytes, bool]] = field(default_factory=list)
    acknowledged: set[int] = field(default_factory=set)
    filters: set[str] = field(default_factory=set)
    _last_id: int = 0

    def publish(self, topic: str, payload: bytes, *, qos: int = 1, retain: bool = False) -> int:
        """Say something; returns the message's id."""
        del qos, retain
        if not self.is_connected:
            raise LinkError(f"{self.name} is not connected")
        self._last_id += 1
        self.link.hear(self, topic, payload, self._last_id)
        return self._last_id

    def subscribe(self, topic_filter: str) -> bool:
        """Ask for messages; tells whether it is granted."""
        topics = [topic for topic in hearable(self.name) if matches(topic_filter, topic)]
        if topics:
            self.filters.add(topic_filter)
        for topic in topics:
            if topic in self.link.stored:
                self.received.append((topic, self.link.stored[topic], True))
        return bool(topics)

    def drop(self) -> None:
        """Lose the connection: the will is given out."""
        if self.is_connected:
            self.is_connected = False
            self.link.devices.pop(self.name, None)
            if self.will is not None:
                self.link.hear(self, *self.will, packet_id=0)

    def close(self) -> None:
        """Say goodbye: no will."""
        self.will = None
        self.drop()


class FakeLink:
    """A `DeviceLink` without a network.

    Attributes:
        published: (topic, payload, retain) of all that the server sent.
        stored: What devices that subscribe later will get.
        devices: Connected devices.
    """

    url = "mqtt://fake:1883"

    def __init__(self) -> None:
        self.published: list[tuple[str, bytes, bool]] = []
        self.stored: dict[str, bytes] = {}
        self.devices: dict[str, FakeDevice] = {}
        self.connected = False
        self.connections = 0
        self.credentials: dict[str, str] = {}
        self._handler: InboundHandler | None = None

    def start(self, handler: InboundHandler) -> None:
        """Begin to hand over what devices send."""
        self._handler = handler
        self.regain()

    def lose(self) -> None:
        """Let the line go down, with all that was stored."""
        self.connected = False
        self.stored.clear()

    def regain(self) -> None:
        """Let the line come up."""
        self.connected = True
        self.connections += 1
        self._tell(SERVER_STATUS, encode_message(ServerStatus(online=True, at=0)), retain=True)

    def publish(self, topic: str, payload: bytes, *, retain: bool = False) -> None:
        """Send a message."""
        addressee(topic)
        if self.connected:
            self.published.append((topic, payload, retain))
            self._tell(topic, payload, retain=retain)
        elif retain:
            raise LinkError("the fake line is down")

    def sync_credentials(self, credentials: Sequence[Credential]) -> None:
        """Let exactly these devices in."""
        before, self.credentials = self.credentials, dict(credentials)
        for name in [name for name in self.devices if before.get(name) != self.credentials.get(name)]:
            self.kick(name)

    def kick(self, device: str) -> None:
        """End the device's session."""
        if device in self.devices:
            self.devices[device].drop()

    def stop(self) -> None:
        """Say goodbye."""
        if self.connected:
            self._tell(SERVER_STATUS, encode_message(ServerStatus(online=False, at=0)), retain=True)
        self._handler = None
        self.connected = False
        for device in list(self.devices.values()):
            device.drop()

    def connect(self, name: str, secret: str, *, will: tuple[str, bytes] | None = None) -> FakeDevice:
        """Connect as a device, ending an older connection of it.

        Raises:
            LinkError: The secret is wrong, or the device is not let in.
        """
        line = self.credentials.get(name)
        if line is None or not verify_secret(secret.encode(), line):
            raise LinkError(f"the device {name!r} is not let in")
        self.kick(name)
        self.devices[name] = FakeDevice(self, name, will)
        return self.devices[name]

    def hear(self, device: FakeDevice, topic: str, payload: bytes, packet_id: int) -> None:
        """Take a message of a device to the handler, unless it is forged."""
        kind = spoken(device.name, topic)
        if kind is None:
            device.acknowledged.add(packet_id)
        if kind is None or self._handler is None:
            return

        def done() -> None:
            if device.is_connected:
                device.acknowledged.add(packet_id)

        self._handler(Inbound(device.name, kind, payload, retained=False, done=done))

    def _tell(self, topic: str, payload: bytes, *, retain: bool) -> None:
        if retain and payload:
            self.stored[topic] = payload
        elif retain:
            self.stored.pop(topic, None)
        name = addressee(topic)
        for device in list(self.devices.values()):
            if name in {None, device.name} and any(matches(wanted, topic) for wanted in device.filters):
                device.received.append((topic, payload, False))
