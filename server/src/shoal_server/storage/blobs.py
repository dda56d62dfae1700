"""Content-addressed blobs: what a digest names is written once, never changed, and checked on its way in.

Owns files and uploads. Leaves to `registry.oci` who may see which blob, and to the database what refers to it.

Invariants:
    - A blob that `has()` answers for is whole, hashes to its name and has reached the disk.
    - An upload survives a restart: its state is its part file; the hash is computed again when it is lost.
    - One thread at a time changes an upload, so that what was compared with the digest is what becomes the blob. Two
      processes don't upload to one folder; others may read blobs and, under the database's lock, remove them.
"""

import hashlib
import os
import secrets
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Protocol

from shoal_protocol.canonical import Digest, parse_digest, sha256_digest
from shoal_protocol.errors import DigestMismatchError, LocalError
from shoal_server.errors import ConflictError, NotFoundError

_CHUNK = 1 << 20


@dataclass(frozen=True)
class StoredBlob:
    """One blob that lies in the store, whether anything refers to it or not."""

    digest: Digest
    size: int
    modified_at: float
    """When it was stored last, seconds since the epoch."""


class DeletesRefusedError(LocalError):
    """A store that others run doesn't let us delete: what nothing refers to stays there."""

    code = "deletes_refused"


class BlobStore(Protocol):
    """What the registry needs of a place for blobs."""

    def has(self, digest: str) -> bool:
        """Tell whether the blob is there, whole."""

    def size(self, digest: str) -> int:
        """Return the blob's length in bytes; raises `NotFoundError`."""

    def open(self, digest: str) -> BinaryIO:
        """Open the blob for reading; raises `NotFoundError`."""

    def local_path(self, digest: str) -> Path | None:
        """Return where the blob lies as a file, None when this store keeps no files; raises `NotFoundError`."""

    def file(self, digest: str) -> AbstractContextManager[Path]:
        """Have the blob as a file of this machine for as long as the block lasts; raises `NotFoundError`."""

    def pieces(self, digest: str, *, start: int = 0, end: int | None = None) -> Iterator[bytes]:
        """Go through the bytes from `start` up to `end`, which is left out, in pieces; raises `NotFoundError`."""

    def put(self, data: bytes) -> Digest:
        """Store bytes under their digest; storing them again does nothing."""

    def begin_upload(self) -> str:
        """Start an upload and return its id."""

    def offset(self, upload: str) -> int:
        """Return how many bytes the upload has; raises `NotFoundError`."""

    def append(self, upload: str, data: bytes, *, offset: int) -> int:
        """Add bytes at `offset`, which must be the upload's present length; returns the new length.

        Raises `ConflictError` on another offset, `NotFoundError` on an unknown upload.
        """

    def finish(self, upload: str, digest: str) -> None:
        """Make the upload the blob `digest`.

        Raises `DigestMismatchError` (the upload is then gone) or `NotFoundError`.
        """

    def abort(self, upload: str) -> None:
        """Forget the upload and its bytes; raises `NotFoundError`."""

    def abandon_uploads(self, *, before: float) -> int:
        """Forget uploads that nobody has added to since `before`, seconds since the epoch; returns how many."""

    def stored(self) -> Iterator[StoredBlob]:
        """Go through all blobs, in no order."""

    def remove(self, digest: str, *, before: float) -> bool:
        """Delete a blob that was stored last before an instant; the caller has made sure that nothing refers to it.

        Returns:
            False when it isn't there, or was stored again meanwhile.

        Raises:
            DeletesRefusedError: this store is somebody else's, who doesn't let us delete.
        """

    def check(self) -> None:
        """Raise OSError when nothing can be stored now."""

    def close(self) -> None:
        """Let go of connections; nothing is asked of the store any more."""


class FolderBlobs:
    """Blobs as files of one folder: `sha256/<hex>`, uploads beside them in `uploads/`.

    Args:
        root: the folder; made when it isn't there.
    """

    def __init__(self, root: Path) -> None:
        self._blobs = root / "sha256"
        self._uploads = root / "uploads"
        for folder in (self._blobs, self._uploads):
            folder.mkdir(parents=True, exist_ok=True)
        self._locks: dict[str, threading.Lock] = {}
        self._hashes: dict[str, tuple[int, hashlib._Hash]] = {}  # upload -> (bytes hashed so far, state)

    def has(self, digest: str) -> bool:
        """Tell whether the blob is there, whole."""
        return self._file(digest).is_file()

    def size(self, digest: str) -> int:
        """Return the blob's length in bytes; raises `NotFoundError`."""
        with _there(digest):
            return self._file(digest).stat().st_size

    def open(self, digest: str) -> BinaryIO:
        """Open the blob for reading; raises `NotFoundError`."""
        with _there(digest):
            return self._file(digest).open("rb")

    def local_path(self, digest: str) -> Path:
        """Return where the blob lies as a file; raises `NotFoundError`."""
        file = self._file(digest)
        with _there(digest):
            file.stat()
        return file

    @contextmanager
    def file(self, digest: str) -> Iterator[Path]:
        """Have the blob as a file of this machine for as long as the block lasts; raises `NotFoundError`."""
        yield self.local_path(digest)

    def pieces(self, digest: str, *, start: int = 0, end: int | None = None) -> Iterator[bytes]:
        """Go through the bytes from `start` up to `end`, which is left out, in pieces; raises `NotFoundError`."""
        left = (self.size(digest) if end is None else end) - start
        with self.open(digest) as file:
            file.seek(start)
            while left > 0 and (piece := file.read(min(left, _CHUNK))):
                left -= len(piece)
                yield piece

    def put(self, data: bytes) -> Digest:
        """Store bytes under their digest; storing them again does nothing."""
        digest = sha256_digest(data)
        if not self.has(digest):
            upload = self.begin_upload()
            self.append(upload, data, offset=0)
            self.finish(upload, digest)
        return digest

    def begin_upload(self) -> str:
        """Start an upload and return its id."""
        upload = secrets.token_hex(16)
        (self._uploads / upload).touch(mode=0o600, exist_ok=False)
        return upload

    def offset(self, upload: str) -> int:
        """Return how many bytes the upload has; raises `NotFoundError`."""
        return self._part(upload).stat().st_size

    def append(self, upload: str, data: bytes, *, offset: int) -> int:
        """Add bytes at `offset`, which must be the upload's present length; returns the new length."""
        with self._held(upload):
            part = self._part(upload)
            length = part.stat().st_size
            if offset != length:
                raise ConflictError(f"upload has {length} bytes, the next ones came for {offset}", offset=length)
            with part.open("ab") as file:
                file.write(data)
            hashed, state = self._hashes.get(upload, (0, hashlib.sha256()))
            if hashed == length:
                state.update(data)
                self._hashes[upload] = (length + len(data), state)
        return length + len(data)

    def finish(self, upload: str, digest: str) -> None:
        """Make the upload the blob `digest`; raises `DigestMismatchError` (the upload is then gone)."""
        expected = parse_digest(digest)
        with self._held(upload):
            part = self._part(upload)
            found = f"sha256:{self._hash(upload, part)}"
            if found != expected:
                part.unlink()
                self._forget(upload)
                raise DigestMismatchError(
                    f"the upload's bytes have digest {found}, expected {expected}", expected=expected, found=found
                )
            with part.open("rb") as file:
                os.fsync(file.fileno())
            part.replace(self._file(expected))
            _sync_folder(self._blobs)
            self._forget(upload)

    def abort(self, upload: str) -> None:
        """Forget the upload and its bytes; raises `NotFoundError`."""
        with self._held(upload):
            self._part(upload).unlink()
            self._forget(upload)

    def abandon_uploads(self, *, before: float) -> int:
        """Forget uploads that nobody has added to since `before`, seconds since the epoch; returns how many."""
        forgotten = 0
        for part in list(self._uploads.iterdir()):
            with suppress(FileNotFoundError), self._lock_of(part.name):  # one may be finished or given up meanwhile
                if part.stat().st_mtime < before:
                    part.unlink()
                    self._forget(part.name)
                    forgotten += 1
        return forgotten

    def stored(self) -> Iterator[StoredBlob]:
        """Go through all blobs, in no order."""
        with os.scandir(self._blobs) as entries:
            for entry in entries:
                with suppress(FileNotFoundError):  # removed meanwhile
                    found = entry.stat()
                    yield StoredBlob(parse_digest(f"sha256:{entry.name}"), found.st_size, found.st_mtime)

    def remove(self, digest: str, *, before: float) -> bool:
        """Delete a blob that was stored last before an instant; the caller has made sure that nothing refers to it."""
        file = self._file(digest)
        try:
            old = file.stat().st_mtime < before
            if old:
                file.unlink()
        except FileNotFoundError:
            return False
        return old

    def check(self) -> None:
        """Raise OSError when nothing can be stored now."""
        probe = self._uploads / f"probe-{secrets.token_hex(8)}"
        try:
            probe.write_bytes(b"shoal")
        finally:
            with suppress(FileNotFoundError):
                probe.unlink()

    def close(self) -> None:
        """Do nothing: files are open only while they are read."""

    @contextmanager
    def _held(self, upload: str) -> Iterator[None]:
        """Keep other threads from changing an upload; who waited then finds that it is gone, if it is."""
        self._part(upload)
        with self._lock_of(upload):
            yield

    def _lock_of(self, upload: str) -> threading.Lock:
        return self._locks.setdefault(upload, threading.Lock())

    def _file(self, digest: str) -> Path:
        return self._blobs / parse_digest(digest).removeprefix("sha256:")

    def _part(self, upload: str) -> Path:
        part = self._uploads / upload
        if not (upload.isalnum() and upload.isascii() and part.is_file()):
            raise NotFoundError("no such upload: it was finished, given up, or never begun")
        return part

    def _hash(self, upload: str, part: Path) -> str:
        hashed, state = self._hashes.get(upload, (0, hashlib.sha256()))
        if hashed != part.stat().st_size:  # begun before a restart
            state = hashlib.sha256()
            with part.open("rb") as file:
                for chunk in _chunks(file):
                    state.update(chunk)
        return state.hexdigest()

    def _forget(self, upload: str) -> None:
        self._hashes.pop(upload, None)
        self._locks.pop(upload, None)


@contextmanager
def _there(digest: str) -> Iterator[None]:
    """Say of a file that is missing which blob that is; another process may remove it at any time."""
    try:
        yield
    except FileNotFoundError as error:
        raise NotFoundError(f"no blob {digest} is stored here", digest=digest) from error


def _chunks(file: BinaryIO) -> Iterator[bytes]:
    while chunk := file.read(_CHUNK):
        yield chunk


def _sync_folder(folder: Path) -> None:
    """Make a rename in `folder` last through a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
