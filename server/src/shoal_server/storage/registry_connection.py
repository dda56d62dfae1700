"""One connection to a repository of an OCI registry that others run.

Owns requests: credentials (Basic, or a token as the registry's challenge asks), redirects, what is tried again, and the
translation of every failure into an error that says what to do. What is stored, and how, is `registry_blobs`'.

Invariants:
    - Credentials go to the registry and to where its challenge sends for tokens, never along a redirect to elsewhere,
      and never from TLS into the open.
    - A broken connection or a registry that is busy is tried again, three times in all. Who doesn't answer in time
      isn't asked again: a transaction may be waiting.
"""

import base64
import ssl
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urljoin, urlsplit

import httpx2

from shoal_protocol.errors import LocalError
from shoal_server.errors import StartError
from shoal_server.storage.registry_challenge import Challenge, parse_challenge
from shoal_server.storage.registry_place import RegistryPlace

_CONNECT_S = 5.0
_TIMEOUT_S = 20.0
_ATTEMPTS = 3
_BUSY = frozenset({429, 502, 503, 504})
_MOST_REDIRECTS = 5
_MOST_BYTES = 16 * 1024**2
"""Lists of tags and manifests are far smaller; blobs are streamed."""


@dataclass(frozen=True)
class Answer:
    """What came back, whole."""

    status: int
    headers: httpx2.Headers
    body: bytes


Content = bytes | Callable[[], Iterator[bytes]]
"""A body; a large one is given as what begins it anew, since a request may be sent twice."""


@dataclass(frozen=True)
class _Asked:
    """A request, before it is known with which credentials it goes."""

    method: str
    url: str
    headers: Mapping[str, str]
    content: Content | None
    timeout_s: float


class RegistryStoreError(LocalError):
    """The registry that keeps the blobs can't be reached, or doesn't do what is asked."""

    code = "blob_registry"


class RegistryAwayError(RegistryStoreError):
    """No answer came, or it broke off: asking again may help."""


class RegistryConnection:
    """Requests about one repository.

    Args:
        place: which.
        user: name of the account; empty: nobody.
        password: its password or token.
        ca: file of the authority that signed the registry's certificate; None: the system's.
        transport: carries the requests instead of sockets.
        sleep: waits between attempts.

    Raises:
        StartError: the authority's file can't be used.
    """

    def __init__(
        self,
        place: RegistryPlace,
        *,
        user: str = "",
        password: str = "",
        ca: Path | None = None,
        transport: httpx2.BaseTransport | None = None,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.place = place
        self._basic = "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode() if user else ""
        self._authorization = ""
        self._sleep = sleep
        self._client = httpx2.Client(
            timeout=httpx2.Timeout(_TIMEOUT_S, connect=_CONNECT_S),
            verify=_authority(ca) if place.encrypted else True,
            transport=transport,
            headers={"user-agent": "shoal-server", "accept-encoding": "identity"},
        )

    def close(self) -> None:
        """Let go of connections."""
        self._client.close()

    def send(
        self,
        method: str,
        path: str,
        *,
        good: Collection[int],
        headers: Mapping[str, str] | None = None,
        content: Content | None = None,
        attempts: int = _ATTEMPTS,
        timeout_s: float = _TIMEOUT_S,
    ) -> Answer:
        """Send a request and return the answer with its body.

        Args:
            method: of HTTP.
            path: below the repository, such as `/tags/list`, or a whole address that the registry gave.
            good: statuses that are answers; others are errors.
            headers: of the request.
            content: its body.
            attempts: how often it is tried; once where the body continues something.
            timeout_s: how long nothing may come or go.

        Raises:
            RegistryAwayError: no answer came, or one that breaks off.
            RegistryStoreError: the registry says no.
        """
        asked = _Asked(method, self.address(path), headers or {}, content, timeout_s)
        with self._answered(asked, good=good, attempts=attempts) as answer:
            body = bytearray()
            try:
                for piece in answer.iter_bytes():
                    body += piece
                    if len(body) > _MOST_BYTES:
                        raise RegistryStoreError(f"{self.place} answers {method} with more than {_MOST_BYTES} bytes")
            except httpx2.TransportError as error:
                raise self._away(error) from error
            return Answer(answer.status_code, answer.headers, bytes(body))

    def stream(
        self, path: str, *, good: Collection[int], headers: Mapping[str, str]
    ) -> AbstractContextManager[httpx2.Response]:
        """Get a path below the repository, and have the answer, its body unread, as long as a block lasts.

        Raises:
            RegistryAwayError: no answer came; a body that breaks off raises `httpx2.TransportError` where it is read.
            RegistryStoreError: the registry says no.
        """
        asked = _Asked("GET", self.address(path), headers, None, _TIMEOUT_S)
        return self._answered(asked, good=good, attempts=_ATTEMPTS)

    def address(self, location: str) -> str:
        """Return the address of a path below the repository, or of what the registry gave as a Location.

        Raises:
            RegistryStoreError: it lies in the open, while the registry is reached by TLS.
        """
        below = location.startswith("/") and not location.startswith(("/v2/", "//"))
        found = urljoin(self.place.origin, f"/v2/{self.place.repository}{location}" if below else location)
        if self.place.encrypted and urlsplit(found).scheme != "https":
            raise RegistryStoreError(
                f"{self.place} sends on to {urlsplit(found).netloc} without TLS",
                hint="have the registry know its own address (docker-registry: http.host; Harbor: hostname and https)",
            )
        return found

    @contextmanager
    def _answered(self, asked: _Asked, *, good: Collection[int], attempts: int) -> Iterator[httpx2.Response]:
        answer = self._tried(asked, attempts=attempts)
        try:
            if answer.status_code not in good:
                raise self._refusal(asked.method, answer)
            yield answer
        finally:
            answer.close()

    def _tried(self, asked: _Asked, *, attempts: int) -> httpx2.Response:
        for attempt in range(1, attempts + 1):
            try:
                answer = self._authorized(asked)
            except httpx2.TransportError as error:
                if attempt == attempts or isinstance(error, httpx2.TimeoutException):
                    raise self._away(error) from error
            else:
                if attempt == attempts or answer.status_code not in _BUSY:
                    return answer
                answer.close()
            self._sleep(0.1 * 4 ** (attempt - 1))
        raise AssertionError  # unreachable: the last attempt returns or raises

    def _authorized(self, asked: _Asked) -> httpx2.Response:
        """Send, and again with what a challenge asks for: at first, and whenever a token has expired."""
        used = self._authorization
        answer = self._followed(asked, used)
        if answer.status_code != 401:
            return answer
        challenge = parse_challenge(answer.headers.get("www-authenticate", ""))
        granted = self._granted(challenge) if challenge is not None else ""
        if not granted or granted == used:
            return answer
        answer.close()
        self._authorization = granted
        return self._followed(asked, granted)

    def _followed(self, asked: _Asked, authorization: str) -> httpx2.Response:
        own = {"authorization": authorization} if authorization and self._is_own(asked.url) else {}
        request = self._client.build_request(
            asked.method,
            asked.url,
            headers={**asked.headers, **own},
            content=asked.content() if callable(asked.content) else asked.content,
            timeout=httpx2.Timeout(asked.timeout_s, connect=_CONNECT_S),
        )
        answer = self._client.send(request, stream=True)
        for _ in range(_MOST_REDIRECTS):
            if answer.next_request is None or asked.method not in {"GET", "HEAD"}:
                return answer
            answer.close()
            following = answer.next_request  # without our credentials when it leads elsewhere
            self.address(str(following.url))
            answer = self._client.send(following, stream=True)
        return answer

    def _is_own(self, url: str) -> bool:
        return httpx2.URL(url).origin == httpx2.URL(self.place.origin).origin

    def _granted(self, challenge: Challenge) -> str:
        """Return the Authorization that a challenge asks for, empty when there is none for us."""
        if challenge.scheme == "basic":
            return self._basic
        url = challenge.token_url(f"repository:{self.place.repository}:pull,push,delete")
        answer = self._client.get(
            self.address(url), headers={"authorization": self._basic} if self._basic else {}, follow_redirects=False
        )
        if answer.status_code != 200:
            raise self._refusal("GET", answer)
        try:
            document = answer.json()
            token = document.get("token") or document.get("access_token")
        except (ValueError, AttributeError) as error:
            raise RegistryStoreError(f"{urlsplit(url).netloc} answers without a token for {self.place}") from error
        return f"Bearer {token}" if token else ""

    def _away(self, error: httpx2.TransportError) -> RegistryAwayError:
        said = str(error) or type(error).__name__
        if "CERTIFICATE_VERIFY_FAILED" in said:
            hint = "name the authority that signed it: --blobs-ca or SHOAL_BLOBS_CA"
            return RegistryAwayError(f"the certificate of {self.place} is not trusted: {said}", hint=hint)
        if "WRONG_VERSION_NUMBER" in said:
            hint = "for a registry without TLS, on a network that you trust, write oci+http://"
            return RegistryAwayError(f"{self.place} doesn't speak TLS", hint=hint)
        if isinstance(error, httpx2.TimeoutException):
            said = "no answer in time"
        return RegistryAwayError(
            f"the registry {self.place} can't be reached: {said}", hint="is it up, and is --blobs its address?"
        )

    def _refusal(self, method: str, answer: httpx2.Response) -> RegistryStoreError:
        status, said = answer.status_code, _said(answer)
        if status == 401:
            who = "this name and password" if self._basic else "who gives no name and password"
            return RegistryStoreError(
                f"the registry {self.place} refuses {who} (401){said}",
                hint="set SHOAL_BLOBS_USER, and SHOAL_BLOBS_PASSWORD or SHOAL_BLOBS_PASSWORD_FILE",
                status_code=status,
            )
        hints = {
            403: "may the account push to this repository?",
            404: "make the repository or its project there first, or correct --blobs",
            405: "is the registry read-only just now?",
            413: "a proxy before the registry takes no bodies of this size: raise its limit",
            429: "the registry limits requests: raise the account's limit",
        }
        hint = "look at the registry's log" if status >= 500 else hints.get(status, "")
        what = f"the registry {self.place} refuses {method} ({status}){said}"
        return RegistryStoreError(what, hint=hint, status_code=status)


def _authority(ca: Path | None) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(cafile=ca)
    except OSError as error:  # SSLError is one: no certificate is in the file
        raise StartError(f"--blobs-ca {ca} can't be used: {error.strerror or error}") from error


def _said(answer: httpx2.Response) -> str:
    """Return what a registry gives as its reasons, for a message."""
    try:
        answer.read()
        faults = answer.json()["errors"]
        said = "; ".join(f"{fault.get('code', '')} {fault.get('message', '')}".strip() for fault in faults)
    except (httpx2.TransportError, ValueError, LookupError, TypeError, AttributeError):
        return ""
    return f": {said[:300]}" if said else ""
