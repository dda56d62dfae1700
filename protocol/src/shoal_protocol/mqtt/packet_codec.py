"""MQTT 3.1.1 packets to bytes and back, without I/O; for the server's end of a connection and for the client's.

Invariants:
    - Whatever bytes come, only `PacketError` is raised, and never more than one packet's limit is kept.
    - What `encode_packet` gives, a `PacketReader` reads back as an equal packet, however the bytes are cut.

Section numbers in comments are those of the OASIS standard "MQTT Version 3.1.1".
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from typing import Any, Final

from shoal_protocol.mqtt.packets import (
    MAX_PACKET,
    MAX_TOPIC,
    REFUSED,
    ConnAck,
    Connect,
    ConnectCode,
    Disconnect,
    Packet,
    PacketError,
    PingReq,
    PingResp,
    ProtocolLevelError,
    PubAck,
    Publish,
    SubAck,
    Subscribe,
    UnsubAck,
    Unsubscribe,
    Will,
    check_filter,
)

_LENGTH_LIMIT = 268_435_455  # 2.2.3: four bytes of seven bits
_U16 = struct.Struct("!H")


def encode_packet(packet: Packet) -> bytes:
    """Return a packet's bytes.

    Raises:
        PacketError: A text, an id or the whole is too long or not allowed in its place.
    """
    if type(packet) is Publish:  # nearly all packets are one of these two
        return _encode_publish(packet)
    if type(packet) is PubAck:
        return b"\x40\x02" + _packet_id(packet.packet_id)
    first, body = _ENCODERS[type(packet)](packet)
    return bytes((first,)) + _length(len(body)) + body


def _encode_publish(packet: Publish) -> bytes:
    _check_topic(packet.topic)
    if packet.qos not in {0, 1} or (packet.qos == 0) != (packet.packet_id == 0) or (packet.dup and packet.qos == 0):
        raise PacketError(f"a message of QoS {packet.qos} can't have id {packet.packet_id} and dup {packet.dup}")
    first = 0x30 | packet.dup << 3 | packet.qos << 1 | packet.retain
    topic = _text(packet.topic)
    packet_id = _packet_id(packet.packet_id) if packet.qos else b""
    length = _length(len(topic) + len(packet_id) + len(packet.payload))
    return b"".join((bytes((first,)), length, topic, packet_id, packet.payload))


def _encode_connect(packet: Connect) -> tuple[int, bytes]:
    if packet.password is not None and packet.username is None:  # 3.1.2.9
        raise PacketError("a CONNECT with a password needs a user name")
    flags = packet.clean_session << 1 | (packet.username is not None) << 7 | (packet.password is not None) << 6
    parts = [_text(packet.client_id)]
    if packet.will is not None:
        _check_topic(packet.will.topic)
        flags |= 0x04 | _qos(packet.will.qos) << 3 | packet.will.retain << 5
        parts += [_text(packet.will.topic), _blob(packet.will.payload)]
    if packet.username is not None:
        parts.append(_text(packet.username))
    if packet.password is not None:
        parts.append(_blob(packet.password))
    return 0x10, b"".join((b"\x00\x04MQTT\x04", bytes((flags,)), _u16(packet.keep_alive_s), *parts))


def _encode_connack(packet: ConnAck) -> tuple[int, bytes]:
    return 0x20, bytes((packet.session_present, packet.code))


def _encode_subscribe(packet: Subscribe) -> tuple[int, bytes]:
    filters = (_text(check_filter(topic)) + bytes((_qos(qos),)) for topic, qos in packet.filters)
    return 0x82, _packet_id(packet.packet_id) + b"".join(filters)


def _encode_suback(packet: SubAck) -> tuple[int, bytes]:
    return 0x90, _packet_id(packet.packet_id) + bytes(packet.codes)


def _encode_unsubscribe(packet: Unsubscribe) -> tuple[int, bytes]:
    return 0xA2, _packet_id(packet.packet_id) + b"".join(_text(check_filter(topic)) for topic in packet.filters)


def _encode_unsuback(packet: UnsubAck) -> tuple[int, bytes]:
    return 0xB0, _packet_id(packet.packet_id)


_ENCODERS: Final[dict[type, Callable[[Any], tuple[int, bytes]]]] = {
    Connect: _encode_connect,
    ConnAck: _encode_connack,
    Subscribe: _encode_subscribe,
    SubAck: _encode_suback,
    Unsubscribe: _encode_unsubscribe,
    UnsubAck: _encode_unsuback,
    PingReq: lambda _: (0xC0, b""),
    PingResp: lambda _: (0xD0, b""),
    Disconnect: lambda _: (0xE0, b""),
}


def _length(size: int) -> bytes:
    if size < 0x80:
        return bytes((size,))
    if size > _LENGTH_LIMIT:
        raise PacketError(f"a packet of {size} bytes is over MQTT's limit")
    out = bytearray()
    while size >= 0x80:
        out.append(size & 0x7F | 0x80)
        size >>= 7
    out.append(size)
    return bytes(out)


def _u16(number: int) -> bytes:
    if not 0 <= number <= 0xFFFF:
        raise PacketError(f"{number} does not fit 16 bits")
    return _U16.pack(number)


def _packet_id(number: int) -> bytes:
    if number == 0:  # 2.3.1
        raise PacketError("a packet id must not be 0")
    return _u16(number)


def _qos(qos: int) -> int:
    if qos not in {0, 1}:
        raise PacketError(f"QoS {qos} is not spoken here, only 0 and 1")
    return qos


def _blob(data: bytes) -> bytes:
    return _u16(len(data)) + data


def _text(text: str) -> bytes:
    if "\0" in text:  # 1.5.3
        raise PacketError("a text must not contain U+0000")
    try:
        return _blob(text.encode())
    except UnicodeEncodeError as error:
        raise PacketError(f"a text has no UTF-8 form: {error}") from error


def _check_topic(topic: str) -> None:
    if not topic or "+" in topic or "#" in topic or len(topic) > MAX_TOPIC:
        raise PacketError(f"{topic!r:.120} is no topic: it must be 1 to {MAX_TOPIC} characters, without wildcards")


class PacketReader:
    """Cuts a stream of bytes into packets.

    Args:
        max_bytes: Limit of one whole packet; a longer one is refused as soon as its header says so.
    """

    def __init__(self, *, max_bytes: int = MAX_PACKET) -> None:
        self._max_bytes = max_bytes
        self._buffer = bytearray()
        self._at = 0

    def feed(self, data: bytes) -> None:
        """Take bytes as they came; call `next_packet` until it gives none."""
        if self._at:
            del self._buffer[: self._at]
            self._at = 0
        self._buffer += data

    def __iter__(self) -> Iterator[Packet]:
        """Give every packet that is complete, in order; the error comes after the packets before it."""
        while (packet := self.next_packet()) is not None:
            yield packet

    def next_packet(self) -> Packet | None:
        """Return the next complete packet; none when more bytes are needed.

        Raises:
            PacketError: The bytes are not MQTT 3.1.1; the reader is of no use afterwards.
        """
        buffer, start = self._buffer, self._at
        at, available, length, shift = start + 1, len(buffer), 0, 0
        while True:
            if at >= available:
                return None
            byte = buffer[at]
            at += 1
            length |= (byte & 0x7F) << shift
            if byte < 0x80:
                break
            shift += 7
            if shift > 21:  # 2.2.3: at most four bytes
                raise PacketError("the length of a packet takes more than four bytes")
        end = at + length
        if end - start > self._max_bytes:
            raise PacketError(f"a packet of {end - start} bytes is over the limit of {self._max_bytes}")
        if end > available:
            return None
        self._at = end
        return _decode(buffer[start], bytes(memoryview(buffer)[at:end]))


def _decode(first: int, body: bytes) -> Packet:
    kind, flags = first >> 4, first & 0x0F
    if kind == 3:
        return _decode_publish(flags, body)
    entry = _DECODERS.get(kind)
    if entry is None:
        raise PacketError(f"packets of type {kind} are not spoken here")
    expected, decode = entry
    if flags != expected:  # 2.2.2
        raise PacketError(f"a packet of type {kind} has flags {flags:#x}, expected {expected:#x}")
    fields = _Fields(body)
    packet = decode(fields)
    fields.end()
    return packet


def _decode_publish(flags: int, body: bytes) -> Publish:
    qos = flags >> 1 & 0x03
    if qos > 1 or (flags & 0x08 and not qos):  # 3.3.1.1: no dup with QoS 0
        raise PacketError(f"a message has flags {flags:#x}; QoS 0 and 1 are spoken here")
    if len(body) < 2:
        raise PacketError("a message ends within its topic's length")
    at = 2 + (body[0] << 8 | body[1])
    topic = _decoded_text(body[2:at])
    if at > len(body):
        raise PacketError("a message ends within its topic")
    _check_topic(topic)
    packet_id = 0
    if qos:
        packet_id = int.from_bytes(body[at : at + 2], "big")
        at += 2
        if at > len(body) or packet_id == 0:
            raise PacketError("a message of QoS 1 has no packet id")
    return Publish(topic, body[at:], qos, bool(flags & 0x01), packet_id, bool(flags & 0x08))


class _Fields:
    """The rest of a packet, taken field by field."""

    __slots__ = ("_at", "_body")

    def __init__(self, body: bytes) -> None:
        self._body = body
        self._at = 0

    def take(self, size: int) -> bytes:
        start, self._at = self._at, self._at + size
        if self._at > len(self._body):
            raise PacketError(f"a packet ends after {len(self._body)} bytes, expected {self._at} or more")
        return self._body[start : self._at]

    def byte(self) -> int:
        return self.take(1)[0]

    def u16(self) -> int:
        return int.from_bytes(self.take(2), "big")

    def packet_id(self) -> int:
        number = self.u16()
        if number == 0:
            raise PacketError("a packet id must not be 0")
        return number

    def blob(self) -> bytes:
        return self.take(self.u16())

    def text(self) -> str:
        return _decoded_text(self.blob())

    def more(self) -> bool:
        return self._at < len(self._body)

    def end(self) -> None:
        if self.more():
            raise PacketError(f"a packet has {len(self._body) - self._at} bytes too many")


def _decoded_text(raw: bytes) -> str:
    try:
        text = raw.decode()
    except UnicodeDecodeError as error:
        raise PacketError(f"a text is not UTF-8: {error}") from error
    if "\0" in text:  # 1.5.3
        raise PacketError("a text contains U+0000")
    return text


def _decode_connect(fields: _Fields) -> Connect:
    name, level, flags = fields.blob(), fields.byte(), fields.byte()
    if name != b"MQTT" or level != 4:
        raise ProtocolLevelError(
            f"protocol {name!r:.20} level {level} is not spoken here, only MQTT 3.1.1",
            hint="set the client to MQTT 3.1.1 (level 4)",
        )
    has_will, will_qos = bool(flags & 0x04), flags >> 3 & 0x03
    if flags & 0x01 or (not has_will and flags & 0x38) or (flags & 0x40 and not flags & 0x80):  # 3.1.2.3 to 3.1.2.9
        raise PacketError(f"a CONNECT has flags {flags:#x}, which contradict each other")
    keep_alive_s, client_id, will = fields.u16(), fields.text(), None
    if has_will:
        topic, payload = fields.text(), fields.blob()
        _check_topic(topic)
        will = Will(topic, payload, _qos(will_qos), bool(flags & 0x20))
    return Connect(
        client_id=client_id,
        username=fields.text() if flags & 0x80 else None,
        password=fields.blob() if flags & 0x40 else None,
        keep_alive_s=keep_alive_s,
        clean_session=bool(flags & 0x02),
        will=will,
    )


def _decode_connack(fields: _Fields) -> ConnAck:
    session, code = fields.byte(), fields.byte()
    if session > 1 or code > ConnectCode.NOT_AUTHORISED:
        raise PacketError(f"a CONNACK has flags {session:#x} and code {code}")
    return ConnAck(ConnectCode(code), bool(session))


def _decode_subscribe(fields: _Fields) -> Subscribe:
    packet_id, filters = fields.packet_id(), []
    while fields.more():
        topic, qos = check_filter(fields.text()), fields.byte()
        if qos > 2:
            raise PacketError(f"a subscription asks for QoS {qos}")
        filters.append((topic, min(qos, 1)))  # 3.8.4: the server may grant less than asked
    if not filters:
        raise PacketError("a SUBSCRIBE names no filter")
    return Subscribe(packet_id, tuple(filters))


def _decode_suback(fields: _Fields) -> SubAck:
    packet_id, codes = fields.packet_id(), []
    while fields.more():
        codes.append(fields.byte())
    if not codes or not set(codes) <= {0, 1, 2, REFUSED}:
        raise PacketError(f"a SUBACK has codes {codes[:10]}")
    return SubAck(packet_id, tuple(codes))


def _decode_unsubscribe(fields: _Fields) -> Unsubscribe:
    packet_id, filters = fields.packet_id(), []
    while fields.more():
        filters.append(check_filter(fields.text()))
    if not filters:
        raise PacketError("an UNSUBSCRIBE names no filter")
    return Unsubscribe(packet_id, tuple(filters))


_DECODERS: Final[dict[int, tuple[int, Callable[[_Fields], Packet]]]] = {
    1: (0, _decode_connect),
    2: (0, _decode_connack),
    4: (0, lambda fields: PubAck(fields.packet_id())),
    8: (2, _decode_subscribe),
    9: (0, _decode_suback),
    10: (2, _decode_unsubscribe),
    11: (0, lambda fields: UnsubAck(fields.packet_id())),
    12: (0, lambda _: PingReq()),
    13: (0, lambda _: PingResp()),
    14: (0, lambda _: Disconnect()),
}
