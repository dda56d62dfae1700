"""A bundle's files for reading: from an OCI image layout (folder or ``.tar``) or from blobs by digest.

Invariant: no byte leaves this module that is not what the manifest's digest names; a path inside a bundle is only ever
a key, never a path of this machine. Signatures are not this module's business.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from shoal_protocol.bundle.manifest import ARTIFACT_TYPE, MAX_MANIFEST_BYTES, Descriptor, Manifest, parse_manifest
from shoal_protocol.canonical import parse_digest, sha256_digest
from shoal_protocol.errors import CallerError, ContentError, DigestMismatchError

if TYPE_CHECKING:
    import tarfile

_INDEX = "index.json"
_MAX_INDEX_BYTES = 1024 * 1024
_HINT = "a bundle is what shoal-convert pack writes: an OCI image layout as a folder or a .tar"

ReadBlob = Callable[[str, int], bytes]
"""Takes a digest and the most bytes to return; raises FileNotFoundError when there is none."""


class BundleFiles(msgspec.Struct, frozen=True):
    """The files of one bundle.

    Attributes:
        digest: The bundle's.
        manifest: Parsed, its bytes verified against the digest.
        blob: Where blobs come from; what it gives is verified here.
    """

    digest: str
    manifest: Manifest
    blob: ReadBlob

    def read(self, path: str) -> bytes:
        """Return a file's content, verified.

        Raises:
            ContentError: The bundle has no such file, or lacks its blob.
            DigestMismatchError: The stored bytes are not the signed ones.
        """
        descriptor = self.manifest.files().get(path)
        if descriptor is None:
            raise ContentError(f"the bundle {self.digest} has no file {path!r}")
        return _verified(self.blob, descriptor)

    def has(self, path: str) -> bool:
        """Tell whether the bundle has such a file."""
        return path in self.manifest.files()


def from_blobs(digest: str, blob: ReadBlob) -> BundleFiles:
    """Read a bundle from blobs by digest, its manifest among them.

    Raises:
        ContentError: The manifest is missing or does not parse.
        DigestMismatchError: The manifest is not the one that the digest names.
    """
    return BundleFiles(digest, parse_manifest(_manifest_bytes(parse_digest(digest), blob)), blob)


def from_store(digest: str, manifest: bytes, read: Callable[[str], bytes]) -> BundleFiles:
    """Read a bundle whose manifest is kept apart from its blobs, as in the agent's store.

    Args:
        digest: The bundle's.
        manifest: Its raw bytes.
        read: Takes a blob's digest, returns its bytes.

    Raises:
        ContentError: The manifest does not parse.
        DigestMismatchError: It is not the one that the digest names.
    """
    if sha256_digest(manifest) != digest:
        raise DigestMismatchError(f"the manifest has the digest {sha256_digest(manifest)}, expected {digest}")
    return BundleFiles(digest, parse_manifest(manifest), lambda blob, _most: read(blob))


def open_bundle(path: Path, *, digest: str | None = None) -> BundleFiles:
    """Open an OCI image layout.

    Args:
        path: A folder, or a ``.tar`` (which is read in place and never extracted).
        digest: Which bundle, where the layout holds more than one.

    Raises:
        CallerError: There is nothing there, or several bundles and no digest.
        ContentError: It is no OCI image layout, or its index does not parse.
    """
    if path.is_dir():
        blob = _folder_blobs(path)
        index = _folder_file(path / _INDEX, _MAX_INDEX_BYTES)
    elif path.is_file():
        members = _tar_members(path)
        blob = _tar_blobs(path, members)
        index = _tar_file(path, members.get(_INDEX), _MAX_INDEX_BYTES)
    else:
        raise CallerError(f"there is no bundle at {path}", hint=_HINT)
    if index is None:
        raise ContentError(f"{path} has no {_INDEX}", hint=_HINT)
    return from_blobs(_chosen(index, digest, path), blob)


class _Entry(msgspec.Struct):
    digest: str
    size: int
    artifact_type: str = msgspec.field(default="", name="artifactType")
    """Empty in layouts that other tools wrote; statements about a bundle stand beside it with a type of their own."""


class _Index(msgspec.Struct):
    manifests: list[_Entry]


def _chosen(index: bytes, digest: str | None, path: Path) -> str:
    try:
        entries = msgspec.json.decode(index, type=_Index).manifests
    except (msgspec.DecodeError, RecursionError) as error:
        raise ContentError(f"{path}: {_INDEX} does not parse: {error}", hint=_HINT) from error
    found = [entry.digest for entry in entries if entry.artifact_type in {"", ARTIFACT_TYPE}]
    if digest is not None and digest in found:
        return digest
    if digest is not None or len(found) != 1:
        raise CallerError(f"{path} holds {len(found)} bundles: {', '.join(found[:5])}; expected {digest or 'one'}")
    return found[0]


def _verified(blob: ReadBlob, descriptor: Descriptor) -> bytes:
    try:
        content = blob(descriptor.digest, descriptor.size)
    except FileNotFoundError as error:
        raise ContentError(f"the blob {descriptor.digest} is missing", hint="fetch the bundle again") from error
    if len(content) != descriptor.size or sha256_digest(content) != descriptor.digest:
        raise DigestMismatchError(f"the blob {descriptor.digest} holds other bytes", hint="fetch the bundle again")
    return content


def _manifest_bytes(digest: str, blob: ReadBlob) -> bytes:
    try:
        raw = blob(digest, MAX_MANIFEST_BYTES)
    except FileNotFoundError as error:
        raise ContentError(f"the manifest {digest} is missing", hint=_HINT) from error
    if sha256_digest(raw) != digest:
        raise DigestMismatchError(f"the manifest {digest} holds other bytes", hint="fetch the bundle again")
    return raw


def _blob_name(digest: str) -> str:
    return f"blobs/sha256/{parse_digest(digest).removeprefix('sha256:')}"


def _folder_file(path: Path, most: int) -> bytes | None:
    if not path.is_file():
        return None
    with path.open("rb") as file:
        return file.read(most + 1)


def _folder_blobs(folder: Path) -> ReadBlob:
    def blob(digest: str, most: int) -> bytes:
        content = _folder_file(folder / _blob_name(digest), most)
        if content is None:
            raise FileNotFoundError(digest)
        return content

    return blob


def _tar_members(path: Path) -> dict[str, tarfile.TarInfo]:
    import tarfile  # noqa: PLC0415  (with three compressors; a device reads its store, not archives)

    try:
        with tarfile.open(path, "r:") as tar:
            return {member.name.removeprefix("./"): member for member in tar if member.isreg()}
    except (tarfile.TarError, OSError) as error:
        raise ContentError(f"{path} is no .tar: {error}", hint=_HINT) from error


def _tar_file(path: Path, member: tarfile.TarInfo | None, most: int) -> bytes | None:
    import tarfile  # noqa: PLC0415

    if member is None:
        return None
    with tarfile.open(path, "r:") as tar:
        file = tar.extractfile(member)
        assert file is not None  # only regular files were kept
        with file:
            return file.read(most + 1)


def _tar_blobs(path: Path, members: dict[str, tarfile.TarInfo]) -> ReadBlob:
    def blob(digest: str, most: int) -> bytes:
        content = _tar_file(path, members.get(_blob_name(digest)), most)
        if content is None:
            raise FileNotFoundError(digest)
        return content

    return blob
