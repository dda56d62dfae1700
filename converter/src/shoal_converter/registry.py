"""One connection to an OCI registry, Shoal's own or any other.

Owns requests, credentials and the translation of answers into the converter's errors. What is pushed and pulled, and in
which order, is `pushing`'s. (OCI distribution specification 1.1.)
"""

from __future__ import annotations

import base64
import ssl
import time
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Any, Self
from urllib.parse import urljoin, urlsplit

import httpx2

from shoal_converter.errors import RegistryError, RegistryRefusedError, SignatureError
from shoal_protocol.bundle.manifest import MANIFEST_MEDIA_TYPE
from shoal_protocol.canonical import sha256_digest
from shoal_protocol.errors import CallerError

INDEX_MEDIA_TYPE = "application/vnd.oci.image.index.v1+json"
CHUNK_BYTES = 4 * 1024 * 1024
_PIECE_BYTES = 256 * 1024
_ATTEMPTS = 3
_MOST_JSON_BYTES = 64 * 1024 * 1024
_TIMEOUT_S = 60.0

Sleep = Callable[[float], None]


class Registry:
    """A registry's repositories.

    Args:
        url: ``http(s)://host[:port]``.
        token: Shoal's API token (sent as Bearer), or ``user:password`` (Basic).
        ca: File of the certificate authority to trust; the system's if none.
        transport: Replaces the network in tests.
        sleep: Waits between attempts.

    Raises:
        CallerError: The URL is none.
    """

    def __init__(
        self,
        url: str,
        *,
        token: str | None = None,
        ca: str | None = None,
        transport: httpx2.BaseTransport | None = None,
        sleep: Sleep = time.sleep,
    ) -> None:
        parts = urlsplit(url)
        if parts.scheme not in {"http", "https"} or not parts.hostname:
            raise CallerError(f"{url!r} is no URL of a registry", hint="write http://host:8080 or https://host")
        self.url = url.rstrip("/")
        self._sleep = sleep
        self._client = httpx2.Client(
            headers=_credentials(token),
            timeout=_TIMEOUT_S,
            verify=_authority(ca) if parts.scheme == "https" else True,
            transport=transport,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._client.close()

    def has_blob(self, name: str, digest: str) -> bool:
        """Tell whether a repository has a blob."""
        return self._request("HEAD", f"/v2/{name}/blobs/{digest}", good=(200, 404)).status_code == 200

    def manifest_digest(self, name: str, reference: str) -> str | None:
        """Return the digest of the manifest with a tag or digest, or none."""
        answer = self._request(
            "HEAD", f"/v2/{name}/manifests/{reference}", good=(200, 404), headers={"Accept": MANIFEST_MEDIA_TYPE}
        )
        return None if answer.status_code == 404 else answer.headers.get("Docker-Content-Digest", "")

    def upload(self, name: str, content: bytes, *, sent: Callable[[int], None]) -> None:
        """Send a blob in chunks, so that a break costs one chunk and not the whole.

        Args:
            name: The repository.
            content: All of it.
            sent: Called with the number of bytes that went out.
        """
        digest = sha256_digest(content)
        begun = self._request("POST", f"/v2/{name}/blobs/uploads/", good=(202,))
        at = 0
        while at < len(content):
            chunk = content[at : at + CHUNK_BYTES]
            answer = self._request(
                "PATCH",
                self._location(begun),
                good=(202, 204, 416),
                stream=lambda chunk=chunk: _pieces(chunk, sent),  # type: ignore[misc]  # mypy can't infer the default
                headers={
                    "Content-Type": "application/octet-stream",
                    "Content-Length": str(len(chunk)),
                    "Content-Range": f"{at}-{at + len(chunk) - 1}",
                },
            )
            at = _received(answer, at, at + len(chunk))
            begun = answer if "Location" in answer.headers else begun
        location = self._location(begun)
        joint = "&" if "?" in location else "?"
        self._request("PUT", f"{location}{joint}digest={digest}", good=(201,))

    def put_manifest(self, name: str, reference: str, raw: bytes, *, media_type: str = MANIFEST_MEDIA_TYPE) -> str:
        """Send a manifest's raw bytes under a tag or digest; return the digest that the registry says."""
        return self._put_manifest(name, reference, raw, media_type)[0]

    def put_referrer(self, name: str, raw: bytes) -> bool:
        """Send a manifest that says something about another; tell whether the registry itself lists it as such."""
        return self._put_manifest(name, sha256_digest(raw), raw, MANIFEST_MEDIA_TYPE)[1]

    def _put_manifest(self, name: str, reference: str, raw: bytes, media_type: str) -> tuple[str, bool]:
        """Return the digest that the registry says, and whether it knows of referrers (specification, OCI-Subject)."""
        answer = self._request(
            "PUT",
            f"/v2/{name}/manifests/{reference}",
            good=(200, 201),
            content=raw,
            headers={"Content-Type": media_type},
        )
        said = answer.headers.get("Docker-Content-Digest", "")
        if said and said != sha256_digest(raw):
            raise SignatureError(f"the registry stored the manifest as {said}, its digest is {sha256_digest(raw)}")
        return said, "OCI-Subject" in answer.headers

    def manifest(self, name: str, reference: str) -> bytes:
        """Return a manifest's raw bytes."""
        return self._request(
            "GET", f"/v2/{name}/manifests/{reference}", good=(200,), headers={"Accept": MANIFEST_MEDIA_TYPE}
        ).content

    def index(self, name: str, tag: str) -> bytes | None:
        """Return the raw bytes of the index with a tag, none where there is none."""
        answer = self._request(
            "GET", f"/v2/{name}/manifests/{tag}", good=(200, 404), headers={"Accept": INDEX_MEDIA_TYPE}
        )
        return None if answer.status_code == 404 else answer.content

    def blob(self, name: str, digest: str, *, size: int, received: Callable[[int], None] | None = None) -> bytes:
        """Return a blob of a known size; `received` is called with the number of bytes of each piece.

        Raises:
            SignatureError: The bytes are others.
        """
        raw = self._request("GET", f"/v2/{name}/blobs/{digest}", good=(200,), most=size, received=received).content
        if sha256_digest(raw) != digest:
            raise SignatureError(
                f"{self.url} sent other bytes than {digest} names", hint="tell the registry's operator"
            )
        return raw

    def json(self, path: str) -> Any | None:
        """Return a JSON document, or none where there is none."""
        answer = self._request("GET", path, good=(200, 401, 403, 404, 405))
        if answer.status_code != 200:
            return None
        try:
            return answer.json()
        except ValueError:
            return None

    def exchange(
        self, method: str, path: str, *, content: bytes | None = None, headers: dict[str, str] | None = None
    ) -> tuple[int, dict[str, str], bytes]:
        """Send one request and return status, headers (names in lower case) and body, whatever the server says.

        Raises:
            RegistryError: It can't be reached, or fails (5xx).
        """
        answer = self._request(method, path, good=tuple(range(200, 500)), content=content, headers=headers)
        return answer.status_code, {name.lower(): value for name, value in answer.headers.items()}, answer.content

    def _location(self, answer: httpx2.Response) -> str:
        location = answer.headers.get("Location")
        if location is None:
            raise RegistryRefusedError(f"{self.url} gave no place for the upload (no Location header)")
        absolute = urljoin(self.url + "/", location)
        if urlsplit(absolute).netloc != urlsplit(self.url).netloc:
            raise RegistryRefusedError(
                f"{self.url} sends uploads to {urlsplit(absolute).netloc}, where your token must not go"
            )
        return absolute

    def _request(
        self,
        method: str,
        path: str,
        *,
        good: tuple[int, ...],
        headers: dict[str, str] | None = None,
        content: bytes | None = None,
        stream: Callable[[], Iterator[bytes]] | None = None,
        most: int = _MOST_JSON_BYTES,
        received: Callable[[int], None] | None = None,
    ) -> httpx2.Response:
        url = path if "://" in path else self.url + path
        for attempt in range(1, _ATTEMPTS + 1):
            try:
                request = self._client.build_request(
                    method, url, headers=headers, content=stream() if stream is not None else content
                )
                answer = self._client.send(request, stream=True)
                try:
                    _read_bounded(answer, most, received)
                finally:
                    answer.close()
            except (httpx2.TransportError, httpx2.StreamError) as error:
                if attempt == _ATTEMPTS:
                    raise _away(self.url, method, error) from error
            else:
                if answer.status_code in good:
                    return answer
                if answer.status_code < 500 or attempt == _ATTEMPTS:
                    raise _refusal(self.url, method, answer)
            self._sleep(0.2 * 4**attempt)
        raise AssertionError  # unreachable: the last attempt returns or raises


def _authority(ca: str | None) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(cafile=ca)
    except OSError as error:  # SSLError is one: no certificate is in the file
        raise CallerError(
            f"the file of the certificate authority {ca} can't be used: {error.strerror or error}",
            hint="SHOAL_CA names it; the server keeps it as ca.pem, and `shoalctl login` stores it",
        ) from error


def _credentials(token: str | None) -> dict[str, str]:
    if not token:
        return {}
    if ":" in token:
        return {"Authorization": "Basic " + base64.b64encode(token.encode()).decode()}
    return {"Authorization": f"Bearer {token}"}


def _pieces(chunk: bytes, sent: Callable[[int], None]) -> Iterator[bytes]:
    for at in range(0, len(chunk), _PIECE_BYTES):
        piece = chunk[at : at + _PIECE_BYTES]
        yield piece
        sent(len(piece))


def _received(answer: httpx2.Response, start: int, end: int) -> int:
    """Return where the next chunk begins: what the registry says that it has, after a chunk that it refused."""
    if answer.status_code != 416:
        return end
    last = answer.headers.get("Range", "").rpartition("-")[2]
    at = int(last) + 1 if last.isdecimal() else start
    if at <= start:
        raise RegistryRefusedError(
            f"the registry refuses the upload at byte {start} (416) and does not say where it is"
        )
    return at


def _read_bounded(answer: httpx2.Response, most: int, received: Callable[[int], None] | None) -> None:
    body = bytearray()
    for piece in answer.iter_bytes():
        body += piece
        if len(body) > most:
            raise RegistryRefusedError(f"{answer.url} sends more than the {most} bytes that were expected")
        if received is not None:
            received(len(piece))
    answer._content = bytes(body)  # noqa: SLF001 - the way httpx's own read() keeps it


def _away(url: str, method: str, error: Exception) -> RegistryError:
    said = str(error) or type(error).__name__
    if "CERTIFICATE_VERIFY_FAILED" in said:
        return RegistryError(
            f"the certificate of {url} is not trusted: {said}",
            hint="name the file of the authority that signed it by SHOAL_CA; a server with --lan keeps it as ca.pem",
        )
    if "WRONG_VERSION_NUMBER" in said:
        return RegistryError(f"{url} doesn't speak TLS", hint=f"write {url.replace('https', 'http', 1)}")
    return RegistryError(
        f"{url} can't be reached ({method}): {said}",
        hint="is the address right (http or https), and the server running? SHOAL_URL or --url",
    )


def _refusal(url: str, method: str, answer: httpx2.Response) -> RegistryError | RegistryRefusedError:
    said = _said(answer)
    if answer.status_code in {401, 403}:
        hint = (
            "give a token by SHOAL_TOKEN or --token-file; pushing needs a releaser's"
            if answer.status_code == 401
            else "the token's role is not enough: pushing needs releaser"
        )
        if answer.status_code == 401 and not answer.content:  # to HEAD nobody says why
            given = "Authorization" in answer.request.headers
            said = "it does not know the token that was given, or it has expired" if given else "no token was given"
        return RegistryRefusedError(
            f"{url} refuses ({answer.status_code}): {said}", hint=hint, status=answer.status_code
        )
    if answer.status_code >= 500:
        return RegistryError(f"{url} fails ({answer.status_code} to {method}): {said}", hint="look at the server's log")
    return RegistryRefusedError(f"{url} refuses ({answer.status_code}): {said}", status=answer.status_code)


def _said(answer: httpx2.Response) -> str:
    try:
        document = answer.json()
    except ValueError:
        return answer.text[:200] or "no reason given"
    if isinstance(document, dict):
        errors = document.get("errors")
        if isinstance(errors, list) and errors:
            return "; ".join(str(entry.get("message", entry)) for entry in errors if isinstance(entry, dict))[:2000]
        return str(document.get("detail") or document.get("title") or document)[:500]
    return str(document)[:200]
