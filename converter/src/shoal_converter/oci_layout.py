"""Bundles on disk: an OCI image layout, as a folder or as a tar of it.

Owns reading and writing (OCI image layout 1.0.0). A written tar is the same for the same bundle: entries sorted, times,
owners and modes fixed. What is read is hostile: only regular files of the layout are looked at, sizes are bounded, and
every blob must have the digest that names it.
"""

from __future__ import annotations

import io
import json
import re
import tarfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from shoal_converter.errors import OutputExistsError, SignatureError, SourceError
from shoal_protocol.bundle.manifest import ARTIFACT_TYPE, MANIFEST_MEDIA_TYPE
from shoal_protocol.canonical import canonical_bytes, parse_digest, sha256_digest
from shoal_protocol.errors import ContentError

REF_ANNOTATION = "org.opencontainers.image.ref.name"
_REF_RE = re.compile(r"[a-z0-9._-]+(?::[0-9][A-Za-z0-9._-]*|@[a-z0-9:_-]+)")
"""What looks like `name:1.4.0` or `name@champion`."""

_LAYOUT_FILE = "oci-layout"
_INDEX_FILE = "index.json"
_LAYOUT = b'{"imageLayoutVersion":"1.0.0"}'
_MOST_BYTES = 4 * 1024**3
_MOST_INDEX_BYTES = 1024**2

Read = Callable[[str, int], bytes]
"""Returns a file of the layout, at most so many bytes of it."""


@dataclass(frozen=True)
class Layout:
    """The content of an OCI image layout that holds one bundle.

    Attributes:
        version: The tag of the bundle.
        manifest: Raw bytes of the bundle's manifest.
        referrers: Raw manifests that refer to it.
        blobs: Every other blob by digest.
    """

    version: str
    manifest: bytes
    referrers: tuple[bytes, ...]
    blobs: Mapping[str, bytes]


def layout_files(layout: Layout) -> dict[str, bytes]:
    """Return every file of the layout by its path."""
    entries = [_entry(layout.manifest, {REF_ANNOTATION: layout.version}, ARTIFACT_TYPE)]
    entries += [_entry(raw, {}, json.loads(raw).get("artifactType", "")) for raw in layout.referrers]
    blobs = dict(layout.blobs)
    for raw in (layout.manifest, *layout.referrers):
        blobs[sha256_digest(raw)] = raw
    files = {f"blobs/sha256/{digest.split(':')[1]}": blobs[digest] for digest in blobs}
    files[_LAYOUT_FILE] = _LAYOUT
    files[_INDEX_FILE] = canonical_bytes(
        {"schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json", "manifests": entries}
    )
    return dict(sorted(files.items()))


def _entry(raw: bytes, annotations: dict[str, str], artifact_type: str) -> dict[str, Any]:
    entry: dict[str, Any] = {
        "mediaType": MANIFEST_MEDIA_TYPE,
        "artifactType": artifact_type,
        "digest": sha256_digest(raw),
        "size": len(raw),
    }
    return entry | ({"annotations": annotations} if annotations else {})


def write_layout(layout: Layout, path: Path, *, force: bool = False) -> None:
    """Write a folder, or a tar when the path ends in ``.tar``; never half of one.

    Args:
        layout: What to write.
        path: A new folder or file; its parent is made.
        force: Replace what is there, if it is an OCI layout or a tar.

    Raises:
        OutputExistsError: Something is there.
    """
    check_free(path, force=force)
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".tar":
        partial = path.with_name(path.name + ".part")
        partial.write_bytes(_tar(layout_files(layout)))
        partial.replace(path)
        return
    for name, content in layout_files(layout).items():
        target = path / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content)


def check_free(path: Path, *, force: bool) -> None:
    """Refuse a place where something is that `write_layout` would not replace.

    Raises:
        OutputExistsError: Something is there.
    """
    if path.exists() and not force:
        raise OutputExistsError(f"{path} exists", hint="choose another -o, or replace it with --force")
    if path.exists() and path.is_dir() and any(path.iterdir()) and not (path / _LAYOUT_FILE).is_file():
        raise OutputExistsError(f"{path} is a folder with other files in it", hint="choose another -o")


def _tar(files: Mapping[str, bytes]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            entry.mode = 0o644
            archive.addfile(entry, io.BytesIO(content))
    return out.getvalue()


def read_layout(path: Path) -> Layout:
    """Read a folder or tar.

    Raises:
        SourceError: There is no OCI layout at the path.
        SignatureError: A blob is not the one that its digest names.
        ContentError: The layout holds no bundle, or is too large.
    """
    if not path.exists():
        raise SourceError(f"there is nothing at {path}", hint=_what_to_give(path))
    with _folder_reader(path) if path.is_dir() else _tar_reader(path) as read:
        return _read(read)


def _what_to_give(path: Path) -> str:
    """Say what a missing path was probably meant to be: a reference, or one of the bundles beside it."""
    if _REF_RE.fullmatch(str(path)):
        name = str(path).replace(":", "-", 1) + ".tar"
        have = f"that bundle may be {name}" if Path(name).is_file() else f"fetch it first: shoal-convert pull {path}"
        return f"{path} is a reference, and a file is wanted here; {have}"
    near = sorted(one.name for one in path.parent.glob("*.tar")) if path.parent.is_dir() else []
    return "give a bundle's folder or .tar" + (f"; {path.parent} has {', '.join(near[:5])}" if near else "")


def _read(read: Read) -> Layout:
    index = _json(read(_INDEX_FILE, _MOST_INDEX_BYTES), "index.json")
    entries = index.get("manifests")
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise ContentError("index.json names no manifests")
    untyped = [entry for entry in entries if not entry.get("artifactType")]  # as other tools write them
    bundles = [entry for entry in entries if entry.get("artifactType") == ARTIFACT_TYPE] or untyped
    if len(bundles) != 1:
        raise ContentError(f"the layout holds {len(bundles)} bundles, expected exactly one")
    manifest = _blob(read, str(bundles[0].get("digest")), _MOST_INDEX_BYTES)
    others = [entry for entry in entries if entry is not bundles[0]]
    referrers = tuple(_blob(read, str(entry.get("digest")), _MOST_INDEX_BYTES) for entry in others)
    blobs: dict[str, bytes] = {}
    left = _MOST_BYTES
    for raw in (manifest, *referrers):
        for digest in _named_blobs(raw):
            if digest not in blobs:
                blobs[digest] = _blob(read, digest, left)
                left -= len(blobs[digest])
    annotations = bundles[0].get("annotations") or {}
    return Layout(str(annotations.get(REF_ANNOTATION, "")), manifest, referrers, blobs)


def _named_blobs(raw: bytes) -> list[str]:
    document = _json(raw, "a manifest")
    entries = [document.get("config"), *(document.get("layers") or [])]
    return [str(entry.get("digest")) for entry in entries if isinstance(entry, dict)]


def _json(raw: bytes, what: str) -> dict[str, Any]:
    try:
        document = json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise ContentError(f"{what} is no JSON: {error}") from error
    if not isinstance(document, dict):
        raise ContentError(f"{what} is no JSON object")
    return document


def _blob(read: Read, digest: str, most: int) -> bytes:
    name = parse_digest(digest).split(":")[1]
    raw = read(f"blobs/sha256/{name}", most)
    found = sha256_digest(raw)
    if found != digest:
        raise SignatureError(
            f"the blob {digest} has been changed: its bytes have digest {found}",
            hint="fetch the bundle again; do not use this copy",
        )
    return raw


@contextmanager
def _folder_reader(path: Path) -> Iterator[Read]:
    def read(name: str, most: int) -> bytes:
        target = path / name
        if target.is_symlink() or not target.is_file():
            raise _absent(path, name)
        if target.stat().st_size > most:
            raise ContentError(f"{name} has more than {most} bytes")
        return target.read_bytes()

    yield read


@contextmanager
def _tar_reader(path: Path) -> Iterator[Read]:
    with ExitStack() as stack:
        try:
            archive = stack.enter_context(tarfile.open(path, mode="r:"))
            members = {member.name.removeprefix("./"): member for member in archive if member.isreg()}
        except (tarfile.TarError, OSError, EOFError) as error:
            hint = "give a bundle's folder or .tar; a trained model becomes one by shoal-convert pack"
            raise SourceError(f"{path} is no tar of a bundle: {error}", hint=hint) from error

        def read(name: str, most: int) -> bytes:
            member = members.get(name)
            if member is None:
                raise _absent(path, name)
            if member.size > most:
                raise ContentError(f"{name} has more than {most} bytes")
            content = archive.extractfile(member)
            return b"" if content is None else content.read()

        yield read


def _absent(path: Path, name: str) -> ContentError:
    return ContentError(f"{path} has no file {name}", hint="a bundle is an OCI image layout; was it packed completely?")
