"""HTTP/1.1 heads, strictly."""

import pytest

from shoal_agent.serving.http_message import HttpError, KnownHead, Response, encode_response, parse_head


def head(*lines: str) -> bytes:
    return "\r\n".join(lines).encode("latin-1")


def test_a_head_is_parsed() -> None:
    parsed = parse_head(head("POST /v1/predict?slot=a%20b&x HTTP/1.1", "Host: localhost:1", "CONTENT-length: 12"))
    assert (parsed.method, parsed.path, parsed.query) == ("POST", "/v1/predict", {"slot": "a b", "x": ""})
    assert parsed.headers["host"] == "localhost:1"
    assert parsed.content_length == 12
    assert parsed.keep_alive
    assert not parsed.expects_continue


@pytest.mark.parametrize(
    ("lines", "keep_alive"),
    [
        (["GET / HTTP/1.1"], True),
        (["GET / HTTP/1.1", "Connection: Close"], False),
        (["GET / HTTP/1.0"], False),
        (["GET / HTTP/1.0", "Connection: keep-alive"], True),
    ],
)
def test_the_connection_stays_open_as_the_versions_say(lines: list[str], *, keep_alive: bool) -> None:
    assert parse_head(head(*lines)).keep_alive is keep_alive


@pytest.mark.parametrize(
    ("lines", "status"),
    [
        (["GET /"], 400),
        (["GET  / HTTP/1.1"], 400),
        (["GET http://localhost/ HTTP/1.1"], 400),
        (["GET / HTTP/2.0"], 400),
        (["GET /\x00 HTTP/1.1"], 400),
        (["GET / HTTP/1.1", "Host"], 400),
        (["GET / HTTP/1.1", "Host : a"], 400),
        (["GET / HTTP/1.1", "Host: a", " folded"], 400),
        (["GET / HTTP/1.1", "Host: a\nX: b"], 400),
        (["POST / HTTP/1.1", "Content-Length: 1", "Content-Length: 2"], 400),
        (["POST / HTTP/1.1", "Content-Length: 1", "Content-Length: 1"], 400),
        (["POST / HTTP/1.1", "Content-Length: -1"], 400),
        (["POST / HTTP/1.1", "Content-Length: +1"], 400),
        (["POST / HTTP/1.1", "Content-Length: ²"], 400),
        (["POST / HTTP/1.1", "Transfer-Encoding: chunked"], 411),
        (["POST / HTTP/1.1", "Content-Length: 3", "Transfer-Encoding: chunked"], 411),
        (["GET / HTTP/1.1", *[f"X{at}: 1" for at in range(65)]], 431),
        (["GET /?" + "&".join(f"a{at}=1" for at in range(40)) + " HTTP/1.1"], 400),
    ],
)
def test_what_could_be_read_in_two_ways_is_refused(lines: list[str], status: int) -> None:
    with pytest.raises(HttpError) as caught:
        parse_head(head(*lines))
    assert caught.value.status == status


def test_an_answer_is_framed_by_its_length() -> None:
    response = Response(200, b"{}", headers={"X-A": "1"})
    assert encode_response(response, keep_alive=True) == (
        b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\nX-A: 1\r\n\r\n{}"
    )
    closing = encode_response(response, keep_alive=False, head_only=True)
    assert closing.endswith(b"Content-Length: 2\r\nX-A: 1\r\nConnection: close\r\n\r\n")


LINES = ("POST /v1/predict HTTP/1.1", "Host: localhost", "content-LENGTH: 120", "X-After: 1")


def known(*lines: str) -> KnownHead:
    return KnownHead(head(*lines), parse_head(head(*lines)))


@pytest.mark.parametrize("length", ["120", "7", "0", "999999999999999"])
def test_a_repeated_head_is_known_whatever_the_length_of_its_body(length: str) -> None:
    again = head(*LINES).replace(b"120", length.encode()) + b"\r\n\r\n"
    assert known(*LINES).read(again + b"body") == (len(again), int(length))


def test_a_head_without_a_body_is_known_as_a_whole() -> None:
    lines = ("GET /v2 HTTP/1.1", "Host: localhost")
    assert known(*lines).read(head(*lines) + b"\r\n\r\nGET") == (len(head(*lines)) + 4, 0)
    assert known(*lines).read(head(*lines) + b"\r\nX: 1\r\n\r\n") is None


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b"120", b""),
        (b"120", b"+12"),
        (b"120", b"12 "),
        (b"120", b"1\xb2"),
        (b"120", b"1" * 16),
        (b"120", b"12\n"),
        (b"120\r\n", b"120\r\nContent-Length: 5\r\n"),
        (b"X-After: 1", b"X-After: 2"),
        (b"X-After: 1", b"Transfer-Encoding: chunked"),
        (b"POST", b"PUT"),
        (b"1\r\n\r\n", b"1\r\n"),
    ],
)
def test_any_other_head_is_not_known(old: bytes, new: bytes) -> None:
    assert known(*LINES).read((head(*LINES) + b"\r\n\r\n").replace(old, new, 1)) is None
