"""The embedded endpoint at its limits, against raw sockets, paho and mosquitto's own clients."""

import random
import shutil
import socket
import subprocess
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from fixtures_broker import PahoDevice, eventually
from shoal_protocol.errors import LocalError
from shoal_protocol.mqtt.packet_codec import PacketReader, encode_packet
from shoal_protocol.mqtt.packets import (
    MAX_PACKET,
    ConnAck,
    Connect,
    ConnectCode,
    PingReq,
    PingResp,
    PubAck,
    Publish,
    Subscribe,
)
from shoal_protocol.mqtt.topics import SERVER_STATUS, Down, Up, down, down_filter, up
from shoal_server.link.addresses import lan_address
from shoal_server.link.endpoint import EmbeddedLink, Limits
from shoal_server.link.port import Inbound
from shoal_server.link.verifiers import verifier_line

SECRET = "s" * 43
NAMES = ["d1", "d2", *(f"many-{number}" for number in range(50))]


class Line:
    """A raw connection: what is sent is exactly what the test says."""

    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=10)
        self.reader = PacketReader()

    def send(self, *packets: Any) -> None:
        self.socket.sendall(b"".join(map(encode_packet, packets)))

    def next(self) -> Any:
        """Return the next packet; none when the endpoint has closed the connection."""
        while (packet := self.reader.next_packet()) is None:
            try:
                data = self.socket.recv(65536)
            except ConnectionResetError:
                return None
            if not data:
                return None
            self.reader.feed(data)
        return packet

    def connect(self, name: str = "d1", **options: Any) -> "Line":
        self.send(Connect(client_id=name, username=name, password=SECRET.encode(), **options))
        assert self.next() == ConnAck()
        return self

    def close(self) -> None:
        self.socket.close()


@pytest.fixture
def heard() -> list[Inbound]:
    return []


@pytest.fixture
def start(heard: list[Inbound]) -> Iterator[Callable[..., EmbeddedLink]]:
    """Start an endpoint that lets `NAMES` in; messages are not done unless the test says so."""
    links: list[EmbeddedLink] = []

    def start(handler: Callable[[Inbound], None] = heard.append, **options: Any) -> EmbeddedLink:
        link = EmbeddedLink("127.0.0.1", 0, clock=lambda: 0.0, **options)
        line = verifier_line(SECRET, salt=b"0123456789ab")
        link.sync_credentials([(name, line) for name in NAMES])
        link.start(handler)
        links.append(link)
        return link

    yield start
    for link in links:
        link.stop()


@pytest.fixture
def line() -> Iterator[Callable[[EmbeddedLink], Line]]:
    lines: list[Line] = []

    def open_line(link: EmbeddedLink) -> Line:
        lines.append(Line(link.port))
        return lines[-1]

    yield open_line
    for opened in lines:
        opened.close()


def test_acknowledges_only_what_is_done_and_in_that_order(start, line, heard):
    device = line(start()).connect()
    device.send(*(Publish(up("d1", Up.PROFILE), b"x", 1, packet_id=number) for number in (5, 6, 7)), PingReq())
    assert device.next() == PingResp()  # all three were read by now, none acknowledged
    eventually(lambda: len(heard) == 3)
    heard[1].done()
    heard[0].done()
    assert [device.next(), device.next()] == [PubAck(6), PubAck(5)]
    device.send(PingReq())
    assert device.next() == PingResp()


def test_a_handler_that_fails_leaves_the_message_with_the_device(start, line):
    def fail(_message: Inbound) -> None:
        raise ValueError("broken on purpose")

    link = start(fail)
    device = line(link).connect()
    device.send(Publish(up("d1", Up.PROFILE), b"x", 1, packet_id=5), PingReq())
    assert device.next() == PingResp()
    assert link.connected
    assert link.undone == 0


def test_what_waits_for_a_slow_handler_is_bounded_per_device(start, line, heard):
    link = start(limits=Limits(undone_per_device=10))
    device = line(link).connect()
    device.send(*(Publish(up("d1", Up.PROFILE), b"x", 1, packet_id=number) for number in range(1, 501)))
    other = line(link).connect("d2")
    other.send(Publish(up("d2", Up.EVENT), b"y", 1, packet_id=1), PingReq())
    assert other.next() == PingResp()
    assert len([message for message in heard if message.device == "d1"]) == 10
    for done in range(501):
        eventually(lambda at_least=done: len(heard) > at_least)
        assert len(heard) - done <= 11
        heard[done].done()
    assert sorted(device.next().packet_id for _ in range(500)) == list(range(1, 501))


def test_what_waits_for_a_slow_handler_is_bounded_in_all(start, line, heard):
    link = start(limits=Limits(undone=30, undone_per_device=10))
    devices = [line(link).connect(name) for name in NAMES[:20]]
    for name, device in zip(NAMES, devices, strict=False):
        device.send(*(Publish(up(name, Up.PROFILE), b"x", 1, packet_id=number) for number in range(1, 21)))
    eventually(lambda: len(heard) >= 30)
    for done in range(400):
        eventually(lambda at_least=done: len(heard) > at_least)
        assert link.undone <= 30
        heard[done].done()
    assert all(sorted(device.next().packet_id for _ in range(20)) == list(range(1, 21)) for device in devices)


def test_who_only_drips_its_connect_is_disconnected(start, line):
    slow = line(start(limits=Limits(sweep_s=0.05, connect_s=0.2)))
    raw = encode_packet(Connect(client_id="d1", username="d1", password=SECRET.encode()))
    slow.socket.settimeout(0.05)
    for at in range(len(raw) - 1):
        try:
            slow.socket.sendall(raw[at : at + 1])
            assert slow.socket.recv(1) == b""
            break
        except TimeoutError:
            continue
        except ConnectionError:
            break
    else:
        pytest.fail("the endpoint has waited for a CONNECT all the while")
    assert at < 20


def test_a_silent_device_is_disconnected_after_one_and_a_half_keep_alives(start, line, heard):
    link = start(limits=Limits(sweep_s=0.05, connect_s=0.2))
    stranger = line(link)
    lively, silent = line(link).connect("d1", keep_alive_s=1), line(link).connect("d2", keep_alive_s=1)
    assert stranger.next() is None
    for _ in range(5):
        lively.socket.settimeout(0.4)
        with pytest.raises(TimeoutError):
            lively.next()
        lively.send(PingReq())
        lively.socket.settimeout(5)
        assert lively.next() == PingResp()
    assert silent.next() is None
    assert link.devices == 1


def test_packets_up_to_the_limit_pass_and_longer_ones_end_the_connection(start, line, heard):
    link = start()
    device = line(link).connect()
    topic = up("d1", Up.PROFILE)
    largest = MAX_PACKET - len(encode_packet(Publish(topic, b"\0" * 65536))) + 65536
    device.send(Publish(topic, b"a" * largest))
    eventually(lambda: len(heard) == 1)
    device.socket.sendall(encode_packet(Publish(topic, b"a" * (largest + 1)))[:10])
    assert device.next() is None
    assert link.connected


def test_a_client_of_another_version_is_told_so(start, line):
    client = line(start())
    client.socket.sendall(b"\x10\x0f\x00\x04MQTT\x05\x02\x00\x00\x00\x00\x02d1")
    assert client.next() == ConnAck(ConnectCode.BAD_PROTOCOL)
    assert client.next() is None


@pytest.mark.parametrize(
    ("connect", "code"),
    [
        (Connect(client_id="d1"), ConnectCode.NOT_AUTHORISED),
        (Connect(client_id="d2", username="d1", password=SECRET.encode()), ConnectCode.BAD_CLIENT_ID),
        (Connect(client_id="server", username="server", password=b""), ConnectCode.BAD_CLIENT_ID),
        (Connect(client_id="d1", username="d1", password=b"wrong"), ConnectCode.BAD_LOGIN),
    ],
)
def test_who_is_not_let_in_is_told_why(start, line, connect, code):
    link = start()
    holder, client = line(link).connect("d1"), line(link)
    client.send(connect)
    assert client.next() == ConnAck(code)
    assert client.next() is None
    holder.send(PingReq())
    assert holder.next() == PingResp()  # a failed login does not disturb who is in


def test_a_device_that_does_not_read_is_thrown_out(start, line):
    link = start(limits=Limits(unsent_bytes=10_000))
    device = line(link).connect()
    device.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    device.send(Subscribe(1, (("#", 0),)))
    eventually(lambda: link.publish(down("d1", Down.ACK), b"x" * 60_000) or link.devices == 0)
    assert link.connected


def test_hostile_bytes_do_not_hurt_the_endpoint(start, line, heard):
    link = start()
    honest = line(link).connect("d2")
    valid = encode_packet(Publish(up("d1", Up.PROFILE), b"window", 1, packet_id=7))
    for number in range(300):
        randomness = random.Random(number)
        attacker = line(link)
        if number % 2:
            attacker.connect("d1")
        damaged = bytearray(valid * 3)
        for _ in range(3):
            damaged[randomness.randrange(len(damaged))] = randomness.randrange(256)
        attacker.socket.sendall(bytes(damaged) if number % 3 else randomness.randbytes(200))
        attacker.close()
    honest.send(Publish(up("d2", Up.EVENT), b"end", 1, packet_id=1))
    eventually(lambda: any(message.payload == b"end" for message in heard))
    assert {message.device for message in heard} <= {"d1", "d2"}
    eventually(lambda: link.devices == 1)


def test_a_full_endpoint_turns_newcomers_away(start, line):
    link = start(limits=Limits(connections=2))
    first, _second = line(link).connect("d1"), line(link).connect("d2")
    assert line(link).next() is None
    first.send(PingReq())
    assert first.next() == PingResp()


def test_fifty_devices_reconnect_at_once(start, heard):
    link = start(lambda message: (heard.append(message), message.done())[1])
    devices = [PahoDevice(link.url, f"many-{number}", SECRET) for number in range(50)]
    for number, device in enumerate(devices):
        device.publish(up(f"many-{number}", Up.EVENT), b"x")
    eventually(lambda: len(heard) == 50)
    eventually(lambda: all(device.acknowledged for device in devices))
    for device in devices:
        device.close()
    eventually(lambda: link.devices == 0)
    assert {message.device for message in heard} == {f"many-{number}" for number in range(50)}


def test_it_starts_again_on_its_port_without_what_was_stored(start, line):
    link = start()
    link.publish(down("d1", Down.DESIRED), b"old", retain=True)
    url, device = link.url, line(link).connect()
    link.stop()
    assert device.next() is None
    link.start(lambda _message: None)
    assert link.url == url
    assert link.connections == 2
    again = PahoDevice(link.url, "d1", SECRET)
    again.subscribe("#")
    eventually(lambda: again.received)
    assert [topic for topic, _, _ in again.received] == [SERVER_STATUS]
    again.close()


def test_a_port_that_is_taken_is_an_error_with_advice(start):
    link = start()
    with pytest.raises(LocalError, match="can't listen") as error:
        EmbeddedLink("127.0.0.1", link.port, clock=lambda: 0.0).start(lambda _message: None)
    assert "--mqtt-listen" in error.value.hint


def test_mosquittos_own_clients_speak_to_it(start, heard):
    if shutil.which("mosquitto_pub") is None:
        pytest.skip("mosquitto-clients is not installed (apt-get install mosquitto-clients)")
    link = start(lambda message: (heard.append(message), message.done())[1])
    link.publish(down("d1", Down.DESIRED), b"desired", retain=True)
    common = ["-h", "127.0.0.1", "-p", str(link.port), "-u", "d1", "-i", "d1", "-P", SECRET, "-q", "1"]
    subscribe = ["mosquitto_sub", *common, "-t", down_filter("d1"), "-C", "1", "-W", "10", "-v"]
    got = subprocess.run(subscribe, capture_output=True, text=True, check=True, timeout=20)
    assert got.stdout == "shoal/v1/d1/down/desired desired\n"
    said = subprocess.run(
        ["mosquitto_pub", *common, "-t", up("d1", Up.EVENT), "-l"],
        input="one\ntwo\nthree\n",
        capture_output=True,
        text=True,
        timeout=20,
        check=True,
    )
    assert said.stderr == ""
    assert [message.payload for message in heard] == [b"one", b"two", b"three"]


def test_one_address_can_not_fill_the_endpoint_with_strangers(start, line):
    address = lan_address()
    if address.startswith("127."):
        pytest.skip("this machine has no address but the loopback's, which is not counted")
    link = start(limits=Limits(unproven_per_address=2))

    def stranger() -> socket.socket:
        return socket.create_connection(("127.0.0.1", link.port), timeout=5, source_address=(address, 0))

    def is_closed(one: socket.socket) -> bool:
        try:
            return one.recv(1) == b""
        except ConnectionResetError:
            return True

    strangers = [stranger(), stranger()]
    third = stranger()
    assert is_closed(third)
    line(link).connect()  # from elsewhere nobody notices
    strangers[0].sendall(encode_packet(Connect(client_id="d2", username="d2", password=SECRET.encode())))
    assert strangers[0].recv(100) == encode_packet(ConnAck())
    fourth = stranger()  # who has proven itself counts no more
    fourth.sendall(encode_packet(Connect(client_id="many-1", username="many-1", password=SECRET.encode())))
    assert fourth.recv(100) == encode_packet(ConnAck())
    for one in (*strangers, third, fourth):
        one.close()


def test_tls(start, tmp_path):
    import ssl

    certificate, key = self_signed(tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    link = start(ssl_context=context)
    assert link.url == f"mqtts://127.0.0.1:{link.port}"
    trusting = ssl.create_default_context(cafile=str(certificate))
    with (
        socket.create_connection(("127.0.0.1", link.port), timeout=5) as plain,
        trusting.wrap_socket(plain, server_hostname="127.0.0.1") as line,
    ):
        line.sendall(encode_packet(Connect(client_id="d1", username="d1", password=SECRET.encode())))
        assert line.recv(100) == encode_packet(ConnAck())


def self_signed(folder: Path) -> tuple[Path, Path]:
    import ipaddress

    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .sign(key, hashes.SHA256())
    )
    (folder / "server.crt").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    (folder / "server.key").write_bytes(private)
    return folder / "server.crt", folder / "server.key"
