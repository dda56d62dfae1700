"""HTTP/1.1 as bytes: the head of a request, parsed strictly, and the bytes of an answer.

Owns the syntax of RFC 9112 as far as a local interface needs it: origin-form targets, a body by ``Content-Length``.
What is ambiguous (two lengths, folded lines, bare line feeds, chunks) is refused, so that nobody in between can read a
request differently. Pure: no socket.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from functools import lru_cache
from http import HTTPStatus
from urllib.parse import parse_qsl, unquote

import msgspec

from shoal_protocol.errors import CallerError

MAX_HEAD_BYTES = 16 * 1024
MAX_HEADERS = 64

_REQUEST_LINE = re.compile(r"([!#$%&'*+.^_`|~0-9A-Za-z-]{1,32}) (/[\x21-\x7e]{0,2047}) HTTP/1\.([01])")
_HEADER = re.compile(r"([!#$%&'*+.^_`|~0-9A-Za-z-]{1,64}):[ \t]*([\x20-\x7e\x80-\xff\t]*)")
_LENGTH = re.compile(rb"\r\nContent-Length:[ \t]*([0-9]{1,15})(?=\r\n)", re.IGNORECASE)
_MOST_DIGITS = 15
_REASONS = {status.value: status.phrase for status in HTTPStatus}


class HttpError(CallerError):
    """A request that this interface does not take.

    Attributes:
        status: HTTP status of the answer.
        allow: Methods that the path has, for 405.
    """

    code = "http"

    def __init__(self, status: int, message: str, *, hint: str = "", allow: str = "") -> None:
        super().__init__(message, hint=hint)
        self.status = status
        self.allow = allow


class Head(msgspec.Struct, frozen=True):
    """The head of a request.

    Attributes:
        method: As sent.
        path: Decoded, without the query.
        query: The last value of each name.
        headers: By lower-case name; repeated ones are joined by commas.
        content_length: Bytes of the body that follow.
        keep_alive: Whether the connection stays open after the answer.
        expects_continue: Whether the client waits for ``100 Continue``.
    """

    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    content_length: int
    keep_alive: bool
    expects_continue: bool


class Response(msgspec.Struct, frozen=True):
    """An answer."""

    status: int
    body: bytes = b""
    content_type: str = "application/json"
    headers: Mapping[str, str] = msgspec.field(default_factory=dict)


Answer = Callable[[bytes], Response]
"""Answers the bodies that come with one head; must not raise."""

CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


class KnownHead:
    """A head that was parsed once, and is known again by its bytes: clients repeat theirs, but for the body's length.

    Args:
        raw: All before the empty line.
        head: What `parse_head` made of it.
    """

    __slots__ = ("_after", "_before", "_length", "head")

    def __init__(self, raw: bytes, head: Head) -> None:
        whole = raw + b"\r\n\r\n"
        digits = _LENGTH.search(whole)  # of two, none would have parsed
        self.head = head
        self._before = whole if digits is None else whole[: digits.start(1)]
        self._after = b"" if digits is None else whole[digits.end(1) :]
        self._length = head.content_length

    def read(self, data: bytes) -> tuple[int, int] | None:
        """Return where this head ends in what was received, and how many bytes of body follow; none: it isn't there."""
        if not data.startswith(self._before):
            return None
        start = len(self._before)
        if not self._after:
            return start, self._length
        end = data.find(b"\r", start, start + _MOST_DIGITS + 1)
        digits = data[start:end]
        if end < 0 or not digits.isdigit() or not data.startswith(self._after, end):
            return None
        return end + len(self._after), int(digits)


def parse_head(raw: bytes) -> Head:
    """Parse the head of a request.

    Args:
        raw: All before the empty line, which is not included.

    Raises:
        HttpError: It is malformed or not offered here.
    """
    lines = raw.decode("latin-1").split("\r\n")
    request_line = _REQUEST_LINE.fullmatch(lines[0])
    if request_line is None:
        raise HttpError(400, f"{lines[0]!r:.80} is no request line of HTTP/1.1 with a path")
    if len(lines) > MAX_HEADERS + 1:
        raise HttpError(431, f"the request has more than {MAX_HEADERS} headers")
    headers: dict[str, str] = {}
    for line in lines[1:]:
        parsed = _HEADER.fullmatch(line)
        if parsed is None:
            raise HttpError(400, f"{line!r:.80} is no header")
        name, value = parsed[1].lower(), parsed[2].strip(" \t")
        headers[name] = f"{headers[name]},{value}" if name in headers else value
    method, target, minor = request_line.groups()
    path, _, query = target.partition("?")
    connection = {token.strip().lower() for token in headers.get("connection", "").split(",")}
    return Head(
        method,
        unquote(path),
        _query(query) if query else {},
        headers,
        _content_length(headers),
        "close" not in connection if minor == "1" else "keep-alive" in connection,
        headers.get("expect", "").lower() == "100-continue",
    )


def encode_response(response: Response, *, keep_alive: bool, head_only: bool = False) -> bytes:
    """Return the bytes of an answer.

    Args:
        response: The answer.
        keep_alive: Whether the connection stays open.
        head_only: For HEAD: the length of the body without the body.
    """
    headers = "".join([f"{name}: {value}\r\n" for name, value in response.headers.items()]) if response.headers else ""
    return b"%b%d\r\n%b%b\r\n%b" % (
        _start(response.status, response.content_type),
        len(response.body),
        headers.encode("latin-1"),
        b"" if keep_alive else b"Connection: close\r\n",
        b"" if head_only else response.body,
    )


@lru_cache(maxsize=64)
def _start(status: int, content_type: str) -> bytes:
    reason = _REASONS.get(status, "")
    return f"HTTP/1.1 {status} {reason}\r\nContent-Type: {content_type}\r\nContent-Length: ".encode("latin-1")


def _query(text: str) -> dict[str, str]:
    try:
        return dict(parse_qsl(text, keep_blank_values=True, max_num_fields=32))
    except ValueError as error:
        raise HttpError(400, f"the query does not parse: {error}") from error


def _content_length(headers: Mapping[str, str]) -> int:
    if "transfer-encoding" in headers:
        raise HttpError(411, "a body must come with Content-Length; chunks are not taken")
    text = headers.get("content-length", "0")
    if not (text.isascii() and text.isdigit() and len(text) < 16):
        raise HttpError(400, f"Content-Length is {text!r:.40}, expected one number")
    return int(text)
