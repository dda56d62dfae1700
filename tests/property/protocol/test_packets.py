"""Laws of the MQTT codec: round trips, any cutting of the bytes, and hostile bytes."""

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shoal_protocol.mqtt.packet_codec import PacketReader, encode_packet
from shoal_protocol.mqtt.packets import (
    ConnAck,
    Connect,
    ConnectCode,
    Disconnect,
    PacketError,
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

ids = st.integers(1, 0xFFFF)
qos = st.integers(0, 1)
texts = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=40)
topics = st.text(st.characters(exclude_characters="\0+#", exclude_categories=["Cs"]), min_size=1, max_size=40)
levels = st.one_of(
    st.just("+"), st.text(st.characters(exclude_characters="\0+#/", exclude_categories=["Cs"]), max_size=8)
)
filters = st.builds(
    lambda parts, tail: "/".join(parts + tail), st.lists(levels, min_size=1, max_size=4), st.sampled_from([[], ["#"]])
).filter(bool)
wills = st.builds(Will, topics, st.binary(max_size=50), qos, retain=st.booleans())
packets = st.one_of(
    st.builds(
        Connect,
        client_id=texts,
        username=texts,
        password=st.none() | st.binary(max_size=40),
        keep_alive_s=st.integers(0, 0xFFFF),
        clean_session=st.booleans(),
        will=st.none() | wills,
    ),
    st.builds(Connect, client_id=texts),
    st.builds(ConnAck, st.sampled_from(ConnectCode), st.booleans()),
    st.builds(Publish, topics, st.binary(max_size=300), st.just(0), st.booleans()),
    st.builds(Publish, topics, st.binary(max_size=300), st.just(1), st.booleans(), ids, st.booleans()),
    st.builds(PubAck, ids),
    st.builds(Subscribe, ids, st.lists(st.tuples(filters, qos), min_size=1, max_size=4).map(tuple)),
    st.builds(SubAck, ids, st.lists(st.sampled_from([0, 1, 0x80]), min_size=1, max_size=4).map(tuple)),
    st.builds(Unsubscribe, ids, st.lists(filters, min_size=1, max_size=4).map(tuple)),
    st.builds(UnsubAck, ids),
    st.sampled_from([PingReq(), PingResp(), Disconnect()]),
)


def read_in_pieces(raw: bytes, cuts: list[int]) -> list[object]:
    reader, read = PacketReader(), []
    edges = sorted({0, len(raw), *(cut % (len(raw) + 1) for cut in cuts)})
    for start, end in pairwise(edges):
        reader.feed(raw[start:end])
        read += list(reader)
    return read


@given(st.lists(packets, max_size=6), st.lists(st.integers(0, 10_000), max_size=20))
def test_packets_survive_any_cutting_of_the_stream(sent, cuts):
    assert read_in_pieces(b"".join(map(encode_packet, sent)), cuts) == sent


@given(packets)
def test_one_byte_at_a_time(packet):
    raw = encode_packet(packet)
    reader, read = PacketReader(), []
    for at in range(len(raw)):
        assert read == []
        reader.feed(raw[at : at + 1])
        read += list(reader)
    assert read == [packet]


@settings(max_examples=1000)
@given(st.binary(max_size=200))
def test_hostile_bytes_raise_nothing_but_packet_errors(raw):
    reader = PacketReader(max_bytes=150)
    reader.feed(raw)
    try:
        read = list(reader)
    except PacketError:
        return
    assert all(reader_packet is not None for reader_packet in read)


@settings(max_examples=500)
@given(packets, st.integers(0, 400), st.integers(0, 255), st.binary(max_size=4))
def test_damaged_packets_are_read_or_refused(packet, position, byte, tail):
    raw = bytearray(encode_packet(packet))
    raw[position % len(raw)] = byte
    reader = PacketReader()
    reader.feed(bytes(raw) + tail)
    try:
        read = list(reader)
    except PacketError:
        return
    for other in read:  # what was accepted is a packet that we would send
        again = PacketReader()
        again.feed(encode_packet(other))
        assert list(again) == [other]


@given(st.integers(0, 2**28 - 1))
def test_length_is_held_against_the_limit_before_the_body_comes(size):
    header, length = bytearray(b"\x30"), size
    while length >= 0x80:
        header.append(length & 0x7F | 0x80)
        length >>= 7
    header.append(length)
    reader = PacketReader(max_bytes=1000)
    reader.feed(bytes(header))
    if len(header) + size > 1000:
        with pytest.raises(PacketError):
            reader.next_packet()
    elif size > 0:
        assert reader.next_packet() is None
