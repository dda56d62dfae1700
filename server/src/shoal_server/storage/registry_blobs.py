"""Blobs in somebody's OCI registry: docker-registry, Harbor, GitLab, a cloud's own.

Owns how blobs lie there. All of them are in one repository. Beside each stands a small manifest, its *holder*, under
the tag `blob-<hex>`, whose one layer the blob is. The holder makes a blob one of ours: it keeps the registry's own
garbage collection away from it, lets it be listed (registries list tags, never blobs), and says how large it is and
when it was stored last. So a blob is there when its holder is; it is pushed before it.

Taking a blob away means deleting its holder. Its bytes go when the registry collects its garbage, which only its own
operator can start; a registry that refuses deletes is told as such (`DeletesRefusedError`), and keeps everything.

Invariants are those of `blobs` and `spooled`; and what is read whole has the digest that names it: the last piece is
given out only then.
"""

import hashlib
import io
import json
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import BinaryIO

import httpx2

from shoal_protocol.canonical import Digest, canonical_bytes, parse_digest, sha256_digest
from shoal_protocol.errors import DigestMismatchError
from shoal_server.errors import NotFoundError
from shoal_server.storage.blobs import DeletesRefusedError, StoredBlob
from shoal_server.storage.database import Clock
from shoal_server.storage.registry_connection import (
    Answer,
    RegistryAwayError,
    RegistryConnection,
    RegistryStoreError,
)
from shoal_server.storage.spooled import SpooledBlobs

HOLDER_TYPE = "application/vnd.shoal.blob.v1"
STORED_AT = "shoal.stored-at"
"""Annotation of a holder: when its blob was stored last, seconds since the epoch."""

_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
_EMPTY = b"{}"
_EMPTY_TYPE = "application/vnd.oci.empty.v1+json"
_TAG_RE = re.compile(r"blob-([0-9a-f]{64})")
_NEXT_RE = re.compile(r'<([^<>]+)>\s*;\s*rel="?next"?')
_PIECE_BYTES = 1024**2
_UPLOAD_S = 600.0
"""A registry may look through all bytes of an upload, or move them, before it says that it has them."""
_SIZES = 4096
_READS = 3
"""So often a download that breaks off without having brought anything is begun again."""

_Begin = Callable[[], BinaryIO]
"""Begins to read what is to be stored; more than once when an upload breaks off."""

_NO_DELETES = frozenset({400, 401, 403, 405})
"""How registries say that they don't delete; docker-registry says 405, Harbor and clouds one of the others."""


@dataclass(frozen=True)
class _Holder:
    digest: str
    size: int
    stored_at: float


class RegistryBlobs(SpooledBlobs):
    """Blobs of one repository.

    Args:
        connection: to the repository.
        spool: local folder for uploads that are under way; made when it isn't there.
        clock: says when a blob was stored; other in tests.
    """

    def __init__(self, connection: RegistryConnection, spool: Path, *, clock: Clock = time.time) -> None:
        super().__init__(spool)
        self._registry = connection
        self._clock = clock
        self._known_size = lru_cache(_SIZES)(self.size)  # never changes
        self._listed: dict[str, _Holder] = {}  # by the blob's digest; what was seen last, so perhaps too old

    def has(self, digest: str) -> bool:
        """Tell whether the blob is there, whole."""
        path = f"/manifests/{_tag(digest)}"
        return self._registry.send("HEAD", path, good=(200, 404), headers={"accept": _MANIFEST}).status == 200

    def size(self, digest: str) -> int:
        """Return the blob's length in bytes; raises `NotFoundError`."""
        return self._held(digest).size

    def open(self, digest: str) -> BinaryIO:
        """Read the whole blob into memory, for documents; raises `NotFoundError` and `DigestMismatchError`."""
        return io.BytesIO(b"".join(self.pieces(digest)))

    def pieces(self, digest: str, *, start: int = 0, end: int | None = None) -> Iterator[bytes]:
        """Go through the bytes from `start` up to `end`, which is left out, in pieces.

        Raises:
            NotFoundError: it isn't there.
            DigestMismatchError: all of them were asked for, and they are others.
        """
        size = self._known_size(digest)
        end = size if end is None else end
        if (start, end) != (0, size):
            yield from self._part(digest, start, end)
            return
        found, held_back = hashlib.sha256(), b""
        for piece in self._part(digest, 0, size):
            found.update(piece)
            if held_back:
                yield held_back
            held_back = piece
        if f"sha256:{found.hexdigest()}" != digest:
            raise DigestMismatchError(
                f"the registry {self._registry.place} gives other bytes than {digest} names",
                hint="its storage is damaged or was changed: push the model again, and look at the registry",
            )
        yield held_back

    def put(self, data: bytes) -> Digest:
        """Store bytes under their digest; storing them again does nothing."""
        digest = sha256_digest(data)
        if not self.has(digest):
            self._store(digest, lambda: io.BytesIO(data), len(data))
        return digest

    def stored(self) -> Iterator[StoredBlob]:
        """Go through all blobs, in no order."""
        digests = list(self._digests())
        self._listed = {digest: self._listed[digest] for digest in digests if digest in self._listed}
        for digest in digests:
            holder = self._listed.get(digest) or self._holder(digest)
            if holder is not None:  # else taken away meanwhile
                self._listed[digest] = holder
                yield StoredBlob(parse_digest(digest), holder.size, holder.stored_at)

    def remove(self, digest: str, *, before: float) -> bool:
        """Delete the holder of a blob that was stored last before an instant; nothing may refer to the blob.

        Raises:
            DeletesRefusedError: the registry doesn't delete.
        """
        holder = self._holder(digest)
        if holder is None or holder.stored_at >= before:
            return False
        answer = self._registry.send("DELETE", f"/manifests/{holder.digest}", good=(200, 202, 404, *_NO_DELETES))
        if answer.status in _NO_DELETES:
            raise DeletesRefusedError(
                f"the registry {self._registry.place} refuses deletes ({answer.status})",
                hint="allow them there (docker-registry: storage.delete.enabled), and to this account",
            )
        return answer.status != 404

    def check(self) -> None:
        """Raise OSError when nothing can be stored now: an upload is begun there, and given up."""
        self._spool.check()
        try:
            begun = self._registry.send("POST", "/blobs/uploads/", good=(202,))
            self._registry.send("DELETE", self._location(begun), good=range(200, 500))  # not all offer that
        except RegistryStoreError as error:
            raise OSError(error.message) from error

    def close(self) -> None:
        """Let go of connections."""
        self._registry.close()

    def _send(self, digest: str, path: Path) -> None:
        def begun() -> BinaryIO:
            try:
                return path.open("rb")
            except FileNotFoundError as error:  # another upload of the same content was faster
                raise NotFoundError(f"no blob {digest} waits here", digest=digest) from error

        with begun() as file:
            size = file.seek(0, io.SEEK_END)
        former = self._holder(digest)
        self._store(digest, begun, size)
        if former is not None:  # of which nothing is known any more, once its tag names the new one
            self._registry.send("DELETE", f"/manifests/{former.digest}", good=range(200, 500))

    def _store(self, digest: str, begun: _Begin, size: int) -> None:
        """Bring a blob there, then its holder."""
        self._bring(sha256_digest(_EMPTY), lambda: io.BytesIO(_EMPTY), len(_EMPTY))
        self._bring(digest, begun, size)
        raw = _holder_manifest(digest, size, self._clock())
        self._registry.send(
            "PUT", f"/manifests/{_tag(digest)}", good=(200, 201), headers={"content-type": _MANIFEST}, content=raw
        )
        self._listed.pop(digest, None)

    def _bring(self, digest: str, begun: _Begin, size: int) -> None:
        """Send a blob that isn't there in one request, and all of it again when that breaks off."""
        if self._registry.send("HEAD", f"/blobs/{digest}", good=(200, 404)).status == 200:
            return

        def pieces() -> Iterator[bytes]:
            with begun() as file:
                while piece := file.read(_PIECE_BYTES):
                    yield piece

        headers = {"content-type": "application/octet-stream", "content-length": str(size)}
        for last in (False, True):
            location = self._location(self._registry.send("POST", "/blobs/uploads/", good=(202,)))
            joint = "&" if "?" in location else "?"
            address = f"{location}{joint}digest={digest}"
            try:
                self._registry.send(
                    "PUT", address, good=(201,), headers=headers, content=pieces, attempts=1, timeout_s=_UPLOAD_S
                )
            except RegistryAwayError:
                if last:
                    raise
            else:
                return

    def _part(self, digest: str, at: int, end: int) -> Iterator[bytes]:
        """Go through some of a blob's bytes; where a download breaks off, the next begins there."""
        fruitless, path = 0, f"/blobs/{parse_digest(digest)}"
        while at < end:
            before = at
            try:
                wanted_range = {"range": f"bytes={at}-{end - 1}"}
                with self._registry.stream(path, good=(200, 206, 404), headers=wanted_range) as answer:
                    if answer.status_code == 404:
                        raise NotFoundError(f"no blob {digest} is stored here", digest=digest)
                    skipped = 0 if answer.status_code == 206 else at
                    # As they come: pieces of one size would be held back, and lost when the connection breaks.
                    for piece in _without_first(answer.iter_bytes(), skipped):
                        wanted = piece[: end - at]
                        at += len(wanted)
                        yield wanted
                        if at == end:
                            return
                reason = "it ended early"
            except httpx2.TransportError as error:
                reason = str(error) or type(error).__name__
            fruitless = 0 if at > before else fruitless + 1
            if fruitless == _READS:
                raise RegistryAwayError(f"{self._registry.place} breaks off while it gives {digest}: {reason}")

    def _location(self, answer: Answer) -> str:
        location = answer.headers.get("location", "")
        if not location:
            raise RegistryStoreError(f"the registry {self._registry.place} gives no place for an upload (Location)")
        return self._registry.address(location)

    def _digests(self) -> Iterator[str]:
        path = "/tags/list?n=1000"
        while path:
            answer = self._registry.send("GET", path, good=(200, 404))
            if answer.status == 404:  # nothing was ever pushed here
                return
            try:
                tags = json.loads(answer.body)["tags"] or []
            except (ValueError, LookupError, TypeError) as error:
                raise RegistryStoreError(f"{self._registry.place} answers without a list of tags") from error
            yield from (f"sha256:{match[1]}" for match in map(_TAG_RE.fullmatch, map(str, tags)) if match)
            following = _NEXT_RE.search(answer.headers.get("link", ""))
            path = self._registry.address(following[1]) if following else ""

    def _held(self, digest: str) -> _Holder:
        holder = self._holder(digest)
        if holder is None:
            raise NotFoundError(f"no blob {digest} is stored here", digest=digest)
        return holder

    def _holder(self, digest: str) -> _Holder | None:
        path = f"/manifests/{_tag(digest)}"
        answer = self._registry.send("GET", path, good=(200, 404), headers={"accept": _MANIFEST})
        if answer.status == 404:
            return None
        holder = _read_holder(answer.body, digest)
        if holder is None:
            raise RegistryStoreError(
                f"the tag {_tag(digest)} in {self._registry.place} is not what this server wrote there",
                hint="nobody else may write to this repository; delete the tag, then push the model again",
            )
        return holder


def _tag(digest: str) -> str:
    return f"blob-{parse_digest(digest).removeprefix('sha256:')}"


def _holder_manifest(digest: str, size: int, stored_at: float) -> bytes:
    """Return the manifest that holds a blob (OCI image specification 1.1, "Guidelines for Artifact Usage")."""
    document = {
        "schemaVersion": 2,
        "mediaType": _MANIFEST,
        "artifactType": HOLDER_TYPE,
        "config": {"mediaType": _EMPTY_TYPE, "digest": sha256_digest(_EMPTY), "size": len(_EMPTY)},
        "layers": [{"mediaType": "application/octet-stream", "digest": digest, "size": size}],
        "annotations": {STORED_AT: f"{stored_at:.6f}"},
    }
    return canonical_bytes(document)


def _read_holder(raw: bytes, digest: str) -> _Holder | None:
    """Read what `_holder_manifest` wrote for a blob; None where something else came."""
    try:
        document = json.loads(raw)
        (layer,) = document["layers"]
        found = _Holder(sha256_digest(raw), int(layer["size"]), float(document["annotations"][STORED_AT]))
    except (ValueError, LookupError, TypeError):
        return None
    return found if layer["digest"] == digest else None


def _without_first(pieces: Iterator[bytes], skipped: int) -> Iterator[bytes]:
    """Go through pieces without the first bytes, which a registry sends again that knows no Range."""
    for piece in pieces:
        yield piece[skipped:]
        skipped = max(0, skipped - len(piece))
