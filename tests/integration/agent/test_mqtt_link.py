"""The MQTT link against a real mosquitto: presence, will, documents, and a broker that dies."""

from __future__ import annotations

import json
import threading

import pytest

from fixtures_broker import PahoDevice, eventually
from shoal_agent.adapters.mqtt_dialect import Dialect
from shoal_agent.adapters.mqtt_line import Line as MqttConnection
from shoal_agent.adapters.mqtt_link import MqttLink
from shoal_agent.domain.backoff import Backoff
from shoal_agent.errors import SettingsError
from shoal_agent.ports import LinkHandlers
from shoal_agent.testing import FakeClock
from shoal_agent.updating.messages import Messages
from shoal_protocol.mqtt.messages import parse_message
from shoal_protocol.mqtt.topics import SERVER_STATUS, Down, Up, down, up
from shoal_server.link.endpoint import EmbeddedLink
from shoal_server.link.verifiers import verifier_line

pytestmark = pytest.mark.broker
SECRET = "d" * 43


class Line:
    """A link of a device, and what came over it."""

    def __init__(self, url: str, device: str = "dev-1", dialect: Dialect | None = None) -> None:
        self.messages = Messages(epoch="00" * 8, boot=1, clock=FakeClock())
        self.came: list[tuple[Down, bytes]] = []
        self.connects = 0
        self.link = MqttLink(
            url,
            device=device,
            secret=lambda: SECRET,
            ca_file=None,
            dialect=dialect,
            backoff=Backoff(0.05, 0.2),
            chance=lambda: 1.0,
        )
        self.link.start(
            LinkHandlers(
                on_message=lambda kind, raw: self.came.append((kind, raw)),
                on_connected=self._connected,
                greeting=self.messages.greeting,
                farewell=self.messages.farewell,
            )
        )

    def _connected(self) -> None:
        self.connects += 1
        raise RuntimeError("a handler that fails must not end the link")


@pytest.fixture
def broker(mosquitto):
    mosquitto.credentials().sync([("dev-1", verifier_line(SECRET, salt=b"0" * 12))])
    return mosquitto


@pytest.fixture
def server(broker):
    client = PahoDevice(broker.url, broker.server_user, broker.server_secret)
    assert client.subscribe("shoal/v1/+/up/#")
    yield client
    client.close()


def test_the_url_is_checked():
    with pytest.raises(SettingsError, match="mqtt\\(s\\)://"):
        MqttLink("http://x", device="d", secret=str, ca_file=None, backoff=Backoff(), chance=lambda: 1.0)


def test_presence_documents_and_an_orderly_end(broker, server):
    line = Line(f"mqtt://127.0.0.1:{broker.port}")
    eventually(lambda: line.link.connected, what="a connection")
    assert line.link.publish(Up.EVENT, b"x" * 60_000)
    server.publish(down("dev-1", Down.DESIRED), b"document", retain=True)
    eventually(lambda: line.came, what="the document")
    assert line.came == [(Down.DESIRED, b"document")]
    eventually(lambda: any(t.endswith("/event") for t, _, _ in server.received), what="the event")
    line.link.stop()
    assert not line.link.connected
    eventually(lambda: len(presences(server)) >= 2, what="the farewell")
    online, offline = presences(server)[0], presences(server)[-1]
    assert (online.online, offline.online) == (True, False)
    assert online.order < offline.order


def test_a_link_that_is_lost_leaves_its_will_and_comes_back(broker, server):
    line = Line(f"mqtt://127.0.0.1:{broker.port}")
    eventually(lambda: line.link.connected, what="a connection")
    line.link._line._client.socket().shutdown(2)
    eventually(lambda: line.connects == 2, what="a second connection")
    eventually(lambda: [p.online for p in presences(server)] == [True, False, True], what="presence, will, presence")
    orders = [p.order for p in presences(server)]
    assert orders == sorted(orders)
    line.link.stop()


def test_a_broker_that_dies_and_comes_back_is_found_again(broker, server):
    line = Line(f"mqtt://127.0.0.1:{broker.port}")
    eventually(lambda: line.link.connected, what="a connection")
    broker.kill()
    eventually(lambda: not line.link.connected, what="the loss")
    assert not line.link.publish(Up.EVENT, b"x")
    broker.start()
    eventually(lambda: line.link.report().protocol or line.link.report().fault.code == "unheard", what="it is back")
    again = PahoDevice(broker.url, broker.server_user, broker.server_secret)
    again.publish(SERVER_STATUS, b'{"online": true, "at": 1}', retain=True)
    eventually(lambda: line.link.connected, what="a new connection")
    line.link.stop()
    again.close()


def test_a_refused_login_is_tried_again_without_noise(broker):
    line = Line(f"mqtt://127.0.0.1:{broker.port}", device="nobody-knows-me")
    eventually(
        lambda: line.messages.greeting()[0] and json.loads(line.messages.greeting()[0])["seq"] > 12, what="tries"
    )
    assert not line.link.connected
    assert line.connects == 0
    line.link.stop()


def fault(line: Line) -> str | None:
    told = line.link.report().fault
    return told and told.code


def test_a_broker_without_the_server_keeps_no_messages_from_other_ways(broker):
    line = Line(f"mqtt://127.0.0.1:{broker.port}")
    eventually(lambda: fault(line) == "unheard", what="MQTT 5 tells that nobody listens")
    assert not line.link.connected
    assert not line.link.publish(Up.EVENT, b"x")
    server = PahoDevice(broker.url, broker.server_user, broker.server_secret)
    assert server.subscribe("shoal/v1/+/up/#")
    server.publish(SERVER_STATUS, b'{"online": true, "at": 1}', retain=True)
    eventually(lambda: line.link.connected, what="the server is there")
    assert (line.link.report().protocol, fault(line), line.connects) == ("MQTT 5", None, 1)
    server.publish(SERVER_STATUS, b'{"online": false, "at": 2}', retain=True)
    eventually(lambda: fault(line) == "server_away" and not line.link.connected, what="the server is gone")
    line.link.stop()
    server.close()


def test_a_refused_publication_is_a_known_cause_and_not_a_success(broker, server):
    rules = broker.folder / "acl"
    rules.write_text(rules.read_text().replace("pattern write shoal/v1/%u/up/#\n", ""))
    broker.process.send_signal(1)
    line = Line(f"mqtt://127.0.0.1:{broker.port}")
    eventually(lambda: fault(line) == "not_authorised", what="the cause")
    assert "access rules" in line.link.report().fault.message
    assert (line.link.connected, line.connects) == (False, 0)
    line.link.stop()


def test_two_connections_of_one_device_learn_of_each_other(broker, server):
    lines = [Line(f"mqtt://127.0.0.1:{broker.port}") for _ in range(2)]
    # mosquitto 2.0 ends the older connection without the reason that MQTT 5 has for it; other brokers tell
    told = {"taken_over", "short_lived"}
    eventually(lambda: all(fault(line) in told for line in lines), within_s=30, what="the cause")
    assert min(line.connects for line in lines) >= 1, "each was let in"
    for line in lines:
        line.link.stop()


def test_a_message_too_large_for_the_broker_is_left_to_another_way(broker, server):
    configuration = broker.folder / "mosquitto.conf"
    configuration.write_text(configuration.read_text() + "\nmax_packet_size 20000\n")
    broker.stop()
    broker.start()
    listener = PahoDevice(broker.url, broker.server_user, broker.server_secret)
    assert listener.subscribe("shoal/v1/+/up/#")
    line = Line(f"mqtt://127.0.0.1:{broker.port}")
    eventually(lambda: line.link.connected, what="a connection")
    assert not line.link.publish(Up.PROFILE, b"x" * 30_000)
    assert (line.link.is_too_narrow, fault(line), line.link.connected) == (True, "packet_too_large", True)
    assert line.link.publish(Up.EVENT, b"small")
    eventually(lambda: any(t.endswith("/event") for t, _, _ in listener.received), what="the line goes on")
    line.link.stop()
    listener.close()


def test_the_embedded_endpoint_is_spoken_to_in_the_version_that_it_knows(tmp_path):
    endpoint = EmbeddedLink("127.0.0.1", 0, clock=lambda: 0.0)
    endpoint.start(lambda inbound: inbound.done())
    endpoint.sync_credentials([("dev-1", verifier_line(SECRET, salt=b"0" * 12))])
    try:
        for connections in (2, 1):  # the second start remembers
            dialect = Dialect(tmp_path / "broker.json", broker=endpoint.url, agent="1", clock=lambda: 0.0)
            line = Line(endpoint.url, dialect=dialect)
            eventually(lambda line=line: line.link.connected, what="a connection")
            assert line.link.report().protocol == "MQTT 3.1.1"
            tried = json.loads(line.messages.greeting()[0])["seq"]
            assert tried == 2 * connections + 1, "each connection takes two numbers"
            line.link.stop()
    finally:
        endpoint.stop()


def test_a_thread_that_hangs_is_replaced(broker, server, monkeypatch):
    line = Line(f"mqtt://127.0.0.1:{broker.port}")
    eventually(lambda: line.link.connected, what="a connection")
    line.link._thread._patience_s = 0.3
    held, real, released = threading.Event(), MqttConnection.turn, threading.Event()

    def turn(connection: MqttConnection, seconds: float) -> bool:
        if not held.is_set():
            held.set()
            released.wait(30)
        return real(connection, min(seconds, 0.05))

    monkeypatch.setattr(MqttConnection, "turn", turn)
    eventually(held.is_set, what="the thread hangs")
    eventually(lambda: line.link.tend() or line.link.report().replaced == 1, what="another one takes over")
    line.link._thread._patience_s = 60.0
    eventually(lambda: line.connects == 2 and line.link.connected, what="a connection of the new thread")
    assert line.link.report().replaced == 1
    released.set()
    line.link.stop()


def presences(server):
    return [parse_message(Up.PRESENCE, raw) for topic, raw, _ in server.received if topic == up("dev-1", Up.PRESENCE)]
