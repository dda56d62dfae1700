"""Downloads of manifests and blobs over the OCI distribution API, resumed where they stopped.

A part file is believed for its length only: what counts is the bytes on the disk, and the whole is hashed again before
it is taken over (`FolderBlobStore.adopt`). A resumed request carries If-Range, so that a file that was swapped since
begins anew. Never are more bytes written than were signed.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from shoal_agent.adapters.http_client import HttpClient, read_bounded
from shoal_agent.errors import CancelledError, TransportError
from shoal_agent.ports import Cancelled, Clock
from shoal_protocol.bundle.manifest import MANIFEST_MEDIA_TYPE, MAX_MANIFEST_BYTES, Descriptor
from shoal_protocol.canonical import sha256_digest
from shoal_protocol.errors import DigestMismatchError

if TYPE_CHECKING:
    from urllib3 import BaseHTTPResponse

_CHUNK = 1 << 18


class Pace(msgspec.Struct, frozen=True):
    """How fast a download may and must be.

    Attributes:
        max_bytes_per_s: Cap of the bandwidth; none: no cap.
        min_bytes_per_s: A transfer that is slower over `patience_s` is broken off, and continued later.
        patience_s: Seconds over which the speed is measured.
        deadline_s: Of one transfer.
    """

    max_bytes_per_s: float | None = None
    min_bytes_per_s: float = 64.0
    patience_s: float = 60.0
    deadline_s: float = 6 * 3600.0


class OciFetcher:
    """Fetches from ``/v2/`` of the server.

    Args:
        http: The server.
        pace: Bounds of speed.
        clock: Monotonic seconds.
        pause: Waits so many seconds.
    """

    def __init__(self, http: HttpClient, *, pace: Pace, clock: Clock, pause: Callable[[float], None]) -> None:
        self._http = http
        self._pace = pace
        self._clock = clock
        self._pause = pause

    def manifest(self, model: str, digest: str, *, size: int) -> bytes:
        """Return a manifest's bytes, checked against digest and signed size.

        Raises:
            TransportError: Try again later.
            DigestMismatchError: The server holds something else under this name.
        """
        path = f"/v2/{model}/manifests/{digest}"
        with self._http.open("GET", path, headers={"Accept": MANIFEST_MEDIA_TYPE}) as response:
            _expect(response.status, {200}, path)
            raw = read_bounded(response, MAX_MANIFEST_BYTES)
        if len(raw) != size or sha256_digest(raw) != digest:
            raise DigestMismatchError(
                f"the manifest that came has {len(raw)} bytes and {sha256_digest(raw)}, signed are {size} and {digest}",
                digest=digest,
            )
        return raw

    def blob(self, model: str, blob: Descriptor, part: Path, *, cancelled: Cancelled) -> None:
        """Complete a part file.

        Raises:
            TransportError: It broke off or was too slow; what came is kept.
            DigestMismatchError: The server sends more bytes than were signed.
            CancelledError: It was given up; what came is kept.
        """
        done = _size(part)
        etag = _read_etag(part)
        if done > blob.size or (done and etag is None):
            part.unlink()
            done = 0
        if done == blob.size and part.exists():
            return
        path = f"/v2/{model}/blobs/{blob.digest}"
        headers = {"Range": f"bytes={done}-", "If-Range": etag} if done and etag else {}
        with self._http.open("GET", path, headers=headers) as response:
            _expect(response.status, {200, 206}, path)
            start = _start_of(response, done)
            if start == 0:
                _write_etag(part, response.headers.get("ETag"))
            self._collect(response, part, blob, start=start, cancelled=cancelled)
        if _size(part) != blob.size:
            raise TransportError(f"the download of {blob.digest} broke off at {_size(part)} of {blob.size} bytes")

    def _collect(
        self, response: BaseHTTPResponse, part: Path, blob: Descriptor, *, start: int, cancelled: Cancelled
    ) -> None:
        meter = _Meter(self._pace, self._clock())
        done = start
        with part.open("r+b" if start else "wb", buffering=0) as file:
            file.seek(start)
            while chunk := response.read1(_CHUNK):
                file.write(chunk[: blob.size - done])
                done += len(chunk)
                if done > blob.size:
                    file.truncate(0)
                    raise DigestMismatchError(
                        f"the server sends more than the {blob.size} signed bytes of {blob.digest}", digest=blob.digest
                    )
                if cancelled():
                    os.fsync(file.fileno())
                    raise CancelledError(f"the download of {blob.digest} was given up at {done} bytes")
                wait_s = meter.count(len(chunk), self._clock())
                if wait_s > 0:
                    self._pause(wait_s)


class _Meter:
    """Holds one transfer against its pace."""

    def __init__(self, pace: Pace, now: float) -> None:
        self._pace = pace
        self._begun = self._since = now
        self._total = self._recent = 0

    def count(self, size: int, now: float) -> float:
        """Add bytes that came; return how many seconds to wait.

        Raises:
            TransportError: Too slow, or too long.
        """
        self._total += size
        self._recent += size
        if now - self._begun > self._pace.deadline_s:
            raise TransportError(f"the download took longer than {self._pace.deadline_s:.0f} s")
        if now - self._since >= self._pace.patience_s:
            speed = self._recent / (now - self._since)
            if speed < self._pace.min_bytes_per_s:
                raise TransportError(
                    f"the download came at {speed:.0f} bytes/s, at least {self._pace.min_bytes_per_s:.0f}"
                )
            self._since, self._recent = now, 0
        cap = self._pace.max_bytes_per_s
        return self._total / cap - (now - self._begun) if cap else 0.0


def _expect(status: int, allowed: set[int], path: str) -> None:
    if status not in allowed:
        raise TransportError(f"GET {path}: the server answered {status}", status=status)


def _start_of(response: BaseHTTPResponse, asked: int) -> int:
    """Return the first byte of an answer: a whole file begins at 0; a range must begin where it was asked to."""
    if response.status == 200:
        return 0
    if response.headers.get("Content-Range", "").startswith(f"bytes {asked}-"):
        return asked
    raise TransportError(f"asked for bytes from {asked}, got {response.headers.get('Content-Range')!r:.80}")


def _size(part: Path) -> int:
    try:
        return part.stat().st_size
    except FileNotFoundError:
        return 0


def _read_etag(part: Path) -> str | None:
    try:
        return part.with_suffix(".etag").read_text(encoding="ascii") or None
    except (OSError, UnicodeDecodeError):
        return None


def _write_etag(part: Path, etag: str | None) -> None:
    """Remember a strong validator; a weak one can't be used with ranges (RFC 9110, section 13.1.5)."""
    sidecar = part.with_suffix(".etag")
    if etag and etag.isascii() and not etag.startswith("W/") and len(etag) < 256:
        sidecar.write_text(etag, encoding="ascii")
    else:
        with suppress(FileNotFoundError):
            sidecar.unlink()
