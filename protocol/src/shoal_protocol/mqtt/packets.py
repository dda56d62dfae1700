"""The packets of MQTT 3.1.1, both directions, as values.

As far as Shoal speaks it: QoS 0 and 1. QoS 2 is absent on purpose, since every message of Shoal is idempotent. Their
bytes are those of `packet_codec`; sessions, acknowledgement and time belong to whoever holds the connection.

Section numbers in comments are those of the OASIS standard "MQTT Version 3.1.1".
"""

from __future__ import annotations

from enum import IntEnum
from typing import Final, TypeAlias

import msgspec

from shoal_protocol.errors import ContentError

MAX_PACKET: Final = 70_000
"""Bytes of a whole packet: one message of 64 KiB, its topic and the header."""

MAX_TOPIC: Final = 1024
REFUSED: Final = 0x80
"""The return code of a subscription that is not granted."""


class PacketError(ContentError):
    """The bytes are not MQTT 3.1.1, or a packet that Shoal does not speak; the connection must be closed."""

    code = "packet"


class ProtocolLevelError(PacketError):
    """A CONNECT of another protocol level; the answer is CONNACK with `ConnectCode.BAD_PROTOCOL`."""

    code = "packet_level"


class ConnectCode(IntEnum):
    """Answers to CONNECT (3.2.2.3)."""

    ACCEPTED = 0
    BAD_PROTOCOL = 1
    BAD_CLIENT_ID = 2
    UNAVAILABLE = 3
    BAD_LOGIN = 4
    NOT_AUTHORISED = 5


class Will(msgspec.Struct, frozen=True):
    """What the server publishes when the connection ends without DISCONNECT."""

    topic: str
    payload: bytes
    qos: int = 1
    retain: bool = False


class Connect(msgspec.Struct, frozen=True, kw_only=True):
    """The client's first packet."""

    client_id: str
    username: str | None = None
    password: bytes | None = None
    keep_alive_s: int = 60
    clean_session: bool = True
    will: Will | None = None


class ConnAck(msgspec.Struct, frozen=True):
    """The server's first packet."""

    code: ConnectCode = ConnectCode.ACCEPTED
    session_present: bool = False


class Publish(msgspec.Struct, frozen=True):
    """One message; `packet_id` is 0 exactly when `qos` is 0."""

    topic: str
    payload: bytes
    qos: int = 0
    retain: bool = False
    packet_id: int = 0
    dup: bool = False


class PubAck(msgspec.Struct, frozen=True):
    """The receiver has taken the message."""

    packet_id: int


class Subscribe(msgspec.Struct, frozen=True):
    """Filters, each with the highest QoS wanted."""

    packet_id: int
    filters: tuple[tuple[str, int], ...]


class SubAck(msgspec.Struct, frozen=True):
    """The granted QoS of each filter, or `REFUSED`."""

    packet_id: int
    codes: tuple[int, ...]


class Unsubscribe(msgspec.Struct, frozen=True):
    """Filters no longer wanted."""

    packet_id: int
    filters: tuple[str, ...]


class UnsubAck(msgspec.Struct, frozen=True):
    """The filters are gone."""

    packet_id: int


class PingReq(msgspec.Struct, frozen=True):
    """The client lives."""


class PingResp(msgspec.Struct, frozen=True):
    """The server lives."""


class Disconnect(msgspec.Struct, frozen=True):
    """The client goes on purpose: its will is dropped."""


Packet: TypeAlias = (
    Connect | ConnAck | Publish | PubAck | Subscribe | SubAck | Unsubscribe | UnsubAck | PingReq | PingResp | Disconnect
)


def check_filter(topic_filter: str) -> str:
    """Return a topic filter.

    Raises:
        PacketError: ``#`` is not the last level, or a wildcard is not alone in its level (4.7.1).
    """
    levels = topic_filter.split("/")
    if not topic_filter or any(("+" in level or "#" in level) and len(level) > 1 for level in levels):
        raise PacketError(f"{topic_filter!r:.120} is no topic filter: a wildcard must stand alone in its level")
    if "#" in levels[:-1]:
        raise PacketError(f"{topic_filter!r:.120} is no topic filter: '#' must be the last level")
    return topic_filter
