"""One request, and receivers that want to do more with it than take it."""

import asyncio
import socket
import ssl
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from shoal_server.errors import StartError
from shoal_server.link.authority import open_authority
from shoal_server.webhooks.sender import MAX_HEAD_BYTES, Answer, Sender
from shoal_server.webhooks.targets import TargetError, parse_allowed
from webhook_receiver import Receiver, receiving, status

NOW = 1_800_000_000.0


def sender(*allow: str, **changes: object) -> Sender:
    return Sender(
        **{"allowed": parse_allowed(allow or ["127.0.0.1"]), "clock": lambda: NOW, "deadline_s": 5.0, **changes}
    )  # type: ignore[arg-type]


def send(url: str, through: Sender | None = None) -> Answer:
    return asyncio.run((through or sender()).send(url, b"{}", {"content-type": "application/json"}))


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receiving() as running:
        yield running


def test_an_answer_says_status_latency_and_its_beginning(receiver: Receiver) -> None:
    receiver.answer = lambda _number, _one: (202, {}, b"queued\x1b[2J\x00")
    answer = send(receiver.url)
    assert (answer.ok, answer.status, answer.head) == (True, 202, "queued [2J")
    assert answer.latency_ms >= 0
    assert receiver.got[0].headers["host"] == receiver.url.split("/")[2]


def test_a_redirect_is_not_followed(receiver: Receiver) -> None:
    with receiving() as inside:
        receiver.answer = lambda _number, _one: (307, {"location": inside.url}, b"")
        answer = send(receiver.url)
        assert inside.got == []
    assert (answer.ok, answer.status) == (False, 307)
    assert "redirects are not followed" in answer.error


def test_what_is_not_allowed_is_never_connected_to(receiver: Receiver) -> None:
    answer = send(receiver.url, sender("10.0.0.0/8"))
    assert (answer.status, receiver.got) == (None, [])
    assert "127.0.0.1 is a loopback address" in answer.error
    with pytest.raises(TargetError, match="loopback"):
        sender("10.0.0.0/8").check(receiver.url)


def test_a_name_that_means_another_address_at_the_next_look_changes_nothing(receiver: Receiver) -> None:
    """DNS rebinding: harmless when it is looked at; who asks the system again lands on the receiver."""
    looks: list[str] = []

    def rebinding(host: str, _port: int) -> Sequence[str]:
        looks.append(host)
        return ["192.0.2.77"] if len(looks) == 1 else ["127.0.0.1"]

    port = receiver.url.split(":")[2]
    through = sender("192.0.2.0/24", lookup=rebinding, deadline_s=0.3)
    first = send(f"http://localhost:{port}", through)
    assert (len(looks), first.status, receiver.got) == (1, None, [])
    second = send(f"http://localhost:{port}", through)
    assert "localhost (127.0.0.1) is a loopback address" in second.error
    assert receiver.got == []


def test_the_next_address_is_tried_when_nobody_answers_at_the_first(receiver: Receiver) -> None:
    port = receiver.url.split(":")[2].split("/")[0]
    through = sender("both.lan", lookup=lambda _host, _port: ["127.0.0.9", "127.0.0.1"])
    answer = send(f"http://both.lan:{port}/x", through)
    assert (answer.status, receiver.got[0].headers["host"]) == (204, f"both.lan:{port}")


def test_proxies_of_the_environment_are_not_used(receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    assert send(receiver.url).ok


def test_only_the_beginning_of_an_answer_is_read() -> None:
    with raw_server(b"HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\n\r\n" + b"x" * 20_000, endless=True) as url:
        answer = send(url)
    assert (answer.status, len(answer.head)) == (200, MAX_HEAD_BYTES)


@pytest.mark.parametrize(
    "begin", [b"", b"HTTP/1.1 200 OK\r\ncontent-le", b"HTTP/1.1 200 OK\r\ncontent-length: 99\r\n\r\nab"]
)
def test_an_answer_that_drips_or_stalls_ends_at_the_deadline(begin: bytes) -> None:
    with raw_server(begin, endless=False) as url:
        answer = send(url, sender(deadline_s=0.3))
    assert answer.error == "no complete answer within 0.3 s"


@pytest.mark.parametrize(
    "text", [b"nonsense\r\n\r\n", b"HTTP/1.1 999999 \r\n\r\n", b"HTTP/1.1 200 OK\r\nx: " + b"y" * 200_000]
)
def test_what_is_no_http_is_a_failure_and_no_crash(text: bytes) -> None:
    with raw_server(text, endless=True) as url:
        assert not send(url).ok


def test_nobody_there_is_said_so() -> None:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    answer = send(f"http://127.0.0.1:{port}")
    assert (answer.ok, answer.status) == (False, None)
    assert answer.error.startswith("no answer: ")


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("120", 120.0),
        ("Fri, 15 Jan 2027 08:01:00 GMT", 60.0),
        ("Fri, 15 Jan 2021 08:01:00 GMT", 0.0),
        ("soon", None),
        ("-1", None),
    ],
)
def test_retry_after_is_read_in_both_forms(receiver: Receiver, text: str, seconds: float | None) -> None:
    receiver.answer = lambda _number, _one: (503, {"retry-after": text}, b"")
    assert send(receiver.url).retry_after_s == seconds


def test_certificates_are_verified_for_the_name_and_not_for_the_address(tmp_path: Path) -> None:
    names = {"chat.lan": ["127.0.0.1"], "other.lan": ["127.0.0.1"]}
    options = {"lookup": lambda host, _port: names[host]}
    with tls_receiver(tmp_path, "chat.lan") as (receiver, ca):
        port = receiver.url.split(":")[2].split("/")[0]
        trusting = sender("chat.lan", "other.lan", ca=ca, **options)
        assert send(f"https://chat.lan:{port}/x", trusting).status == 204
        assert "certificate is not trusted" in send(f"https://other.lan:{port}/x", trusting).error
        assert "certificate is not trusted" in send(f"https://chat.lan:{port}/x", sender("chat.lan", **options)).error
        assert len(receiver.got) == 1
    with pytest.raises(StartError, match="--webhook-ca"):
        sender(ca=tmp_path / "missing.pem")


def test_a_client_error_is_told_with_its_reason(receiver: Receiver) -> None:
    receiver.answer = status(404)
    answer = send(receiver.url)
    assert (answer.error, answer.head) == ("answered 404 Not Found", "as told")


@contextmanager
def tls_receiver(folder: Path, name: str) -> Iterator[tuple[Receiver, Path]]:
    import time

    authority = open_authority(folder, name="tests", now=time.time())
    certificate, key = authority.issue([name], now=time.time())
    (folder / "server.pem").write_bytes(certificate + key)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "server.pem")
    from cryptography.hazmat.primitives.serialization import Encoding

    ca = folder / "trusted.pem"
    ca.write_bytes(authority.certificate.public_bytes(Encoding.PEM))
    with receiving(context) as receiver:
        yield receiver, ca


@contextmanager
def raw_server(text: bytes, *, endless: bool) -> Iterator[str]:
    """Answer one connection with these bytes; then go on sending, or keep still."""
    ended = threading.Event()
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        connection, _ = listener.accept()
        with connection:
            connection.settimeout(0.05)
            try:
                connection.sendall(text)
                while not ended.is_set():
                    if endless:
                        connection.sendall(b"z" * 4096)
                    else:
                        ended.wait(0.05)
            except OSError:
                pass

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}/"
    finally:
        ended.set()
        thread.join()
        listener.close()
