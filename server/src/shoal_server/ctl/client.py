"""One server, spoken to by HTTP: JSON in, JSON out, problems as errors.

Owns the connection, credentials, paging and the translation of problem+json and of connection failures into errors
that say what to do. Leaves to the commands what is asked.
"""

from __future__ import annotations

import secrets
import ssl
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Self
from urllib.parse import quote

import httpx2

from shoal_server.ctl.errors import ProblemError, SettingsError, UnreachableError
from shoal_server.ctl.settings import Settings

_TIMEOUT = httpx2.Timeout(30.0, connect=5.0)
_LONG_TIMEOUT = httpx2.Timeout(120.0, connect=5.0)
_LIMITS = httpx2.Limits(keepalive_expiry=2.0)
"""An idle connection is given up before the server does, after 5 s: a request may not meet it while it is closed."""
_PAGE = 200


class Client:
    """Requests to one server.

    Args:
        settings: where it is and who asks.
        transport: carries the requests instead of sockets.
    """

    def __init__(self, settings: Settings, *, transport: httpx2.BaseTransport | None = None) -> None:
        self.settings = settings
        headers = {"accept": "application/json", "user-agent": "shoalctl"}
        if settings.token:
            headers["authorization"] = f"Bearer {settings.token}"
        try:
            self._http = httpx2.Client(
                base_url=settings.url,
                headers=headers,
                verify=_trust(settings),
                timeout=_TIMEOUT,
                limits=_LIMITS,
                transport=transport,
            )
        except (httpx2.InvalidURL, ValueError) as error:
            raise SettingsError(f"{settings.url!r} is not a server's address: {error}") from error

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exception: object) -> None:
        self._http.close()

    def get(self, path: str, **parameters: Any) -> Any:
        """Fetch; parameters that are None are left out.

        Raises:
            ProblemError: the server refused.
            UnreachableError: no answer came.
        """
        return self.request("GET", path, parameters=parameters)

    def post(self, path: str, body: Any = None, **parameters: Any) -> Any:
        """Make or do something; raises as `get`."""
        headers = {"idempotency-key": secrets.token_hex(16)}
        return self.request("POST", path, parameters=parameters, body=body, headers=headers)

    def put(self, path: str, body: Any, *, etag: str | None = None) -> Any:
        """Replace something; raises as `get`."""
        return self.request("PUT", path, body=body, headers={"if-match": etag} if etag else {})

    def delete(self, path: str) -> Any:
        """Remove something; raises as `get`."""
        return self.request("DELETE", path)

    def items(self, path: str, *, limit: int | None = None, **parameters: Any) -> Iterator[dict[str, Any]]:
        """Fetch a list page by page, up to `limit` items; raises as `get`."""
        cursor, left = None, limit
        while left is None or left > 0:
            size = _PAGE if left is None else min(left, _PAGE)
            page = self.get(path, limit=size, cursor=cursor, **parameters)
            yield from page["items"]
            cursor = page.get("next_cursor")
            if cursor is None:
                return
            left = None if left is None else left - len(page["items"])

    def request(
        self,
        method: str,
        path: str,
        *,
        parameters: Mapping[str, Any] | None = None,
        body: Any = None,
        headers: Mapping[str, str] | None = None,
    ) -> Any:
        """Send one request and return the JSON of the answer, None when it has none; raises as `get`."""
        answer = self.send(method, path, parameters=parameters, body=body, headers=headers)
        if answer.status_code == 204 or not answer.content:
            return None
        try:
            return answer.json()
        except ValueError as error:
            raise UnreachableError(
                f"{self.settings.url} answered {answer.status_code} without JSON: this is no Shoal server",
                hint="check the address (shoalctl login URL, SHOAL_URL or --url)",
            ) from error

    def send(
        self,
        method: str,
        path: str,
        *,
        parameters: Mapping[str, Any] | None = None,
        body: Any = None,
        headers: Mapping[str, str] | None = None,
    ) -> httpx2.Response:
        """Send one request and return the answer with its headers; raises as `get`."""
        given = {name: value for name, value in (parameters or {}).items() if value is not None}
        try:
            answer = self._http.request(method, path, params=given, json=body, headers=dict(headers or {}))
        except httpx2.TransportError as error:
            raise _unreachable(self.settings.url, error) from error
        if answer.status_code >= 400 or answer.is_redirect:
            raise self._problem(answer)
        return answer

    @contextmanager
    def lines(self, path: str, **parameters: Any) -> Iterator[Iterator[bytes]]:
        """Fetch an answer of many lines as it comes; raises as `get`."""
        given = {name: value for name, value in parameters.items() if value is not None}
        try:
            with self._http.stream("GET", path, params=given, timeout=_LONG_TIMEOUT) as answer:
                if answer.status_code >= 400 or answer.is_redirect:
                    answer.read()
                    raise self._problem(answer)
                yield _lines(answer.iter_bytes())
        except httpx2.TransportError as error:
            raise _unreachable(self.settings.url, error) from error

    @contextmanager
    def pieces(self, method: str, path: str) -> Iterator[Iterator[bytes]]:
        """Fetch an answer of any length piece by piece; raises as `get`, also when it breaks off."""
        try:
            with self._http.stream(method, path, timeout=_LONG_TIMEOUT) as answer:
                if answer.status_code >= 400 or answer.is_redirect:
                    answer.read()
                    raise self._problem(answer)
                yield answer.iter_raw()
        except httpx2.TransportError as error:
            raise _unreachable(self.settings.url, error) from error

    def post_bytes(self, path: str, body: bytes) -> Any:
        """Send bytes as they are and return the JSON of the answer; raises as `get`."""
        try:
            answer = self._http.post(path, content=body, timeout=_LONG_TIMEOUT)
        except httpx2.TransportError as error:
            raise _unreachable(self.settings.url, error) from error
        if answer.status_code >= 400 or answer.is_redirect:
            raise self._problem(answer)
        return answer.json()

    def _problem(self, answer: httpx2.Response) -> ProblemError:
        try:
            document = answer.json()
        except ValueError:
            document = {}
        problem: dict[str, Any] = document if isinstance(document, dict) else {}
        if "detail" not in problem:
            problem["detail"] = f"{self.settings.url} answered {answer.status_code} {answer.reason_phrase}"
        if answer.status_code == 401:
            problem["hint"] = "log in: shoalctl login " + self.settings.url + "  (or set SHOAL_TOKEN)"
        return ProblemError(answer.status_code, problem)


def segment(text: str) -> str:
    """Quote what stands between two slashes of a path."""
    return quote(text, safe="@:~")


def _lines(chunks: Iterator[bytes]) -> Iterator[bytes]:
    r"""Cut a stream at line feeds alone: texts inside JSON may hold any other separator.

    >>> list(_lines(iter([b"a", b"b\nc\n", b"d"])))
    [b'ab', b'c', b'd']
    """
    rest = b""
    for chunk in chunks:
        *whole, rest = (rest + chunk).split(b"\n")
        yield from whole
    if rest:
        yield rest


def _trust(settings: Settings) -> ssl.SSLContext | bool:
    if settings.ca is None:
        return True
    try:
        return ssl.create_default_context(cafile=str(settings.ca))
    except (OSError, ssl.SSLError) as error:
        raise SettingsError(f"the certificates in {settings.ca} can't be read: {error}") from error


def _unreachable(url: str, error: Exception) -> UnreachableError:
    if isinstance(error, httpx2.TimeoutException):
        return UnreachableError(f"{url} did not answer in time", hint="is the server overloaded? see its /readyz")
    text = str(error)
    if "CERTIFICATE_VERIFY_FAILED" in text:
        return UnreachableError(
            f"the certificate of {url} is not trusted: {text}",
            hint="name the CA that signed it by --ca or SHOAL_CA",
        )
    return UnreachableError(
        f"nothing answers at {url}: {text}",
        hint="start a server with `shoal-server serve`, or say where it is: --url, SHOAL_URL or `shoalctl login URL`",
    )
