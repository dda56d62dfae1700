"""Every packet in every phase of a device's session, and what follows."""

import random

import pytest

from shoal_protocol.mqtt.packets import (
    REFUSED,
    ConnAck,
    Connect,
    ConnectCode,
    Disconnect,
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
from shoal_protocol.mqtt.topics import SERVER_STATUS, Down, Up, down, down_filter, up
from shoal_server.link.session import MAX_FILTERS, Admit, Close, HandOver, Phase, Recall, Send, Session

CONNECT = Connect(client_id="d1", username="d1", password=b"secret", will=Will(up("d1", Up.PRESENCE), b"gone"))
EVERYTHING = [
    CONNECT,
    ConnAck(),
    Publish(up("d1", Up.EVENT), b"x", 1, packet_id=9),
    PubAck(1),
    Subscribe(1, (("#", 1),)),
    SubAck(1, (1,)),
    Unsubscribe(2, ("#",)),
    UnsubAck(1),
    PingReq(),
    PingResp(),
    Disconnect(),
]


def session() -> Session:
    return Session(lambda device, secret: (device, secret) == ("d1", b"secret"))


def opened() -> Session:
    started = session()
    assert started.receive(CONNECT) == [Admit("d1"), Send(ConnAck())]
    return started


@pytest.mark.parametrize("packet", EVERYTHING[1:], ids=lambda packet: type(packet).__name__)
def test_nothing_but_connect_comes_first(packet):
    new = session()
    [effect] = new.receive(packet)
    assert isinstance(effect, Close)
    assert new.phase is Phase.CLOSED


@pytest.mark.parametrize("packet", [CONNECT, ConnAck(), SubAck(1, (1,)), UnsubAck(1), PingResp()], ids=repr)
def test_what_a_client_must_not_send_ends_an_open_session_with_its_will(packet):
    will, close = opened().receive(packet)
    assert will == HandOver(Up.PRESENCE, b"gone", 0)
    assert isinstance(close, Close)


@pytest.mark.parametrize("packet", EVERYTHING, ids=lambda packet: type(packet).__name__)
def test_after_the_end_nothing_has_an_effect(packet):
    over = opened()
    over.receive(Disconnect())
    assert over.receive(packet) == []
    assert over.deliver(down("d1", Down.ACK), b"", retain=False) == []


def test_a_random_walk_hands_over_at_most_one_will_and_ends_once():
    for seed in range(300):
        randomness, walked, wills, closes = random.Random(seed), session(), 0, 0
        for _ in range(30):
            packet = randomness.choice([*EVERYTHING, CONNECT])
            for effect in walked.receive(packet):
                wills += effect == HandOver(Up.PRESENCE, b"gone", 0)
                closes += isinstance(effect, Close)
        assert closes <= 1
        assert wills <= closes
        assert (walked.phase is Phase.CLOSED) == (closes == 1)


def test_messages_are_handed_over_with_the_id_to_be_acknowledged():
    device = opened()
    assert device.receive(Publish(up("d1", Up.PROFILE), b"p", 1, packet_id=3)) == [HandOver(Up.PROFILE, b"p", 3)]
    assert device.receive(Publish(up("d1", Up.EVENT), b"e")) == [HandOver(Up.EVENT, b"e", 0)]


def test_a_forged_message_is_acknowledged_dropped_and_counted():
    device = opened()
    assert device.receive(Publish(up("d2", Up.EVENT), b"x", 1, packet_id=3)) == [Send(PubAck(3))]
    assert device.receive(Publish(up("d2", Up.EVENT), b"x")) == []
    assert device.forged == 2


def test_subscriptions_are_granted_as_far_as_they_can_bring_anything():
    filters = ((down_filter("d1"), 1), (down_filter("d2"), 1), (SERVER_STATUS, 0))
    answer, recall = opened().receive(Subscribe(7, filters))
    assert answer == Send(SubAck(7, (1, REFUSED, 0)))
    assert recall == Recall((down("d1", Down.DESIRED), down("d1", Down.ACK), SERVER_STATUS))


def test_filters_are_bounded():
    levels = down("d1", Down.ACK).split("/")

    def variant(number: int) -> str:
        return "/".join("+" if number >> at & 1 else level for at, level in enumerate(levels))

    device = opened()
    answer, _ = device.receive(Subscribe(1, tuple((variant(number), 1) for number in range(MAX_FILTERS + 2))))
    assert answer == Send(SubAck(1, (1,) * MAX_FILTERS + (REFUSED, REFUSED)))
    again, _ = device.receive(Subscribe(2, ((variant(0), 0),)))
    assert again == Send(SubAck(2, (0,)))


def test_deliveries_follow_filters_their_qos_and_their_end():
    device = opened()
    topic = down("d1", Down.ACK)
    assert device.deliver(topic, b"1", retain=False) == []
    device.receive(Subscribe(1, ((down_filter("d1"), 0),)))
    assert device.deliver(topic, b"2", retain=True) == [Send(Publish(topic, b"2", 0, retain=True))]
    device.receive(Subscribe(2, ((topic, 1),)))
    assert device.deliver(topic, b"3", retain=False) == [Send(Publish(topic, b"3", 1, packet_id=1))]
    assert device.receive(Unsubscribe(3, (topic, down_filter("d1")))) == [Send(UnsubAck(3))]
    assert device.deliver(topic, b"4", retain=False) == []


def test_packet_ids_are_not_used_twice_at_a_time_and_never_zero():
    device = opened()
    device.receive(Subscribe(1, (("#", 1),)))
    kept = device.deliver(SERVER_STATUS, b"", retain=False)
    used = set()
    for _ in range(70_000):
        [sent] = device.deliver(SERVER_STATUS, b"", retain=False)
        assert isinstance(sent, Send)
        used.add(sent.packet.packet_id)
        device.receive(PubAck(sent.packet.packet_id))
    assert kept == [Send(Publish(SERVER_STATUS, b"", 1, packet_id=1))]
    assert used == set(range(2, 65536))


def test_a_device_that_acknowledges_nothing_is_given_up():
    device = opened()
    device.receive(Subscribe(1, (("#", 1),)))
    while len(effects := device.deliver(SERVER_STATUS, b"", retain=False)) == 1 and isinstance(effects[0], Send):
        pass
    assert isinstance(effects[-1], Close)


@pytest.mark.parametrize(
    ("connect", "code"),
    [
        (Connect(client_id="d1"), ConnectCode.NOT_AUTHORISED),
        (Connect(client_id="d1", username="d1"), ConnectCode.NOT_AUTHORISED),
        (Connect(client_id="d2", username="d1", password=b"secret"), ConnectCode.BAD_CLIENT_ID),
        (Connect(client_id="", username="", password=b""), ConnectCode.BAD_CLIENT_ID),
        (Connect(client_id="a/b", username="a/b", password=b""), ConnectCode.BAD_CLIENT_ID),
        (Connect(client_id="server", username="server", password=b""), ConnectCode.BAD_CLIENT_ID),
        (Connect(client_id="d1", username="d1", password=b"other"), ConnectCode.BAD_LOGIN),
    ],
)
def test_refusals(connect, code):
    refused = session()
    answer, close = refused.receive(connect)
    assert answer == Send(ConnAck(code))
    assert isinstance(close, Close)
    assert refused.phase is Phase.CLOSED
