"""What every line to the devices keeps: the embedded endpoint, an external mosquitto, and the in-memory fake."""

from collections.abc import Iterator
from typing import Any

import pytest

from fixtures_broker import PahoDevice, eventually
from shoal_protocol.mqtt.messages import parse_server_status
from shoal_protocol.mqtt.topics import SERVER_STATUS, Down, Up, down, down_filter, up
from shoal_server.link.broker import BrokerLink
from shoal_server.link.endpoint import EmbeddedLink
from shoal_server.link.port import DeviceLink, Inbound, LinkError
from shoal_server.link.verifiers import verifier_line
from shoal_server.testing.link import FakeLink

SECRET = "s" * 43


def line(secret: str = SECRET, salt: bytes = b"0123456789ab") -> str:
    return verifier_line(secret, salt=salt)


class World:
    """A running link with the devices d1 and d2 let in, and what has been heard."""

    def __init__(self, link: Any) -> None:
        self.link: Any = link
        self.heard: list[Inbound] = []
        self.finish = True
        self.devices: list[Any] = []

    def start(self) -> None:
        self.link.start(self.hear)
        self.link.sync_credentials([("d1", line()), ("d2", line())])
        eventually(lambda: self.link.connected, what="the link is up")

    def hear(self, message: Inbound) -> None:
        self.heard.append(message)
        if self.finish:
            message.done()

    def device(self, name: str, secret: str = SECRET, **options: Any) -> Any:
        if isinstance(self.link, FakeLink):
            return self.link.connect(name, secret, **options)
        device = PahoDevice(self.link.url, name, secret, **options)
        self.devices.append(device)
        if not device.is_connected:
            raise LinkError(f"refused: {device.answer}")
        return device

    def said(self) -> list[tuple[str, Up, bytes]]:
        return [(message.device, message.kind, message.payload) for message in self.heard]

    def close(self) -> None:
        for device in self.devices:
            device.close()
        self.link.stop()


@pytest.fixture(params=["fake", "embedded", pytest.param("mosquitto", marks=pytest.mark.broker)])
def world(request: pytest.FixtureRequest) -> Iterator[World]:
    if request.param == "fake":
        link: DeviceLink = FakeLink()
    elif request.param == "embedded":
        link = EmbeddedLink("127.0.0.1", 0, clock=lambda: 1000.0)
    else:
        broker = request.getfixturevalue("mosquitto")
        link = BrokerLink(broker.url, clock=lambda: 1000.0, credentials=broker.credentials())
    world = World(link)
    world.start()
    yield world
    world.close()


def test_a_message_of_a_device_is_heard_with_its_sender(world):
    device = world.device("d1")
    device.publish(up("d1", Up.PROFILE), b"\x00\xff")
    device.publish(up("d1", Up.EVENT), b"{}", qos=0)
    eventually(lambda: len(world.heard) == 2)
    assert world.said() == [("d1", Up.PROFILE, b"\x00\xff"), ("d1", Up.EVENT, b"{}")]
    assert not world.heard[0].retained


def test_messages_of_one_device_keep_their_order(world):
    device = world.device("d1")
    for number in range(300):
        device.publish(up("d1", Up.PROFILE), str(number).encode())
    eventually(lambda: len(world.heard) == 300)
    assert [int(message.payload) for message in world.heard] == list(range(300))


def test_a_message_is_heard_whatever_happens_to_done(world):
    world.finish = False
    device = world.device("d1")
    device.publish(up("d1", Up.PROFILE), b"1")
    eventually(lambda: len(world.heard) == 1)
    device.drop()
    world.heard[0].done()  # of a connection that is gone: no effect, no error
    again = world.device("d1")
    world.finish = True
    again.publish(up("d1", Up.PROFILE), b"2")
    eventually(lambda: world.heard[-1].payload == b"2")
    assert world.link.connected


def test_a_device_can_speak_only_under_its_own_name_and_kinds(world):
    device = world.device("d1")
    others = [up("d2", Up.PROFILE), down("d1", Down.DESIRED), down("d2", Down.ACK)]
    for topic in [*others, SERVER_STATUS, "shoal/v1/d1/up/x", "x"]:
        device.publish(topic, b"forged")
    device.publish(up("d1", Up.EVENT), b"own")
    eventually(lambda: world.heard)
    assert world.said() == [("d1", Up.EVENT, b"own")]


def test_a_device_can_not_poison_what_is_stored_for_others(world):
    attacker, victim = world.device("d1"), world.device("d2")
    attacker.publish(down("d2", Down.DESIRED), b"poison", retain=True)
    attacker.publish(SERVER_STATUS, b"poison", retain=True)
    attacker.publish(up("d1", Up.EVENT), b"own")
    eventually(lambda: world.heard)
    assert victim.subscribe(down_filter("d2"))
    assert victim.subscribe(SERVER_STATUS)
    world.link.publish(down("d2", Down.ACK), b"end")
    eventually(lambda: any(payload == b"end" for _, payload, _ in victim.received))
    assert all(payload != b"poison" for _, payload, _ in victim.received)


@pytest.mark.parametrize("topic_filter", ["#", "shoal/v1/+/down/#", "shoal/v1/d1/#", "+/+/+/+/+"])
def test_a_device_hears_only_what_is_for_it(world, topic_filter):
    world.link.publish(down("d2", Down.DESIRED), b"stored for d2", retain=True)
    eavesdropper, other = world.device("d1"), world.device("d2")
    eavesdropper.subscribe(topic_filter)
    other.publish(up("d2", Up.EVENT), b"private")
    eventually(lambda: world.heard)
    world.link.publish(down("d2", Down.ACK), b"private too")
    world.link.publish(down("d1", Down.ACK), b"end")
    eventually(lambda: (down("d1", Down.ACK), b"end", False) in eavesdropper.received)
    assert {topic for topic, _, _ in eavesdropper.received} <= {down("d1", Down.ACK), SERVER_STATUS}


def test_a_filter_of_another_device_brings_nothing(world):
    eavesdropper = world.device("d1")
    eavesdropper.subscribe(down_filter("d2"))  # mosquitto says "granted" and delivers nothing
    assert eavesdropper.subscribe(down_filter("d1"))
    world.link.publish(down("d2", Down.ACK), b"private")
    world.link.publish(down("d1", Down.ACK), b"end")
    eventually(lambda: eavesdropper.received)
    assert [payload for _, payload, _ in eavesdropper.received] == [b"end"]


def test_what_is_retained_reaches_a_device_that_comes_later(world):
    world.link.publish(down("d1", Down.DESIRED), b"first", retain=True)
    world.link.publish(down("d1", Down.DESIRED), b"second", retain=True)
    device = world.device("d1")
    device.subscribe(down_filter("d1"))
    eventually(lambda: device.received)
    assert device.received == [(down("d1", Down.DESIRED), b"second", True)]
    world.link.publish(down("d1", Down.DESIRED), b"third", retain=True)
    eventually(lambda: len(device.received) == 2)
    assert device.received[1] == (down("d1", Down.DESIRED), b"third", False)


def test_an_empty_retained_message_clears_what_is_stored(world):
    world.link.publish(down("d1", Down.DESIRED), b"first", retain=True)
    world.link.publish(down("d1", Down.DESIRED), b"", retain=True)
    device = world.device("d1")
    device.subscribe(down_filter("d1"))
    world.link.publish(down("d1", Down.ACK), b"end")
    eventually(lambda: device.received)
    assert device.received == [(down("d1", Down.ACK), b"end", False)]


def test_the_server_says_that_it_is_there(world):
    device = world.device("d1")
    device.subscribe(SERVER_STATUS)
    eventually(lambda: device.received)
    status = parse_server_status(device.received[0][1])
    assert status.online
    assert status.at in {0, 1_000_000}


def test_the_server_says_that_it_goes(world):
    device = world.device("d1")
    device.subscribe(SERVER_STATUS)
    eventually(lambda: device.received)
    world.link.stop()
    eventually(lambda: len(device.received) == 2)
    assert not parse_server_status(device.received[1][1]).online
    assert not world.link.connected


def test_the_will_is_heard_when_a_device_is_lost(world):
    device = world.device("d1", will=(up("d1", Up.PRESENCE), b"gone"))
    device.drop()
    eventually(lambda: world.heard)
    assert world.said() == [("d1", Up.PRESENCE, b"gone")]


def test_no_will_after_a_goodbye_and_none_in_another_name(world):
    polite = world.device("d1", will=(up("d1", Up.PRESENCE), b"gone"))
    polite.close()
    forger = world.device("d2", will=(up("d1", Up.PRESENCE), b"forged"))
    forger.drop()
    world.device("d1").publish(up("d1", Up.EVENT), b"end")
    eventually(lambda: world.heard)
    assert world.said() == [("d1", Up.EVENT, b"end")]


@pytest.mark.parametrize(("name", "secret"), [("d1", "wrong"), ("d1", ""), ("d3", SECRET), ("server", SECRET)])
def test_wrong_credentials_are_refused(world, name, secret):
    with pytest.raises(LinkError):
        world.device(name, secret)
    assert world.heard == []


def test_a_second_connection_of_a_device_ends_the_first(world):
    first = world.device("d1", will=(up("d1", Up.PRESENCE), b"gone"))
    second = world.device("d1")
    eventually(lambda: not first.is_connected)
    second.publish(up("d1", Up.EVENT), b"mine")
    eventually(lambda: ("d1", Up.EVENT, b"mine") in world.said())
    assert second.is_connected
    assert world.said()[0] == ("d1", Up.PRESENCE, b"gone")


def test_a_kicked_device_loses_its_session_and_may_come_back(world):
    kicked, other = world.device("d1"), world.device("d2")
    world.link.kick("d1")
    world.link.kick("unknown")
    eventually(lambda: not kicked.is_connected)
    assert other.is_connected
    back = world.device("d1")
    back.publish(up("d1", Up.EVENT), b"back")
    eventually(lambda: ("d1", Up.EVENT, b"back") in world.said())
    assert back.is_connected


def test_a_device_that_is_let_in_no_more_loses_its_session_and_nobody_else(world):
    revoked, changed, new_secret = world.device("d1"), world.device("d2"), "t" * 43
    world.link.sync_credentials([("d2", line(new_secret)), ("d3", line())])
    eventually(lambda: not revoked.is_connected and not changed.is_connected)
    with pytest.raises(LinkError):
        world.device("d1")
    with pytest.raises(LinkError):
        world.device("d2")
    kept = world.device("d3")
    assert world.device("d2", new_secret).is_connected
    world.link.sync_credentials([("d2", line(new_secret)), ("d3", line()), ("d4", line())])
    assert world.device("d4").is_connected
    assert kept.is_connected


def test_the_server_speaks_only_to_devices(world):
    from shoal_protocol.errors import ContentError

    with pytest.raises(ContentError):
        world.link.publish(up("d1", Up.EVENT), b"")
    with pytest.raises(ContentError):
        world.link.publish("shoal/v1/d1/down/nothing", b"")
    assert world.link.connected


def test_a_link_that_is_down_says_so_when_something_is_to_be_stored(world):
    assert world.link.connections == 1
    world.link.stop()
    assert not world.link.connected
    with pytest.raises(LinkError):
        world.link.publish(down("d1", Down.DESIRED), b"x", retain=True)
