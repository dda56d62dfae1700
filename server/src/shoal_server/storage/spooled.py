"""Blobs that lie elsewhere: uploads are collected in a folder here, and sent on when they are whole.

Owns what every store beyond this machine has in common. An upload is collected as `FolderBlobs` does; its digest is
checked here, and only then is it sent. Nothing of the store lies here as a file.

Invariant: the local folder holds nothing that the store lacks for longer than one `finish`.
"""

import math
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from shoal_server.errors import NotFoundError
from shoal_server.storage.blobs import FolderBlobs


class SpooledBlobs(ABC):
    """The part of a `BlobStore` that uploads are; who derives it says how blobs get there and back.

    Args:
        spool: local folder for uploads that are under way; made when it isn't there.
    """

    def __init__(self, spool: Path) -> None:
        self._spool = FolderBlobs(spool)

    @abstractmethod
    def has(self, digest: str) -> bool:
        """Tell whether the blob is there, whole."""

    @abstractmethod
    def pieces(self, digest: str, *, start: int = 0, end: int | None = None) -> Iterator[bytes]:
        """Go through the bytes from `start` up to `end`, which is left out, in pieces; raises `NotFoundError`."""

    @abstractmethod
    def _send(self, digest: str, path: Path) -> None:
        """Store a file whose bytes have this digest; storing them again notes that they were stored now."""

    def local_path(self, digest: str) -> Path | None:  # noqa: ARG002 - as the protocol says
        """Return None: nothing of the store lies here as a file."""
        return None

    @contextmanager
    def file(self, digest: str) -> Iterator[Path]:
        """Have the blob as a file of this machine for as long as the block lasts; raises `NotFoundError`."""
        with tempfile.NamedTemporaryFile(prefix="shoal-blob-") as file:
            for piece in self.pieces(digest):
                file.write(piece)
            file.flush()
            yield Path(file.name)

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
            with self._spool.file(digest) as path:
                self._send(digest, path)
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

    def close(self) -> None:  # noqa: B027 - not every store has any
        """Let go of connections."""
