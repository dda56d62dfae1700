"""One device's connection to the embedded endpoint, as a state machine without I/O.

Owns the protocol's rules: what may come when, who is let in, which filters are granted, which packets answer. Leaves
sockets, timers and the table of connected devices to `endpoint`, which carries out the effects in order.

Invariants:
    - Only `Session.TABLE` says what may come in which phase; anything else ends the connection.
    - A client's id is its user name is its device id, proven by its secret.
    - The will is given out at most once, and only if it is on a topic that the device may speak on.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import Any, ClassVar, TypeAlias

from shoal_protocol.errors import CallerError
from shoal_protocol.mqtt.packets import (
    REFUSED,
    ConnAck,
    Connect,
    ConnectCode,
    Disconnect,
    Packet,
    PingReq,
    PingResp,
    PubAck,
    Publish,
    SubAck,
    Subscribe,
    UnsubAck,
    Unsubscribe,
    Will,
)
from shoal_protocol.mqtt.topics import Up, check_device
from shoal_server.link.access_rules import hearable, matches, spoken

MAX_FILTERS = 16
MAX_UNACKNOWLEDGED = 1000


class Phase(Enum):
    """Where a connection stands."""

    NEW = "new"  # nothing has come yet but bytes
    OPEN = "open"  # CONNECT was accepted
    CLOSED = "closed"  # over: nothing is read or sent any more


@dataclass(frozen=True, slots=True)
class Send:
    """Send a packet to the device."""

    packet: Packet


@dataclass(frozen=True, slots=True)
class Admit:
    """The device is in: end any older connection of it, then answer."""

    device: str


@dataclass(frozen=True, slots=True)
class HandOver:
    """Give a message to the server; `packet_id` is 0 when no acknowledgement is due."""

    kind: Up
    payload: bytes
    packet_id: int


@dataclass(frozen=True, slots=True)
class Recall:
    """Send what is stored on these topics."""

    topics: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Close:
    """End the connection."""

    reason: str


Effect: TypeAlias = Send | Admit | HandOver | Recall | Close
Authenticate: TypeAlias = Callable[[str, bytes], bool]
"""(device id, secret) -> whether this is that device."""


class Session:
    """The protocol state of one connection.

    Args:
        authenticate: Asked once, on CONNECT.
    """

    def __init__(self, authenticate: Authenticate) -> None:
        self.phase = Phase.NEW
        self.device = ""
        self.keep_alive_s = 0
        self.forged = 0
        self._authenticate = authenticate
        self._filters: dict[str, int] = {}
        self._will: Will | None = None
        self._unacknowledged: set[int] = set()
        self._last_id = 0

    def receive(self, packet: Packet) -> list[Effect]:
        """Take the next packet of the device."""
        handle = self.TABLE.get((self.phase, type(packet)))
        if handle is None:
            return self.close(f"{type(packet).__name__} is out of place while {self.phase.value}")
        return handle(self, packet)

    def deliver(self, topic: str, payload: bytes, *, retain: bool) -> list[Effect]:
        """Send the device a message if a filter of it covers the topic; `retain` marks a stored one."""
        granted = [qos for topic_filter, qos in self._filters.items() if matches(topic_filter, topic)]
        if self.phase is not Phase.OPEN or not granted:
            return []
        if max(granted) == 0:
            return [Send(Publish(topic, payload, 0, retain))]
        if len(self._unacknowledged) >= MAX_UNACKNOWLEDGED:
            return self.close("the device does not acknowledge what it is sent")
        packet_id = self._last_id % 0xFFFF + 1
        while packet_id in self._unacknowledged:
            packet_id = packet_id % 0xFFFF + 1
        self._last_id = packet_id
        self._unacknowledged.add(packet_id)
        return [Send(Publish(topic, payload, 1, retain, packet_id))]

    def close(self, reason: str) -> list[Effect]:
        """End the session without the device's wish: its will is given out."""
        if self.phase is Phase.CLOSED:
            return []
        self.phase = Phase.CLOSED
        will, self._will = self._will, None
        effects: list[Effect] = []
        if will is not None and (kind := spoken(self.device, will.topic)) is not None:
            effects.append(HandOver(kind, will.payload, 0))
        return [*effects, Close(reason)]

    def _connect(self, packet: Connect) -> list[Effect]:
        code = self._checked(packet)
        if code is not ConnectCode.ACCEPTED:
            self.phase = Phase.CLOSED
            return [Send(ConnAck(code)), Close(f"refused: {code.name.lower()}")]
        self.phase = Phase.OPEN
        self.device = packet.client_id
        self.keep_alive_s = packet.keep_alive_s
        self._will = packet.will
        return [Admit(self.device), Send(ConnAck())]

    def _checked(self, packet: Connect) -> ConnectCode:
        if packet.username is None or packet.password is None:
            return ConnectCode.NOT_AUTHORISED
        if packet.client_id != packet.username:
            return ConnectCode.BAD_CLIENT_ID
        try:
            device = check_device(packet.client_id)
        except CallerError:
            return ConnectCode.BAD_CLIENT_ID
        return ConnectCode.ACCEPTED if self._authenticate(device, packet.password) else ConnectCode.BAD_LOGIN

    def _publish(self, packet: Publish) -> list[Effect]:
        kind = spoken(self.device, packet.topic)
        if kind is None:  # 3.3.5: acknowledge or close; brokers acknowledge, and so does this
            self.forged += 1
            return [Send(PubAck(packet.packet_id))] if packet.qos else []
        return [HandOver(kind, packet.payload, packet.packet_id)]

    def _puback(self, packet: PubAck) -> list[Effect]:
        self._unacknowledged.discard(packet.packet_id)
        return []

    def _subscribe(self, packet: Subscribe) -> list[Effect]:
        topics = hearable(self.device)
        codes, recalled = [], []
        for topic_filter, qos in packet.filters:
            covered = [topic for topic in topics if matches(topic_filter, topic)]
            if not covered or (len(self._filters) >= MAX_FILTERS and topic_filter not in self._filters):
                codes.append(REFUSED)
                continue
            self._filters[topic_filter] = qos
            codes.append(qos)
            recalled += covered
        return [Send(SubAck(packet.packet_id, tuple(codes))), Recall(tuple(dict.fromkeys(recalled)))]

    def _unsubscribe(self, packet: Unsubscribe) -> list[Effect]:
        for topic_filter in packet.filters:
            self._filters.pop(topic_filter, None)
        return [Send(UnsubAck(packet.packet_id))]

    def _ping(self, _packet: PingReq) -> list[Effect]:
        return [Send(PingResp())]

    def _disconnect(self, _packet: Disconnect) -> list[Effect]:
        self._will = None  # 3.14.4
        return self.close("the device said goodbye")

    TABLE: ClassVar[dict[tuple[Phase, type], Callable[[Session, Any], list[Effect]]]] = {
        (Phase.NEW, Connect): _connect,
        (Phase.OPEN, Publish): _publish,
        (Phase.OPEN, PubAck): _puback,
        (Phase.OPEN, Subscribe): _subscribe,
        (Phase.OPEN, Unsubscribe): _unsubscribe,
        (Phase.OPEN, PingReq): _ping,
        (Phase.OPEN, Disconnect): _disconnect,
    }
    """What may come in which phase."""
