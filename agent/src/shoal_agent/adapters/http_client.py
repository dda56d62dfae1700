"""HTTP to the server: one pool, one identity, every network fault translated once.

Leaves retries to the callers, who know what may be repeated. Redirects of GET are followed, a few at most, never from
https to http, and to another origin without the device's credentials. urllib3 is imported at the first request.
"""

from __future__ import annotations

import base64
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from shoal_agent.adapters.addresses import origin_of, proxy_for, redirected, told
from shoal_agent.adapters.open_lines import OpenLines
from shoal_agent.errors import SettingsError, TransportError
from shoal_protocol.trust.enrolment import CHALLENGE_PATH

if TYPE_CHECKING:
    import ssl

    from urllib3 import BaseHTTPResponse, PoolManager

    from shoal_agent.adapters.tls import CertificateTime

MAX_ANSWER_BYTES = 1 << 20
MAX_REDIRECTS = 5
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_PUBLIC = ("/trust/", CHALLENGE_PATH)
"""Where the server looks at no password: its answers say nothing of one, and none is shown there."""


class Login(Protocol):
    """Credentials that may change while they are used."""

    def login(self) -> tuple[str, str]:
        """Return user and password for the next request."""

    def answered(self, secret: str, status: int) -> None:
        """Learn which status a request with this password got."""


class HttpClient:
    """A client of one server.

    Args:
        url: Of the server, without a path.
        user: Device id, for HTTP Basic authentication.
        secret: The device's password.
        ca_file: Certificate authority to trust instead of the system's.
        timeout_s: Of connecting, and of every read.
        certificate_time: By which time the server's certificate is judged; none: by the device's clock.
        login: Gives user and password anew for every request, instead of `user` and `secret`.
        verify: Whether the server's certificate is checked; not, only to fetch what is checked by its digest.
        system_too: Whether the system's authorities are trusted beside `ca_file`.
        lines: Whose cut ends what this client waits for; none: its own.

    Raises:
        SettingsError: The URL is none.
    """

    def __init__(
        self, url: str, *, user: str = "", secret: str = "", ca_file: Path | None = None, timeout_s: float = 30.0,
        verify: bool = True, certificate_time: CertificateTime | None = None, login: Login | None = None,
        system_too: bool = False, lines: OpenLines | None = None,
    ) -> None:  # fmt: skip
        if not url.startswith(("http://", "https://")):
            raise SettingsError(f"{url!r} is no server's URL", hint="write https://HOST or http://HOST:PORT")
        self.url = url.rstrip("/")
        self._ca_file = ca_file
        self._timeout_s = timeout_s
        self._verify = verify
        self._certificate_time = certificate_time
        self._system_too = system_too
        self.lines = lines or OpenLines()
        self._elsewhere: HttpClient | None = None
        self._headers = {"User-Agent": "shoal-agent", "Accept-Encoding": "identity"}
        self._login = login
        if user:
            self._headers["Authorization"] = _basic(user, secret)

    @cached_property
    def _pool(self) -> PoolManager:
        import urllib3  # noqa: PLC0415 - 25 ms that a start without network should not pay

        proxy = proxy_for(self.url)
        pool = urllib3.PoolManager if proxy is None else partial(urllib3.ProxyManager, proxy)
        made = pool(
            maxsize=2,
            ssl_context=self._tls(),
            cert_reqs="CERT_REQUIRED" if self._verify else "CERT_NONE",
            assert_hostname=None if self._verify else False,
            timeout=urllib3.Timeout(connect=min(self._timeout_s, 10.0), read=self._timeout_s),
            retries=urllib3.Retry(0),
        )
        return self.lines.watch(made)

    def _tls(self) -> ssl.SSLContext | None:
        if not self._verify or not self.url.startswith("https://"):
            return None
        from shoal_agent.adapters.tls import client_context  # noqa: PLC0415 - as urllib3

        try:
            return client_context(
                ca_file=self._ca_file, certificate_time=self._certificate_time, system_too=self._system_too
            )
        except OSError as error:
            raise TransportError(f"the certificates in {self._ca_file} can't be used: {error}") from error

    @contextmanager
    def open(
        self, method: str, path: str, *, headers: Mapping[str, str] | None = None, body: bytes | None = None
    ) -> Iterator[BaseHTTPResponse]:
        """Send a request; the answer's body is not read yet.

        Args:
            method: ``GET``, ``POST`` …
            path: Below the server's URL, with its leading slash, or a whole URL below it.
            headers: Besides the client's own.
            body: Of the request.

        Raises:
            TransportError: No answer came, or it broke off while the caller read it.
        """
        url = path if path.startswith(self.url) else self.url + path
        response = self._followed(method, url, headers or {}, body)
        with _translated(method, url):
            try:
                yield response
            finally:
                response.close()
                response.release_conn()

    def exchange(
        self, method: str, path: str, *, headers: Mapping[str, str] | None = None, body: bytes | None = None,
        limit: int = MAX_ANSWER_BYTES,
    ) -> tuple[int, Mapping[str, str], bytes]:  # fmt: skip
        """Send a request and read the whole answer.

        Returns:
            Status, headers, body.

        Raises:
            TransportError: No answer, it broke off, or it is longer than `limit` bytes.
        """
        with self.open(method, path, headers=headers, body=body) as response:
            return response.status, response.headers, read_bounded(response, limit)

    def close(self) -> None:
        """Close all connections."""
        if "_pool" in self.__dict__:
            self._pool.clear()
        if self._elsewhere is not None:
            self._elsewhere.close()

    def _followed(self, method: str, url: str, headers: Mapping[str, str], body: bytes | None) -> BaseHTTPResponse:
        """Return the answer at the end of all redirects."""
        client = self
        for _ in range(MAX_REDIRECTS + 1):
            response = client._sent(method, url, headers, body)
            location = response.headers.get("Location")
            if response.status not in _REDIRECTS or not location:
                return response
            response.close()
            target = redirected(url, location)
            if method != "GET":
                raise TransportError(
                    f"{method} {url}: the server sends on to {told(target)}, which is followed for downloads only",
                    hint="join with the address that it sends on to",
                )
            url = target
            client = self._at(url)
        raise TransportError(
            f"{method} {told(url)}: more than {MAX_REDIRECTS} redirects", hint="do they go in a circle?"
        )

    def _sent(self, method: str, url: str, headers: Mapping[str, str], body: bytes | None) -> BaseHTTPResponse:
        login = None if url.removeprefix(self.url).startswith(_PUBLIC) else self._login
        user, secret = ("", "") if login is None else login.login()
        own = {**self._headers, "Authorization": _basic(user, secret)} if user else self._headers
        with _translated(method, url):
            response = self._pool.request(
                method, url, headers={**own, **headers}, body=body, preload_content=False, redirect=False
            )
        if login is not None:
            login.answered(secret, response.status)
        return response

    def _at(self, url: str) -> HttpClient:
        """Return the client for where a redirect leads: this one for its own origin, else one without credentials."""
        origin = origin_of(url)
        if origin == origin_of(self.url):
            return self
        if self._elsewhere is None or origin_of(self._elsewhere.url) != origin:
            if self._elsewhere is not None:
                self._elsewhere.close()
            self._elsewhere = HttpClient(
                origin,
                ca_file=self._ca_file,
                timeout_s=self._timeout_s,
                certificate_time=self._certificate_time,
                system_too=True,
                lines=self.lines,
            )
        return self._elsewhere


@contextmanager
def _translated(method: str, url: str) -> Iterator[None]:
    """Turn faults of the network into ours."""
    import urllib3  # noqa: PLC0415 - see `HttpClient._pool`

    try:
        yield
    except (urllib3.exceptions.HTTPError, OSError) as error:
        raise TransportError(f"{method} {told(url)}: {_plain(error)}", hint=_advice(error)) from error


def _basic(user: str, secret: str) -> str:
    return f"Basic {base64.b64encode(f'{user}:{secret}'.encode()).decode()}"


def _cause(error: Exception) -> BaseException:
    """Return the innermost reason of an error that urllib3 has wrapped."""
    found: BaseException = error
    while True:
        wrapped = (getattr(found, "reason", None), found.__cause__, *found.args)
        deeper = next((one for one in wrapped if isinstance(one, BaseException)), None)
        if deeper is None:
            return found
        found = deeper


def _plain(error: Exception) -> str:
    """Say a network fault as a person would: without pools, retries and addresses of objects."""
    cause = _cause(error)
    text = getattr(cause, "strerror", None) or getattr(cause, "verify_message", None) or str(cause)
    return text.removeprefix(f"{type(cause).__name__}: ").rpartition(">: ")[2]


def _advice(error: Exception) -> str:
    cause = _cause(error)
    if getattr(cause, "reason", None) == "WRONG_VERSION_NUMBER":
        return "this port does not speak TLS: is the URL to begin with http:// ?"
    if getattr(cause, "verify_code", 0):
        return "the server's certificate is not trusted: join with a token of this server, which pins its authority"
    return "is the server up and reachable?"


def read_bounded(response: BaseHTTPResponse, limit: int) -> bytes:
    """Read an answer's body.

    Raises:
        TransportError: It is longer than `limit` bytes.
    """
    body = bytearray()
    while chunk := response.read1(1 << 16):
        body += chunk
        if len(body) > limit:
            raise TransportError(f"the answer is longer than {limit} bytes")
    return bytes(body)
