"""The MQTT codec against bytes written out by hand from the standard."""

import pytest

from shoal_protocol.mqtt.packet_codec import PacketReader, encode_packet
from shoal_protocol.mqtt.packets import (
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

EXAMPLES: list[tuple[Packet, bytes]] = [
    (
        Connect(client_id="a", username="a", password=b"pw", keep_alive_s=10, will=Will("t/x", b"bye", 1, retain=True)),
        b"\x10\x1e\x00\x04MQTT\x04\xee\x00\x0a\x00\x01a\x00\x03t/x\x00\x03bye\x00\x01a\x00\x02pw",
    ),
    (Connect(client_id="", keep_alive_s=0), b"\x10\x0c\x00\x04MQTT\x04\x02\x00\x00\x00\x00"),
    (ConnAck(ConnectCode.BAD_LOGIN), b"\x20\x02\x00\x04"),
    (ConnAck(ConnectCode.ACCEPTED, session_present=True), b"\x20\x02\x01\x00"),
    (Publish("a/b", b"hi"), b"\x30\x07\x00\x03a/bhi"),
    (Publish("a/b", b"hi", 1, retain=True, packet_id=10, dup=True), b"\x3b\x09\x00\x03a/b\x00\x0ahi"),
    (PubAck(258), b"\x40\x02\x01\x02"),
    (Subscribe(10, (("a/+", 1), ("#", 0))), b"\x82\x0c\x00\x0a\x00\x03a/+\x01\x00\x01#\x00"),
    (SubAck(10, (1, 0x80)), b"\x90\x04\x00\x0a\x01\x80"),
    (Unsubscribe(11, ("a/+",)), b"\xa2\x07\x00\x0b\x00\x03a/+"),
    (UnsubAck(11), b"\xb0\x02\x00\x0b"),
    (PingReq(), b"\xc0\x00"),
    (PingResp(), b"\xd0\x00"),
    (Disconnect(), b"\xe0\x00"),
]


@pytest.mark.parametrize(("packet", "raw"), EXAMPLES, ids=lambda value: type(value).__name__)
def test_bytes_are_those_of_the_standard(packet, raw):
    reader = PacketReader()
    reader.feed(raw)
    assert encode_packet(packet) == raw
    assert list(reader) == [packet]


REFUSED_BYTES = {
    "reserved type 0": b"\x00\x00",
    "reserved type 15": b"\xf0\x00",
    "QoS 2 message": b"\x34\x07\x00\x01a\x00\x01hi",
    "QoS 3 message": b"\x36\x07\x00\x01a\x00\x01hi",
    "PUBREL": b"\x62\x02\x00\x01",
    "dup without QoS": b"\x38\x03\x00\x01a",
    "message without topic length": b"\x30\x01\x00",
    "message with empty topic": b"\x30\x02\x00\x00",
    "message ends within topic": b"\x30\x04\x00\x09ab",
    "wildcard in topic": b"\x30\x03\x00\x01#",
    "zero in topic": b"\x30\x03\x00\x01\x00",
    "topic not UTF-8": b"\x30\x03\x00\x01\xff",
    "surrogate in topic": b"\x30\x05\x00\x03\xed\xa0\x80",
    "QoS 1 without id": b"\x32\x03\x00\x01a",
    "QoS 1 with id 0": b"\x32\x05\x00\x01a\x00\x00",
    "PUBACK with id 0": b"\x40\x02\x00\x00",
    "PUBACK too long": b"\x40\x03\x00\x01\x00",
    "PINGREQ with body": b"\xc0\x01\x00",
    "PINGREQ with flags": b"\xc1\x00",
    "SUBSCRIBE with flags 0": b"\x80\x06\x00\x01\x00\x01a\x00",
    "SUBSCRIBE without filter": b"\x82\x02\x00\x01",
    "SUBSCRIBE QoS 3": b"\x82\x06\x00\x01\x00\x01a\x03",
    "SUBSCRIBE bad filter": b"\x82\x08\x00\x01\x00\x03a#b\x00",
    "UNSUBSCRIBE without filter": b"\xa2\x02\x00\x01",
    "SUBACK code 3": b"\x90\x03\x00\x01\x03",
    "CONNACK code 9": b"\x20\x02\x00\x09",
    "CONNECT reserved flag": b"\x10\x0c\x00\x04MQTT\x04\x03\x00\x00\x00\x00",
    "CONNECT password without user": b"\x10\x0e\x00\x04MQTT\x04\x42\x00\x00\x00\x00\x00\x00",
    "CONNECT will flags without will": b"\x10\x0c\x00\x04MQTT\x04\x22\x00\x00\x00\x00",
    "CONNECT cut short": b"\x10\x08\x00\x04MQTT\x04\x02",
    "length of five bytes": b"\x30\xff\xff\xff\xff\x01",
}


@pytest.mark.parametrize("raw", REFUSED_BYTES.values(), ids=REFUSED_BYTES.keys())
def test_malformed_bytes_are_refused(raw):
    reader = PacketReader()
    reader.feed(raw)
    with pytest.raises(PacketError):
        list(reader)


@pytest.mark.parametrize(
    "raw", [b"\x10\x0c\x00\x04MQTT\x05\x02\x00\x00\x00\x00", b"\x10\x0e\x00\x06MQIsdp\x03\x02\x00\x00\x00\x00"]
)
def test_another_protocol_level_is_told_apart(raw):
    reader = PacketReader()
    reader.feed(raw)
    with pytest.raises(ProtocolLevelError, match=r"3\.1\.1"):
        reader.next_packet()


def test_a_subscription_to_qos_2_is_read_as_qos_1():
    reader = PacketReader()
    reader.feed(b"\x82\x06\x00\x01\x00\x01a\x02")
    assert list(reader) == [Subscribe(1, (("a", 1),))]


def test_an_oversized_packet_is_refused_by_its_header():
    reader = PacketReader(max_bytes=100)
    whole = encode_packet(Publish("t", b"x" * 95))
    assert len(whole) == 100
    reader.feed(whole)
    assert len(list(reader)) == 1
    reader.feed(encode_packet(Publish("t", b"x" * 96))[:2])
    with pytest.raises(PacketError, match="over the limit of 100"):
        reader.next_packet()


def test_packets_before_a_malformed_one_are_delivered():
    reader = PacketReader()
    reader.feed(encode_packet(PubAck(7)) + b"\x00\x00")
    assert reader.next_packet() == PubAck(7)
    with pytest.raises(PacketError):
        reader.next_packet()


@pytest.mark.parametrize(
    "packet",
    [
        Publish("a/#", b""),
        Publish("", b""),
        Publish("a", b"", 2, packet_id=1),
        Publish("a", b"", 1),
        Publish("a", b"", 0, packet_id=1),
        Publish("\ud800", b""),
        PubAck(0),
        PubAck(65536),
        Connect(client_id="a", password=b"x"),
        Connect(client_id="a\0"),
        Connect(client_id="a" * 65536),
        Subscribe(1, (("a", 2),)),
        Subscribe(1, (("a/#/b", 1),)),
        Unsubscribe(1, ("",)),
    ],
    ids=repr,
)
def test_what_the_standard_forbids_is_not_encoded(packet):
    with pytest.raises(PacketError):
        encode_packet(packet)


@pytest.mark.parametrize("topic_filter", ["#", "+", "a/+/b", "a/#", "/", "+/+", "shoal/v1/d/down/#"])
def test_filters(topic_filter):
    assert check_filter(topic_filter) == topic_filter


@pytest.mark.parametrize("topic_filter", ["", "a#", "#/a", "a+/b", "a/#/b", "##"])
def test_bad_filters(topic_filter):
    with pytest.raises(PacketError):
        check_filter(topic_filter)
