"""A whole server: started as a program and inside this process, on both kinds of database, stopped by signals."""

import json
import shutil
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx2
import pytest

from operator_client import logged_in
from shoal_server.bootstrap import Server
from shoal_server.errors import StartError
from shoal_server.runtime_file import read_runtime
from shoal_server.testing import settings_in
from shoal_server.testing.bundles import push_bundle, tiny_bundle

PROGRAM = Path(sys.executable).with_name("shoal-server")


@contextmanager
def _running(*arguments: str) -> Iterator[subprocess.Popen[str]]:
    child = subprocess.Popen(
        [PROGRAM, "serve", "--listen", "127.0.0.1:0", "--json", *arguments],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        yield child
    finally:
        child.kill()
        child.communicate()


def _get(url: str) -> httpx2.Response:
    with httpx2.Client(trust_env=False) as client:
        return client.get(url)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_serve_says_where_it_is_and_ends_on_a_signal(tmp_path: Path, number: signal.Signals) -> None:
    data = tmp_path / "data"
    with _running("--data", str(data)) as child:
        told = json.loads(child.stdout.readline())
        assert set(told) == {"url", "broker_url", "pid", "ca"}
        assert told["pid"] == child.pid
        assert json.loads((data / "runtime.json").read_text()) == told
        assert (data / "runtime.json").stat().st_mode & 0o777 == 0o600
        assert _get(f"{told['url']}/readyz").json()["status"] == "ok"
        child.send_signal(number)
        _, errors = child.communicate(timeout=60)
    assert child.returncode == 0
    assert errors.count("log in as 'admin'") == 1
    assert "Traceback" not in errors
    assert not (data / "runtime.json").exists()


def test_an_open_event_stream_does_not_keep_the_server_from_ending(server: Server) -> None:
    ended = threading.Event()

    def wait() -> None:
        server.services.signals.wait({}, topics=["never"])
        ended.set()

    waiting = threading.Thread(target=wait)
    waiting.start()
    server.stop()
    assert ended.wait(60)
    waiting.join()


def test_the_first_password_works_and_is_shown_once(tmp_path: Path) -> None:
    passwords = []
    for _ in range(2):
        server = Server(settings_in(tmp_path))
        server.start()
        passwords.append(server.first_password)
        body = {"name": "admin", "password": passwords[0]}
        with httpx2.Client(trust_env=False) as client:
            assert client.post(f"{server.runtime.url}/api/v1/login", json=body).status_code == 204
        server.stop()
    assert passwords[1] is None


def test_a_data_folder_belongs_to_one_server(server: Server) -> None:
    with pytest.raises(StartError, match=f"another server at {server.runtime.url}"):
        Server(settings_in(server.settings.data)).start()
    assert read_runtime(server.settings.data) == server.runtime  # the second one took nothing away


def test_an_address_that_is_taken_is_said_so(server: Server, tmp_path: Path) -> None:
    taken = server.runtime.url.removeprefix("http://")
    with pytest.raises(StartError, match=f"can't listen on {taken}"):
        Server(settings_in(tmp_path / "other", listen=taken)).start()
    assert not (tmp_path / "other" / "runtime.json").exists()


def test_a_server_that_was_killed_starts_again(tmp_path: Path) -> None:
    for _ in range(2):
        with _running("--data", str(tmp_path)) as child:
            url = json.loads(child.stdout.readline())["url"]
            assert _get(f"{url}/healthz").status_code == 200
            child.send_signal(signal.SIGKILL)
            child.wait()


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    server = Server(settings_in(tmp_path / "data"))
    server.start()
    yield server
    server.stop()


def test_joined_devices_find_the_broker_again_after_a_restart(tmp_path: Path) -> None:
    addresses = []
    for _ in range(2):
        server = Server(settings_in(tmp_path))
        server.start()
        addresses.append(server.runtime.broker_url)
        server.stop()
    assert addresses[0] == addresses[1]


def test_a_broker_port_that_was_taken_meanwhile_does_not_keep_the_server_from_starting(tmp_path: Path) -> None:
    server = Server(settings_in(tmp_path))
    server.start()
    port = int(server.runtime.broker_url.rpartition(":")[2])
    server.stop()
    with socket.create_server(("127.0.0.1", port)):
        server = Server(settings_in(tmp_path))
        server.start()
        assert not server.runtime.broker_url.endswith(f":{port}")
        server.stop()


def test_readiness_names_what_fails(server: Server) -> None:
    assert _get(f"{server.runtime.url}/readyz").json()["storage"] == "ok"
    shutil.rmtree(server.settings.data / "blobs" / "uploads")
    answer = _get(f"{server.runtime.url}/readyz")
    assert (answer.status_code, answer.json()["status"]) == (503, "unavailable")
    assert (answer.json()["storage"], answer.json()["database"]) == ("failed (FileNotFoundError)", "ok")


def test_metrics_are_for_this_machine_and_for_viewers(server: Server) -> None:
    url = f"{server.runtime.url}/metrics"
    text = _get(url).text
    assert 'shoal_loop_alive{loop="publisher"} 1.0' in text
    assert "shoal_link_connected 1.0" in text
    with httpx2.Client(trust_env=False) as client:
        assert client.get(url, headers={"x-forwarded-for": "203.0.113.7"}).status_code == 401
        client.request("PROPFIND", f"{server.runtime.url}/nowhere/{'z' * 50}")
    text = _get(url).text
    assert 'route="/metrics",status="401"' in text
    assert 'method="other",route="unknown",status="404"' in text  # what callers choose never becomes a label


def test_the_whole_server_works_on_both_databases(database_url: str, tmp_path: Path, make_token: Callable) -> None:
    server = Server(settings_in(tmp_path / "data", database=database_url))
    server.start()
    try:
        headers = {"authorization": f"Bearer {make_token(server)}"}
        with httpx2.Client(base_url=server.runtime.url, trust_env=False, headers=headers) as client:
            assert push_bundle(client, tiny_bundle(), headers={}).status_code == 201
            assert client.get("/api/v1/models").json()["items"][0]["newest"]["ref"] == "quality:1.0.0"
            assert client.get("/readyz").json()["status"] == "ok"
    finally:
        server.stop()


@pytest.fixture
def make_token() -> Callable[[Server], str]:
    def make(server: Server) -> str:
        with logged_in(server) as client:
            return str(client.post("/api/v1/tokens", json={"name": "ci", "role": "releaser"}).json()["token"])

    return make


def _run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([PROGRAM, *arguments], capture_output=True, text=True, timeout=60, check=False)


def test_beyond_loopback_is_refused_with_advice(tmp_path: Path) -> None:
    done = _run("serve", "--data", str(tmp_path), "--listen", "0.0.0.0:0")
    assert done.returncode == 1
    assert "without encryption" in done.stderr
    assert "--insecure" in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_reset_password_and_doctor(server: Server) -> None:
    data = str(server.settings.data)
    done = _run("admin", "reset-password", "--data", data)
    password = done.stdout.removeprefix("admin: ").strip()
    with httpx2.Client(trust_env=False) as client:
        answer = client.post(f"{server.runtime.url}/api/v1/login", json={"name": "admin", "password": password})
    assert answer.status_code == 204
    looked = _run("doctor", "--data", data, "--json")
    assert looked.returncode == 0, looked.stdout
    findings = {finding["name"]: finding for finding in json.loads(looked.stdout)["findings"]}
    assert server.runtime.url in findings["running server"]["what"]


def test_doctor_names_what_is_wrong(server: Server) -> None:
    (server.settings.data / "keys" / "targets.pem").unlink()
    looked = _run("doctor", "--data", str(server.settings.data))
    assert looked.returncode == 1
    assert "FAIL  signing keys: missing: targets" in looked.stdout


def test_help_is_quick_and_names_the_commands() -> None:
    done = _run("--help")
    listed = {line.split()[0] for line in done.stdout.splitlines() if line.strip()}
    assert {"serve", "admin", "doctor", "demo"} <= listed
    question = "import sys, shoal_server.cli; print([m for m in ('fastapi', 'sqlmodel') if m in sys.modules])"
    loaded = subprocess.run([sys.executable, "-c", question], capture_output=True, text=True, check=True)
    assert loaded.stdout.strip() == "[]"
