"""`serve --lan`: TLS for HTTP and MQTT by an authority that the join token pins, by whatever name it is reached."""

from __future__ import annotations

import socket
import ssl
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fixtures_broker import eventually
from operator_client import logged_in
from shoal_agent import Agent
from shoal_agent.adapters.enrolment import join
from shoal_agent.adapters.http_client import HttpClient
from shoal_agent.bootstrap import Overrides
from shoal_agent.errors import TransportError
from shoal_protocol.errors import DigestMismatchError
from shoal_server.bootstrap import Server
from shoal_server.errors import StartError
from shoal_server.link.addresses import lan_address
from shoal_server.link.authority import open_authority
from shoal_server.storage.settings import Pace, settings_from
from shoal_server.testing import settings_in

FOUR_HUNDRED_DAYS_S = 400 * 86_400.0


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    server = Server(lan_settings(tmp_path_factory.mktemp("server")))
    server.start()
    yield server
    server.stop()


def lan_settings(data: Path, **changes: Any) -> Any:
    """As `serve --lan --listen 0.0.0.0:0` makes them."""
    return settings_from(
        {}, {"data": data, "lan": True, "listen": "0.0.0.0:0", "pace": Pace(publisher_s=0.05), **changes}
    )


def token_of(server: Server) -> str:
    assert server.runtime.ca is not None
    with logged_in(server) as client:
        made = client.post("/api/v1/join-tokens", json={"uses": 9}).json()
    assert made["join"].startswith(f"shoal-agent join https://{lan_address()}:")
    return str(made["token"])


@pytest.mark.parametrize(
    ("host", "clock"),
    [
        ("localhost", time.time),
        (lan_address(), lambda: 5.0),
        (socket.gethostname(), lambda: time.time() + FOUR_HUNDRED_DAYS_S),
    ],
    ids=["now", "1970", "a-year-ahead"],
)
def test_a_device_joins_by_whatever_name_and_clock_it_has(
    server: Server, tmp_path: Path, host: str, clock: Any
) -> None:
    token = token_of(server)
    port = server.runtime.url.rpartition(":")[2]
    state = tmp_path / "device"
    joined = join(f"https://{host}:{port}", token, state, name=None, labels={}, facts={}, clock=clock)
    assert str(joined.identity.mqtt_url).startswith(f"mqtts://{host}:")
    with Agent(state, overrides=Overrides(clock=clock)) as agent:
        eventually(lambda: agent.status()["connected"], what="a connection")
        eventually(lambda: server.services.link.devices == 1, what="the device at the MQTT endpoint")


def test_a_device_refuses_another_servers_authority(server: Server, tmp_path: Path) -> None:
    token = token_of(server)
    other = Server(lan_settings(tmp_path / "other"))
    other.start()
    try:
        with pytest.raises(DigestMismatchError, match="certificate authority"):
            join(other.runtime.url, token, tmp_path / "device", name=None, labels={}, facts={}, clock=time.time)
    finally:
        other.stop()


def test_an_expired_certificate_is_refused_by_the_signed_time_not_the_clock(server: Server) -> None:
    ca = Path(str(server.runtime.ca))

    def status(at: float | None) -> int:
        client = HttpClient(server.runtime.url, ca_file=ca, certificate_time=lambda: at)
        try:
            return client.exchange("GET", "/healthz")[0]
        finally:
            client.close()

    assert status(time.time()) == status(None) == 200
    with pytest.raises(TransportError, match="expired"):
        status(time.time() + FOUR_HUNDRED_DAYS_S)
    with pytest.raises(TransportError, match="not valid before"):
        status(0.0)


def test_the_certificate_is_made_again_before_it_ends_and_devices_notice_nothing(tmp_path: Path) -> None:
    now = [time.time() - 300 * 86_400]
    server = Server(lan_settings(tmp_path / "server"), clock=lambda: now[0])
    server.start()
    try:
        tls = server._tls
        assert tls is not None
        before = serial(server)
        assert tls.refresh() == 0
        now[0] = time.time()
        assert tls.refresh() == 1
        assert serial(server) != before
        assert tls.refresh() == 0
    finally:
        server.stop()


def serial(server: Server) -> str:
    trusting = ssl.create_default_context(cafile=server.runtime.ca)
    port = int(server.runtime.url.rpartition(":")[2])
    with (
        socket.create_connection(("127.0.0.1", port)) as plain,
        trusting.wrap_socket(plain, server_hostname="localhost") as line,
    ):
        return str(line.getpeercert()["serialNumber"])


def test_a_certificate_of_ones_own_is_read_again_when_it_changes(tmp_path: Path) -> None:
    authority = open_authority(tmp_path / "company", name="Company", now=time.time())
    cert, key = tmp_path / "server.pem", tmp_path / "server.key"

    def renew() -> None:
        for path, content in zip((cert, key), authority.issue(["localhost"], now=time.time()), strict=True):
            path.write_bytes(content)

    renew()
    files = {"tls_cert": cert, "tls_key": key, "tls_ca": tmp_path / "company" / "ca.pem"}
    server = Server(settings_in(tmp_path / "server", listen="127.0.0.1:0", **files))
    server.start()
    try:
        before = serial(server)
        assert server._tls.refresh() == 0
        cert.write_bytes(b"half of it")
        assert server._tls.refresh() == 0
        assert serial(server) == before
        renew()
        assert server._tls.refresh() == 1
        assert serial(server) != before
    finally:
        server.stop()


def test_a_key_that_does_not_fit_is_said_at_the_start(tmp_path: Path) -> None:
    authority = open_authority(tmp_path / "company", name="Company", now=time.time())
    (tmp_path / "a.pem").write_bytes(authority.issue(["localhost"], now=time.time())[0])
    (tmp_path / "b.key").write_bytes(authority.issue(["localhost"], now=time.time())[1])
    files = {"tls_cert": tmp_path / "a.pem", "tls_key": tmp_path / "b.key"}
    with pytest.raises(StartError, match="belong together|can't be used"):
        Server(settings_in(tmp_path / "server", **files)).start()
