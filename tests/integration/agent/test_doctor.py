"""The doctor on a joined device: a simulated server, a real broker with right and wrong rules, and what breaks."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import msgspec
import pytest

from fixtures_broker import PahoDevice
from places_to_download_from import Place
from shoal_agent.adapters.identity import IdentityFolder
from shoal_agent.doctor import Chart, State, broker, examine, network
from shoal_agent.testing import SimulatedServer
from shoal_server.link.endpoint import EmbeddedLink
from shoal_server.link.verifiers import verifier_line

SECRET = "d" * 43


def by_check(found):
    return {finding.check: finding for finding in found}


def test_a_healthy_device(world):
    found = by_check(examine(Chart(world.state)))
    assert {name: f.came for name, f in found.items() if f.state is State.WRONG} == {}
    assert found["http_login"].state is found["server_dns"].state is found["server_tcp"].state is State.OK
    assert found["slots"].came == "nothing is assigned to this device yet"
    assert found["broker_login"].state is State.SKIPPED


def test_the_command_prints_each_check_and_says_by_its_code_whether_all_is_well(world):
    command = [sys.executable, "-m", "shoal_agent.cli", "doctor", "--state", str(world.state)]
    done = subprocess.run([*command, "--json"], capture_output=True, text=True, timeout=60, check=False)
    document = json.loads(done.stdout)
    assert (done.returncode, document["ok"]) == (0, True)
    (world.state / "identity" / "key.pem").chmod(0o644)
    done = subprocess.run([*command, "--offline"], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    assert "-> chmod -R go= " in done.stdout


@pytest.mark.parametrize(("status", "word"), [(401, "does not take"), (403, "nothing yet"), (502, "answered 502")])
def test_a_server_that_does_not_let_the_device_in(world, status, word):
    class Refusing(BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(status)
            self.end_headers()

        def log_message(self, *_):
            pass

    with HTTPServer(("127.0.0.1", 0), Refusing) as server:
        threading.Thread(target=server.handle_request, daemon=True).start()
        folder = IdentityFolder(world.state / "identity")
        identity = msgspec.structs.replace(folder.load(), url=f"http://127.0.0.1:{server.server_port}")
        found, told_s = network.login(identity, ca_file=None)
    assert (found.state, word in found.came) == (State.WRONG, True)
    assert told_s is not None


def test_a_server_that_is_gone(world):
    folder = IdentityFolder(world.state / "identity")
    identity = folder.load()
    folder.save(msgspec.structs.replace(identity, url=identity.url.replace("http:", "https:")))
    assert by_check(examine(Chart(world.state)))["server_tls"].state is State.WRONG
    folder.save(msgspec.structs.replace(identity, url="http://nowhere.invalid"))
    found = by_check(examine(Chart(world.state)))
    assert found["server_dns"].state is State.WRONG
    assert found["http_login"].state is found["server_tcp"].state is State.SKIPPED
    folder.save(msgspec.structs.replace(identity, url="http://127.0.0.1:9"))
    assert by_check(examine(Chart(world.state)))["server_tcp"].state is State.WRONG


def test_a_damaged_bundle_is_found(world):
    digest = world.pack(3.0, "1.0")
    with world.agent():
        world.assign(digest)
        world.committed(digest)
    found = by_check(examine(Chart(world.state, offline=True)))
    assert {name: f.came for name, f in found.items() if f.state is State.WRONG} == {}
    assert found["slots"].state is found["signed_list"].state is State.OK
    blob = max((world.state / "blobs").iterdir(), key=lambda path: path.stat().st_size)
    blob.chmod(0o644)
    blob.write_bytes(b"\0" * blob.stat().st_size)
    assert by_check(examine(Chart(world.state, offline=True)))["integrity"].state is State.WRONG


@pytest.mark.broker
def test_the_broker_proves_that_it_keeps_a_device_to_its_own_topics(mosquitto, world):
    mosquitto.credentials().sync([("dev-1", verifier_line(SECRET, salt=b"0" * 12))])
    server = PahoDevice(mosquitto.url, mosquitto.server_user, mosquitto.server_secret)
    server.client.publish("shoal/v1/server/status", b"{}", qos=1, retain=True).wait_for_publish(5)
    server.client.publish("shoal/v1/dev-2/up/presence", b"{}", qos=1, retain=True).wait_for_publish(5)
    identity = msgspec.structs.replace(
        IdentityFolder(world.state / "identity").load(),
        secret=SECRET,
        mqtt_url=f"mqtt://127.0.0.1:{mosquitto.port}",
    )
    found = broker.broker(identity, ca_file=None)
    assert [f.state for f in found] == [State.OK] * 3
    assert "by MQTT 5" in found[0].came

    login, *rest = broker.broker(msgspec.structs.replace(identity, secret="w" * 43), ca_file=None)
    assert login.state is State.WRONG
    assert [f.state for f in rest] == [State.SKIPPED] * 2

    rules = mosquitto.folder / "acl"
    kept = mosquitto.folder / "acl.kept"
    shutil.copy(rules, kept)
    rules.write_text(kept.read_text() + "\npattern readwrite shoal/v1/#\n")
    mosquitto.process.send_signal(1)
    *_, acl = broker.broker(identity, ca_file=None)
    assert acl.state is State.WRONG
    assert "dev-2/up/presence" in acl.came
    assert f"{identity.device}/down/doctor-" in acl.came
    server.close()


@pytest.mark.broker
def test_a_broker_that_takes_nothing_of_this_device_is_found_out(mosquitto, world):
    mosquitto.credentials().sync([("dev-1", verifier_line(SECRET, salt=b"0" * 12))])
    server = PahoDevice(mosquitto.url, mosquitto.server_user, mosquitto.server_secret)
    server.client.publish("shoal/v1/server/status", b"{}", qos=1, retain=True).wait_for_publish(5)
    rules = mosquitto.folder / "acl"
    rules.write_text(rules.read_text().replace("pattern write shoal/v1/%u/up/#\n", ""))
    mosquitto.process.send_signal(1)
    identity = _known(world, f"mqtt://127.0.0.1:{mosquitto.port}")
    _, round_trip, acl = broker.broker(identity, ca_file=None)
    assert (round_trip.state, acl.state) == (State.WRONG, State.SKIPPED)
    assert "does not take what this device says: Not authorized" in round_trip.came
    server.close()


def test_the_embedded_endpoint_is_examined_in_the_version_that_it_knows(world):
    endpoint = EmbeddedLink("127.0.0.1", 0, clock=lambda: 0.0)
    endpoint.start(lambda inbound: inbound.done())
    endpoint.sync_credentials([("dev-1", verifier_line(SECRET, salt=b"0" * 12))])
    try:
        found = broker.broker(_known(world, endpoint.url), ca_file=None)
    finally:
        endpoint.stop()
    assert [f.state for f in found] == [State.OK] * 3
    assert "by MQTT 3.1.1" in found[0].came


def _known(world, url):
    identity = IdentityFolder(world.state / "identity").load()
    return msgspec.structs.replace(identity, secret=SECRET, mqtt_url=url)


def test_an_agent_that_runs_keeps_its_connection(world):
    with world.agent(), SimulatedServer() as other:
        folder = IdentityFolder(world.state / "identity")
        mqtt = other.url.replace("http:", "mqtt:")
        folder.save(msgspec.structs.replace(folder.load(), mqtt_url=mqtt))
        found = by_check(examine(Chart(world.state)))
        assert found["broker_login"].state is State.NOTE
        assert "--take-over" in found["broker_login"].advice


@pytest.mark.parametrize(
    ("status", "state", "word"),
    [
        (None, State.OK, "answers"),
        (404, State.OK, "answers"),
        (401, State.NOTE, "credentials"),
        (503, State.NOTE, "503"),
    ],
)
def test_a_mirror_of_the_settings_is_asked_without_credentials(world, status, state, word):
    with Place(b"{}", status=status) as mirror:
        (world.state / "config.toml").write_text(f'[download]\nmirrors = "{mirror.url}"\n')
        found = by_check(examine(Chart(world.state)))["mirror"]
    assert (found.state, word in found.came) == (state, True)
    assert "authorization" not in mirror.asked[0]
    assert by_check(examine(Chart(world.state)))["mirror"].state is State.NOTE  # it is gone
    assert "mirror" not in by_check(examine(Chart(world.state, offline=True)))
