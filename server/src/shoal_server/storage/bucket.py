"""Blobs in an S3-compatible bucket, by obstore: `sha256/<hex>` under the prefix that the URL names.

Owns how blobs get there and back. An upload is collected as `SpooledBlobs` says, and sent in parts if it is large; the
bucket shows an object only when all of it has arrived.

Endpoint, region and keys come from the usual variables (`AWS_ENDPOINT_URL`, `AWS_REGION`, `AWS_ACCESS_KEY_ID`,
`AWS_SECRET_ACCESS_KEY`, and `AWS_ALLOW_HTTP=true` for an endpoint without TLS), which obstore reads itself.

Invariants are those of `blobs` and `spooled`.
"""

import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from shoal_protocol.canonical import Digest, parse_digest, sha256_digest
from shoal_protocol.errors import LocalError
from shoal_server.errors import NotFoundError, StartError
from shoal_server.storage.blobs import StoredBlob
from shoal_server.storage.spooled import SpooledBlobs

if TYPE_CHECKING:
    from obstore.store import ObjectStore

_PART_BYTES = 16 * 1024**2
_PIECE_BYTES = 1024**2


class BucketBlobs(SpooledBlobs):
    """Blobs of one bucket.

    Args:
        url: `s3://bucket/prefix`.
        spool: local folder for uploads that are under way; made when it isn't there.

    Raises:
        StartError: obstore isn't installed, or the URL or the environment doesn't fit.
    """

    def __init__(self, url: str, spool: Path) -> None:
        super().__init__(spool)
        self._store = _connected(url)

    def has(self, digest: str) -> bool:
        """Tell whether the blob is there, whole."""
        try:
            self.size(digest)
        except NotFoundError:
            return False
        return True

    def size(self, digest: str) -> int:
        """Return the blob's length in bytes; raises `NotFoundError`."""
        with _answered(digest):
            return int(self._store.head(_name(digest))["size"])

    def open(self, digest: str) -> BinaryIO:
        """Read the whole blob into memory, for documents; raises `NotFoundError`."""
        with _answered(digest):
            return io.BytesIO(bytes(self._store.get(_name(digest)).bytes()))

    def pieces(self, digest: str, *, start: int = 0, end: int | None = None) -> Iterator[bytes]:
        """Go through the bytes from `start` up to `end`, which is left out, in pieces; raises `NotFoundError`."""
        end = self.size(digest) if end is None else end
        if start >= end:
            return
        with _answered(digest):
            found = self._store.get(_name(digest), options={"range": (start, end)})
            for piece in found.stream(min_chunk_size=_PIECE_BYTES):
                yield bytes(piece)

    def put(self, data: bytes) -> Digest:
        """Store bytes under their digest; storing them again does nothing."""
        digest = sha256_digest(data)
        if not self.has(digest):
            with _answered(digest):
                self._store.put(_name(digest), data)
        return digest

    def _send(self, digest: str, path: Path) -> None:
        with _answered(digest):
            self._store.put(_name(digest), path, chunk_size=_PART_BYTES)

    def stored(self) -> Iterator[StoredBlob]:
        """Go through all blobs, in no order."""
        with _answered("of the list"):
            for page in self._store.list("sha256/"):
                for meta in page:
                    digest = parse_digest(f"sha256:{meta['path'].rpartition('/')[2]}")
                    yield StoredBlob(digest, meta["size"], meta["last_modified"].timestamp())

    def remove(self, digest: str, *, before: float) -> bool:
        """Delete a blob that was stored last before an instant; the caller has made sure that nothing refers to it."""
        try:
            with _answered(digest):
                old = self._store.head(_name(digest))["last_modified"].timestamp() < before
                if old:
                    self._store.delete(_name(digest))
        except NotFoundError:
            return False
        return old

    def check(self) -> None:
        """Raise OSError when nothing can be stored now."""
        self._spool.check()
        try:
            with _answered("of the check"):
                self._store.put("probe", b"shoal")
        except LocalError as error:
            raise OSError(error.message) from error


def _connected(url: str) -> "ObjectStore":
    try:
        from obstore.store import from_url  # noqa: PLC0415 - an extra
    except ImportError as error:
        raise StartError("a bucket needs the package obstore", hint="pip install 'shoal-server[s3]'") from error
    try:
        return from_url(url)
    except Exception as error:
        raise StartError(
            f"{url} can't be used: {error}", hint="see AWS_ENDPOINT_URL, AWS_REGION and the keys"
        ) from error


@contextmanager
def _answered(digest: str) -> Iterator[None]:
    """Turn what the bucket answers into errors that say what is wrong."""
    from obstore.exceptions import BaseError  # noqa: PLC0415 - an extra

    try:
        yield
    except (FileNotFoundError, BaseError) as error:
        if isinstance(error, FileNotFoundError) and "NoSuchBucket" not in str(error):
            raise NotFoundError(f"no blob {digest} is stored here", digest=digest) from error
        what = " ".join(str(error).split())[:300]
        raise LocalError(
            f"the bucket doesn't do what is asked: {what}",
            hint="is it there, and may we write? see AWS_ENDPOINT_URL, AWS_REGION and the keys",
        ) from error


def _name(digest: str) -> str:
    return f"sha256/{parse_digest(digest).removeprefix('sha256:')}"
