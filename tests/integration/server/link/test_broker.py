"""The line over a real mosquitto that dies, comes back, refuses, and is told who may come in."""

import logging
import os
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from fixtures_broker import Mosquitto, PahoDevice, eventually
from shoal_protocol.errors import CallerError
from shoal_protocol.mqtt.topics import SERVER_STATUS, Down, Up, down, down_filter, up
from shoal_server.link.broker import BrokerLink
from shoal_server.link.mosquitto import MosquittoCredentials, acl_text
from shoal_server.link.port import Inbound, LinkError
from shoal_server.link.verifiers import verifier_line

pytestmark = pytest.mark.broker

SECRET = "s" * 43
LINE = verifier_line(SECRET, salt=b"0123456789ab")


class Server:
    """Links to one broker, one after the other or at once."""

    def __init__(self, broker: Mosquitto) -> None:
        self.broker = broker
        self.links: list[BrokerLink] = []
        self.credentials = broker.credentials()
        self.credentials.sync([("d1", LINE), ("d2", LINE)])

    def start(self, handler: Any, **options: Any) -> BrokerLink:
        url = options.pop("url", self.broker.url)
        link = BrokerLink(url, clock=lambda: 0.0, credentials=self.credentials, **options)
        link.start(handler)
        self.links.append(link)
        return link

    def up(self, handler: Any, **options: Any) -> BrokerLink:
        link = self.start(handler, **options)
        eventually(lambda: link.connected, what="the link is up")
        return link


@pytest.fixture
def server(mosquitto: Mosquitto) -> Iterator[Server]:
    server = Server(mosquitto)
    yield server
    for link in server.links:
        link.stop()


def device(server: Server, name: str = "d1", **options: Any) -> PahoDevice:
    return PahoDevice(server.links[-1].url, name, SECRET, **options)


def test_what_is_not_done_comes_again_and_what_is_done_does_not(server):
    heard: list[Inbound] = []
    link = server.up(heard.append)
    sender = device(server)
    for number in range(10):
        sender.publish(up("d1", Up.PROFILE), str(number).encode())
    eventually(lambda: len(heard) == 10)
    for message in heard[:6]:
        message.done()
    eventually(lambda: link.undone == 4)
    link.stop()
    again: list[Inbound] = []
    server.up(again.append)
    eventually(lambda: len(again) == 4)
    assert [message.payload for message in again] == [b"6", b"7", b"8", b"9"]
    for message in heard[6:]:
        message.done()  # of a link that has stopped
    sender.close()


def test_the_line_comes_back_after_the_broker_and_late_acknowledgements_are_dropped(server, mosquitto):
    heard: list[Inbound] = []
    link = server.up(heard.append)
    sender = device(server)
    sender.publish(up("d1", Up.PROFILE), b"before")
    eventually(lambda: heard)
    mosquitto.kill()
    eventually(lambda: not link.connected)
    with pytest.raises(LinkError, match="not connected"):
        link.publish(down("d1", Down.DESIRED), b"x", retain=True)
    link.publish(down("d1", Down.ACK), b"lost, as agreed")
    mosquitto.start()
    eventually(lambda: link.connections == 2)
    again = device(server)
    again.publish(up("d1", Up.PROFILE), b"after")
    eventually(lambda: [message.payload for message in heard].count(b"after") == 1)
    heard[0].done()  # its connection is gone; had it been sent, the broker would take it for the new message's
    link.stop()
    later: list[Inbound] = []
    server.up(later.append)
    eventually(lambda: later)
    assert later[0].payload == b"after"
    sender.close()
    again.close()


def test_reading_stops_while_too_much_is_not_done(server):
    heard: list[Inbound] = []
    link = server.up(heard.append, max_undone=20)
    sender = device(server)
    for number in range(200):
        sender.publish(up("d1", Up.PROFILE), str(number).encode())
    for done in range(200):
        eventually(lambda at_least=done: len(heard) > at_least)
        assert link.undone <= 20
        heard[done].done()
    assert [int(message.payload) for message in heard] == list(range(200))
    sender.close()


def test_an_error_in_the_handler_does_not_end_the_line(server, caplog):
    heard: list[bytes] = []

    def fail_once(message: Inbound) -> None:
        heard.append(message.payload)
        message.done()
        if len(heard) == 1:
            raise ValueError("broken on purpose")

    link = server.up(fail_once)
    sender = device(server)
    sender.publish(up("d1", Up.EVENT), b"1")
    sender.publish(up("d1", Up.EVENT), b"2")
    eventually(lambda: heard == [b"1", b"2"])
    assert link.connected
    assert "broken on purpose" in caplog.text
    sender.close()


def test_retained_messages_of_devices_are_marked(server):
    first: list[Inbound] = []
    link = server.up(lambda message: (first.append(message), message.done()))
    sender = device(server)
    sender.publish(up("d1", Up.REPORTED), b"state", retain=True)
    eventually(lambda: first)
    assert not first[0].retained
    link.stop()
    second: list[Inbound] = []
    server.up(lambda message: (second.append(message), message.done()))
    eventually(lambda: any(message.retained for message in second))  # the first may come again if its ack was lost
    assert {message.payload for message in second} == {b"state"}
    sender.close()


def test_a_stored_message_survives_the_brokers_restart(server, mosquitto):
    link = server.up(lambda message: message.done())
    link.publish(down("d1", Down.DESIRED), b"desired", retain=True)
    mosquitto.stop()
    mosquitto.start()
    eventually(lambda: link.connections == 2)
    listener = device(server)
    listener.subscribe(down_filter("d1"))
    eventually(lambda: listener.received)
    assert listener.received == [(down("d1", Down.DESIRED), b"desired", True)]
    listener.close()


def test_devices_learn_of_a_server_that_dies(server, monkeypatch):
    link = server.up(lambda message: message.done())
    listener = device(server)
    listener.subscribe(SERVER_STATUS)
    eventually(lambda: listener.received)
    monkeypatch.setattr(link, "_say_goodbye", lambda client: client.socket().close())
    link.stop()
    eventually(lambda: len(listener.received) == 2)
    assert b'"online":false' in listener.received[1][1]
    listener.close()


def test_two_servers_under_one_name_do_not_throw_each_other_out_without_pause(server):
    first = server.up(lambda message: message.done())
    second = server.up(lambda message: message.done())
    eventually(lambda: first.connections + second.connections >= 5)
    at = first.connections + second.connections
    with pytest.raises(AssertionError, match="not within"):
        eventually(lambda: first.connections + second.connections > at + 8, within_s=1)
    assert at < 20


@pytest.mark.parametrize("client_id", ["d2", "server"])
def test_a_device_that_calls_itself_otherwise_disturbs_nobody(server, client_id):
    link = server.up(lambda message: message.done())
    victim = device(server, "d2")
    liar = device(server, "d1", client_id=client_id)
    victim.publish(up("d2", Up.EVENT), b"x")
    eventually(lambda: victim.acknowledged)
    assert link.connected
    assert link.connections == 1
    liar.close()
    victim.close()


def test_a_wrong_password_is_said_once_and_tried_again(server, mosquitto, caplog):
    caplog.set_level(logging.WARNING)
    link = server.start(lambda message: message.done(), url=f"mqtt://server:wrong@127.0.0.1:{mosquitto.port}")
    eventually(lambda: "refuses the user 'server'" in caplog.text)
    eventually(lambda: mosquitto.folder.joinpath("log").read_text().count("not authorised") >= 3)
    assert not link.connected
    assert caplog.text.count("refuses") == 1


def test_a_url_of_another_form_is_refused():
    with pytest.raises(CallerError, match="expected mqtt"):
        BrokerLink("http://127.0.0.1:1", clock=lambda: 0.0)


def test_unchanged_credentials_are_not_written_again(server, mosquitto):
    before = (mosquitto.folder / "passwords").stat().st_mtime_ns
    server.credentials.sync([("d2", LINE), ("d1", LINE)])
    assert (mosquitto.folder / "passwords").stat().st_mtime_ns == before
    server.credentials.sync([("d1", LINE)])
    assert (mosquitto.folder / "passwords").stat().st_mtime_ns != before


def test_many_changes_in_a_row_all_take_hold(server):
    server.up(lambda message: message.done())
    for number in range(15):
        server.credentials.sync([("d1", LINE), (f"n{number}", LINE)])
        newcomer = device(server, f"n{number}")
        assert newcomer.is_connected, number
        newcomer.close()


def test_credentials_written_while_mosquitto_is_down_hold_when_it_starts(server, mosquitto):
    mosquitto.stop()
    server.credentials.sync([("late", LINE)])
    mosquitto.start()
    server.up(lambda message: message.done())
    late = device(server, "late")
    assert late.is_connected
    late.close()


def test_the_files_can_be_read_by_the_broker_and_not_by_the_world(server, mosquitto):
    for name in ("passwords", "acl"):
        status = (mosquitto.folder / name).stat()
        assert status.st_mode & 0o777 == 0o640
        assert status.st_uid == mosquitto.folder.stat().st_uid


def test_a_server_with_a_new_secret_lets_itself_in_and_keeps_the_devices(server, mosquitto):
    mosquitto.server_secret = "another secret"
    server.credentials = mosquitto.credentials()
    link = server.up(lambda message: message.done(), url=mosquitto.url.replace(" ", "%20"))
    kept = device(server)
    assert kept.is_connected
    link.kick("d1")
    eventually(lambda: not kept.is_connected)
    kept.close()


def test_a_server_that_starts_again_changes_nothing(server, mosquitto):
    link = server.up(lambda message: message.done())
    kept = device(server)
    before = (mosquitto.folder / "passwords").read_bytes()
    link.stop()
    server.credentials = mosquitto.credentials()
    server.up(lambda message: message.done())
    assert (mosquitto.folder / "passwords").read_bytes() == before
    assert kept.is_connected
    kept.close()


def test_a_folder_that_can_not_be_written_is_an_error_with_advice(mosquitto, tmp_path):
    lost = MosquittoCredentials(tmp_path / "none", address=("127.0.0.1", mosquitto.port), server=("server", "x"))
    link = BrokerLink(mosquitto.url, clock=lambda: 0.0, credentials=lost)
    with pytest.raises(LinkError, match="can't write") as error:
        link.start(lambda message: message.done())
    assert "deploy/mosquitto" in error.value.hint


def test_a_process_that_is_no_mosquitto_is_not_signalled(server, mosquitto):
    mosquitto.stop()
    (mosquitto.folder / "mosquitto.pid").write_text(str(os.getpid()))  # SIGHUP would end this test
    server.credentials.sync([])
    assert "d1:" not in (mosquitto.folder / "passwords").read_text()


_STARTING = """
import signal, sys
open("/proc/self/comm", "w").write("mosquitto")
print("named", flush=True)
for line in sys.stdin:  # as mosquitto: its process id is there before its handler is
    signal.signal(signal.SIGHUP, lambda *_: print("reloaded", flush=True))
    print("handles", flush=True)
"""


def test_a_mosquitto_that_still_starts_is_not_signalled_to_death(server, mosquitto, monkeypatch):
    monkeypatch.setattr("shoal_server.link.mosquitto._PATIENCE_S", 0.1)
    monkeypatch.setattr("shoal_server.link.mosquitto._PROBE_S", 0.02)
    mosquitto.stop()
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen([sys.executable, "-c", _STARTING], **pipes) as starting:
        try:
            assert starting.stdout.readline() == "named\n"
            (mosquitto.folder / "mosquitto.pid").write_text(str(starting.pid))
            with pytest.raises(LinkError, match="does not let in"):
                server.credentials.sync([("d3", LINE)])
            assert starting.poll() is None
            starting.stdin.write("go\n")
            starting.stdin.flush()
            assert starting.stdout.readline() == "handles\n"
            with pytest.raises(LinkError, match="does not let in"):
                server.credentials.sync([("d4", LINE)])
            assert starting.stdout.readline() == "reloaded\n"
        finally:
            starting.kill()


def test_the_acl_in_deploy_is_the_one_that_is_written(mosquitto):
    from fixtures_broker import CONFIGURATION

    assert (CONFIGURATION.parent / "acl").read_text() == acl_text("server")
    assert (mosquitto.folder / "acl").read_text() == acl_text("server")
