"""The content-addressed store of the state folder.

    blobs/<sha256>          one file of a bundle; there only once its hash was checked
    bundles/<sha256>.json   a bundle's manifest, renamed in last: that it is there means that the bundle is whole
    staging/<sha256>.part   a download under way, see `part_file`
    trash/                  what is about to be deleted

Invariant: a name in ``blobs`` or ``bundles`` is the hash of its content, synced to the disk. Damage that comes later is
found by `verify`.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TypeVar

from shoal_agent.adapters.durable import move, put, sync_file, sync_folder
from shoal_agent.adapters.part_file import PartFile
from shoal_agent.errors import tells_of_damage
from shoal_agent.ports import Needed
from shoal_protocol.bundle.manifest import Descriptor, Manifest, parse_manifest
from shoal_protocol.canonical import sha256_digest
from shoal_protocol.errors import ContentError, DigestMismatchError

_CHUNK = 1 << 20
_T = TypeVar("_T")
_log = logging.getLogger(__name__)


def every_blob(manifest: Manifest, _read: Callable[[str], bytes]) -> tuple[Descriptor, ...]:
    """Return all blobs of a bundle."""
    return manifest.blobs()


class FolderBlobStore:
    """The store in a folder; one writer, any number of readers.

    Args:
        folder: The state folder.
        needed: Says which blobs of a bundle this device needs.
    """

    def __init__(self, folder: Path, *, needed: Needed = every_blob) -> None:
        self.folder = folder
        self._needed = needed
        self._blobs, self._bundles, self._staging, self._trash = (
            folder / name for name in ("blobs", "bundles", "staging", "trash")
        )
        for path in (self._blobs, self._bundles, self._staging, self._trash):
            path.mkdir(parents=True, exist_ok=True)

    def path(self, digest: str) -> Path:
        """Return where a blob lies, or would lie."""
        return self._blobs / _name(digest)

    def part(self, digest: str) -> Path:
        """Return where a download of the blob is collected."""
        return self._staging / f"{_name(digest)}.part"

    def has(self, blob: Descriptor) -> bool:
        """Tell whether the blob is stored, in its full length."""
        try:
            return self.path(blob.digest).stat().st_size == blob.size
        except FileNotFoundError:
            return False

    def read(self, digest: str) -> bytes:
        """Return a blob's content.

        Raises:
            FileNotFoundError: It is not stored.
        """
        return self.path(digest).read_bytes()

    def adopt(self, blob: Descriptor) -> None:
        """Take a finished part into the store: hash it from byte 0, sync it, rename it.

        Raises:
            DigestMismatchError: The part is not the blob; it is deleted, so that the next try begins anew.
        """
        part = self.part(blob.digest)
        size, found = part.stat().st_size, _hash_of(part)
        if size != blob.size or found != blob.digest:
            self.discard_part(blob.digest)
            raise DigestMismatchError(
                f"expected {blob.size} bytes with {blob.digest}, got {size} bytes with {found}", digest=blob.digest
            )
        sync_file(part)
        move(part, self.path(blob.digest))
        self.discard_part(blob.digest)

    def put(self, data: bytes) -> str:
        """Store bytes that are at hand; return their digest."""
        digest = sha256_digest(data)
        put(self.path(digest), data)
        return digest

    def discard_part(self, digest: str) -> None:
        """Forget a download under way."""
        PartFile(self.part(digest)).discard()

    def add_bundle(self, raw: bytes) -> str:
        """Declare a bundle whole, by its manifest; return its digest.

        Raises:
            DigestMismatchError: A blob of it that is needed here is not stored.
        """
        for blob in self._needed(parse_manifest(raw), self.read):
            if not self.has(blob):
                raise DigestMismatchError(f"blob {blob.digest} of the bundle is not stored", digest=blob.digest)
        digest = sha256_digest(raw)
        put(self._bundle(digest), raw)
        return digest

    def manifest(self, digest: str) -> Manifest | None:
        """Return a whole bundle's manifest.

        Returns:
            None when the bundle is not stored, or its manifest is damaged.
        """
        try:
            raw = self._bundle(digest).read_bytes()
        except FileNotFoundError:
            return None
        return parse_manifest(raw) if sha256_digest(raw) == digest else None

    def manifest_bytes(self, digest: str) -> bytes:
        """Return a whole bundle's manifest as it was signed.

        Raises:
            FileNotFoundError: The bundle is not stored.
        """
        return self._bundle(digest).read_bytes()

    def bundles(self) -> list[str]:
        """Return the digests of the whole bundles, the newest first."""
        found = sorted(self._bundles.glob("*.json"), key=lambda path: path.stat().st_mtime_ns, reverse=True)
        return [f"sha256:{path.stem}" for path in found]

    def intact(self, digest: str) -> bool:
        """Hash every file of a bundle that is needed here and tell whether all match; a damaged blob is put away.

        Raises:
            OSError: A file can't be read just now, which says nothing about what is in it; nothing was put away.
        """
        try:
            manifest = self._twice(lambda: self.manifest(digest), None)
        except ContentError:
            manifest = None
        if manifest is None:
            return False
        damaged = [blob for blob in self._needed(manifest, self.read) if not self._blob_intact(blob)]
        for blob in damaged:
            _log.error("blob %s of bundle %s is damaged or missing", blob.digest, digest)
            self._bury(self.path(blob.digest))
        return not damaged

    def free_bytes(self) -> int:
        """Return the free room of the disk, bytes."""
        import shutil  # noqa: PLC0415 - 2 ms with its compressors, which a start should not pay

        return shutil.disk_usage(self.folder).free

    def sweep(self, keep: Iterable[str], *, parts: Iterable[str] = ()) -> int:
        """Delete all bundles but some, and every blob that no kept bundle has.

        Args:
            keep: Digests of bundles that stay.
            parts: Digests of blobs whose downloads are under way.

        Returns:
            Number of files deleted.

        Raises:
            OSError: A kept bundle's manifest can't be read just now, so its blobs are not known: nothing was deleted.
        """
        kept = {f"{_name(digest)}.json" for digest in keep}
        gone = [path for path in self._bundles.iterdir() if path.name not in kept]
        used = {blob.digest for path in self._bundles.iterdir() if path.name in kept for blob in _blobs_of(path)}
        names = {_name(digest) for digest in used}
        gone += [path for path in self._blobs.iterdir() if path.name not in names]
        under_way = {_name(digest) for digest in parts}
        gone += [path for path in self._staging.iterdir() if path.name.split(".")[0] not in under_way]
        for path in gone:
            self._bury(path)
        for folder in (self._bundles, self._blobs, self._staging) if gone else ():
            sync_folder(folder)
        self.empty_trash()
        return len(gone)

    def empty_trash(self) -> None:
        """Delete what was put away."""
        for path in self._trash.iterdir():
            path.unlink(missing_ok=True)

    def _bundle(self, digest: str) -> Path:
        return self._bundles / f"{_name(digest)}.json"

    def _blob_intact(self, blob: Descriptor) -> bool:
        return self._twice(lambda: self.has(blob) and _hash_of(self.path(blob.digest)) == blob.digest, False)  # noqa: FBT003

    def _twice(self, read: Callable[[], _T], damaged: _T) -> _T:
        """Return what was read, or `damaged` when the disk fails at it twice: one failure may be a cable's.

        A disk that can't even list the store fails at everything: that says nothing about this file.

        Raises:
            OSError: It can't be read just now.
        """
        for last in (False, True):
            try:
                return read()
            except OSError as error:
                if not tells_of_damage(error):
                    raise
                if last:
                    next(self._blobs.iterdir(), None)
        return damaged

    def _bury(self, path: Path) -> None:
        try:
            path.replace(self._trash / path.name)
        except FileNotFoundError:
            return
        except OSError as error:  # what is damaged is not believed wherever it lies
            _log.warning("%s could not be put away: %s", path, error)


def _blobs_of(path: Path) -> tuple[Descriptor, ...]:
    raw = path.read_bytes()
    try:
        return parse_manifest(raw).blobs()
    except ContentError:
        return ()


def _name(digest: str) -> str:
    return digest.removeprefix("sha256:")


def _hash_of(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    return f"sha256:{digest.hexdigest()}"
