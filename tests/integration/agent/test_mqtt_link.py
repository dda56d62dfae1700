"""The MQTT link against a real mosquitto: presence, will, documents, and a broker that dies."""

from __future__ import annotations

import json

import pytest

from fixtures_broker import PahoDevice, eventually
from shoal_agent.adapters.mqtt_link import MqttLink
from shoal_agent.domain.backoff import Backoff
from shoal_agent.errors import SettingsError
from shoal_agent.ports import LinkHandlers
from shoal_agent.testing import FakeClock
from shoal_agent.updating.messages import Messages
from shoal_protocol.mqtt.messages import parse_message
from shoal_protocol.mqtt.topics import Down, Up, down, up
from shoal_server.link.verifiers import verifier_line

pytestmark = pytest.mark.broker
SECRET = "d" * 43


class Line:
    """A link of a device, and what came over it."""

    def __init__(self, url: str, device: str = "dev-1") -> None:
        self.messages = Messages(epoch="00" * 8, boot=1, clock=FakeClock())
        self.came: list[tuple[Down, bytes]] = []
        self.connects = 0
        self.link = MqttLink(
            url, device=device, secret=lambda: SECRET, ca_file=None, backoff=Backoff(0.05, 0.2), chance=lambda: 1.0
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
    line.link._up.socket().shutdown(2)
    eventually(lambda: line.connects == 2, what="a second connection")
    eventually(lambda: [p.online for p in presences(server)] == [True, False, True], what="presence, will, presence")
    orders = [p.order for p in presences(server)]
    assert orders == sorted(orders)
    line.link.stop()


def test_a_broker_that_dies_and_comes_back_is_found_again(broker):
    line = Line(f"mqtt://127.0.0.1:{broker.port}")
    eventually(lambda: line.link.connected, what="a connection")
    broker.kill()
    eventually(lambda: not line.link.connected, what="the loss")
    assert not line.link.publish(Up.EVENT, b"x")
    broker.start()
    eventually(lambda: line.link.connected, what="a new connection")
    line.link.stop()


def test_a_refused_login_is_tried_again_without_noise(broker):
    line = Line(f"mqtt://127.0.0.1:{broker.port}", device="nobody-knows-me")
    eventually(
        lambda: line.messages.greeting()[0] and json.loads(line.messages.greeting()[0])["seq"] > 12, what="tries"
    )
    assert not line.link.connected
    assert line.connects == 0
    line.link.stop()


def presences(server):
    return [parse_message(Up.PRESENCE, raw) for topic, raw, _ in server.received if topic == up("dev-1", Up.PRESENCE)]
