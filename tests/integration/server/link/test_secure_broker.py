"""TLS, client certificates and websockets to an external broker: server and device against a real mosquitto."""

from __future__ import annotations

import os
import resource
import shutil
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID

from fixtures_broker import Mosquitto, eventually, find_free_port, mosquitto_of_our_own
from shoal_agent.adapters.mqtt_link import MqttLink
from shoal_agent.domain.backoff import Backoff
from shoal_agent.ports import LinkHandlers
from shoal_agent.testing import FakeClock
from shoal_agent.updating.messages import Messages
from shoal_protocol.mqtt.topics import Down, Up, down
from shoal_server.link.authority import LocalAuthority, open_authority
from shoal_server.link.broker import BrokerLink
from shoal_server.link.port import Inbound
from shoal_server.link.verifiers import verifier_line

pytestmark = pytest.mark.broker
SECRET = "d" * 43


@contextmanager
def few_files() -> Iterator[None]:
    """Let a child open few files: libwebsockets makes room for all that it may open, which can be very many."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(1024, before[0]), before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


def client_certificate(authority: LocalAuthority) -> tuple[bytes, bytes]:
    """Return a certificate that is good for nothing but to be shown to a broker, and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder(authority.certificate.subject)
        .subject_name(x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "client")]))
        .public_key(key.public_key())
        .serial_number(7)
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(hours=1))
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH]), critical=False)
        .sign(authority.key, hashes.SHA256())
    )
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return certificate.public_bytes(serialization.Encoding.PEM), private


class SecureBroker:
    """A mosquitto with further listeners, each asking for what its name says."""

    def __init__(self, broker: Mosquitto) -> None:
        self.broker = broker
        self.ports = {name: find_free_port() for name in ("mqtts", "ws", "wss")}
        self.ca = broker.folder / "ca.pem"
        self.client = (broker.folder / "client.pem", broker.folder / "client.key")
        self._write_certificates()
        broker.stop()
        with (broker.folder / "mosquitto.conf").open("a") as configuration:
            configuration.write(self._listeners())
        with few_files():
            broker.start()
        # It listens before it heeds signals: one to reload its files would end it until it says that it runs.
        eventually(lambda: (broker.folder / "log").read_text().count(" running\n") == 2, what="mosquitto runs")
        broker.credentials().sync([("dev-1", verifier_line(SECRET, salt=b"0" * 12))])

    def _write_certificates(self) -> None:
        authority = open_authority(self.broker.folder, name="Broker", now=time.time())
        for name, (certificate, key) in {
            "server": authority.issue(["127.0.0.1"], now=time.time()),
            "client": client_certificate(authority),
        }.items():
            (self.broker.folder / f"{name}.pem").write_bytes(certificate)
            (self.broker.folder / f"{name}.key").write_bytes(key)
        if os.getuid() == 0:
            owner = self.broker.folder.stat()
            for path in self.broker.folder.iterdir():
                os.chown(path, owner.st_uid, owner.st_gid)

    def _listeners(self) -> str:
        folder = self.broker.folder
        files = f"cafile {folder}/ca.pem\ncertfile {folder}/server.pem\nkeyfile {folder}/server.key\n"
        tls = f"{files}require_certificate true\n"
        # Mosquitto 2.0.11 can't bind websockets to an IPv4 address.
        return (
            f"\nlistener {self.ports['ws']}\nprotocol websockets\n"
            f"\nlistener {self.ports['wss']}\nprotocol websockets\n{tls}"
            f"\nlistener {self.ports['mqtts']} 127.0.0.1\n{tls}"
        )

    def url(self, scheme: str, *, user: str = "") -> str:
        path = "/mqtt" if scheme.startswith("ws") else ""
        return f"{scheme}://{user}127.0.0.1:{self.ports[scheme]}{path}"

    def server_url(self, scheme: str) -> str:
        return self.url(scheme, user=self.broker.url.partition("://")[2].rpartition("@")[0] + "@")


@pytest.fixture(scope="module")
def secure() -> Iterator[SecureBroker]:
    if shutil.which("mosquitto") is None:
        pytest.skip("mosquitto is not installed (apt-get install mosquitto)")
    with mosquitto_of_our_own() as broker:
        yield SecureBroker(broker)


def device(secure: SecureBroker, scheme: str, came: list[bytes], *, client: tuple[Path, Path] | None) -> MqttLink:
    messages = Messages(epoch="00" * 8, boot=1, clock=FakeClock())
    link = MqttLink(
        secure.url(scheme),
        device="dev-1",
        secret=lambda: SECRET,
        ca_file=secure.ca,
        certificate_time=time.time,
        client=client,
        backoff=Backoff(0.05, 0.2),
        chance=lambda: 1.0,
    )
    link.start(
        LinkHandlers(
            on_message=lambda _kind, raw: came.append(raw),
            on_connected=lambda: None,
            greeting=messages.greeting,
            farewell=messages.farewell,
        )
    )
    return link


@pytest.mark.parametrize("scheme", ["mqtts", "ws", "wss"])
def test_server_and_device_speak(secure: SecureBroker, scheme: str) -> None:
    heard: list[Inbound] = []
    trusting = ssl.create_default_context(cafile=secure.ca)
    trusting.load_cert_chain(*secure.client)
    server = BrokerLink(secure.server_url(scheme), clock=time.time, ssl_context=trusting)
    server.start(lambda message: (heard.append(message), message.done())[1])
    came: list[bytes] = []
    link = device(secure, scheme, came, client=secure.client)
    try:
        assert server.url == secure.url(scheme)
        eventually(lambda: server.connected and link.connected, what="both connected")
        payload = b"p" * 60_000
        assert link.publish(Up.EVENT, payload)
        server.publish(down("dev-1", Down.DESIRED), b"document", retain=True)
        eventually(lambda: b"document" in came, what="the document")
        eventually(lambda: payload in [message.payload for message in heard], what="the event")
    finally:
        link.stop()
        server.stop()


def test_without_a_client_certificate_the_broker_lets_nobody_in(secure: SecureBroker) -> None:
    link = device(secure, "mqtts", [], client=None)
    try:
        threading.Event().wait(0.6)
        assert not link.connected
    finally:
        link.stop()
