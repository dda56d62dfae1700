"""Blobs in an S3-compatible bucket, by obstore: `sha256/<hex>` under the prefix that the URL names.

Owns how blobs get there and back. An upload is collected in a local folder, as `FolderBlobs` does, and sent when it is
whole and its digest was checked, in parts if it is large; the bucket shows an object only when all of it has arrived.
So several servers may share a bucket, while each upload stays with the server that began it.

Endpoint, region and keys come from the usual variables (`AWS_ENDPOINT_URL`, `AWS_REGION`, `AWS_ACCESS_KEY_ID`,
`AWS_SECRET_ACCESS_KEY`, and `AWS_ALLOW_HTTP=true` for an endpoint without TLS), which obstore reads itself.

Invariants are those of `blobs`. The local folder holds nothing that the bucket lacks for longer than one `finish`.
"""

import io
import math
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from shoal_protocol.canonical import Digest, parse_digest, sha256_digest
from shoal_protocol.errors import LocalError
from shoal_server.errors import NotFoundError, StartError
from shoal_server.storage.blobs import FolderBlobs, StoredBlob

if TYPE_CHECKING:
    from obstore.store import ObjectStore

_PART_BYTES = 16 * 1024**2
_PIECE_BYTES = 1024**2


class BucketBlobs:
    """Blobs of one bucket.

    Args:
        url: `s3://bucket/prefix`.
        spool: local folder for uploads that are under way; made when it isn't there.

    Raises:
        StartError: obstore isn't installed, or the URL or the environment doesn't fit.
    """

    def __init__(self, url: str, spool: Path) -> None:
        self._store = _connected(url)
        self._spool = FolderBlobs(spool)

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

    def local_path(self, digest: str) -> Path | None:  # noqa: ARG002 - as the protocol says
        """Return None: nothing of a bucket lies here as a file."""
        return None

    @contextmanager
    def file(self, digest: str) -> Iterator[Path]:
        """Have the blob as a file of this machine for as long as the block lasts; raises `NotFoundError`."""
        with tempfile.NamedTemporaryFile(prefix="shoal-blob-") as file:
            for piece in self.pieces(digest):
                file.write(piece)
            file.flush()
            yield Path(file.name)

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

    def begin_upload(self) -> str:
        """Start an upload and return its id."""
        return self._spool.begin_upload()

    def offset(self, upload: str) -> int:
        """Return how many bytes the upload has; raises `NotFoundError`."""
        return self._spool.offset(upload)

    def append(self, upload: str, data: bytes, *, offset: int) -> int:
        """Add bytes at `offset`, which must be the upload's present length; returns the new length."""
        return self._spool.append(upload, data, offset=offset)

    def finish(self, upload: str, digest: str) -> None:
        """Make the upload the blob `digest`; raises `DigestMismatchError` (the upload is then gone)."""
        self._spool.finish(upload, digest)
        try:
            with self._spool.file(digest) as path, _answered(digest):
                self._store.put(_name(digest), path, chunk_size=_PART_BYTES)
        except NotFoundError:  # another upload of the same content was faster, and has cleared it away
            if not self.has(digest):
                raise
        finally:
            self._spool.remove(digest, before=math.inf)

    def abort(self, upload: str) -> None:
        """Forget the upload and its bytes; raises `NotFoundError`."""
        self._spool.abort(upload)

    def abandon_uploads(self, *, before: float) -> int:
        """Forget uploads that nobody has added to since `before`, seconds since the epoch; returns how many."""
        for left in list(self._spool.stored()):  # a server was killed before it had sent them
            self._spool.remove(left.digest, before=before)
        return self._spool.abandon_uploads(before=before)

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
            f"the bucket doesn't do what is asked: {what}", hint="is it there, and may we write?"
        ) from error


def _name(digest: str) -> str:
    return f"sha256/{parse_digest(digest).removeprefix('sha256:')}"
