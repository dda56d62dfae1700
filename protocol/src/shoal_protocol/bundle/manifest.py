"""A bundle's manifest: an OCI image manifest in canonical JSON, whose digest is the bundle's true name.

Owns the document and its rules (OCI image specification 1.1, CNCF ModelPack media types); `layout` owns which files a
bundle has. What a peer sends is parsed here once and never re-serialised: the digest is over the raw bytes.
"""

from __future__ import annotations

from typing import Any

import msgspec

from shoal_protocol.bundle.layout import FILEPATH_ANNOTATION, safe_path
from shoal_protocol.canonical import canonical_bytes, parse_digest
from shoal_protocol.errors import ContentError

MANIFEST_MEDIA_TYPE = "application/vnd.oci.image.manifest.v1+json"
ARTIFACT_TYPE = "application/vnd.cncf.model.manifest.v1+json"
CONFIG_MEDIA_TYPE = "application/vnd.cncf.model.config.v1+json"

MAX_MANIFEST_BYTES = 256 * 1024
MAX_LAYERS = 512
MAX_BLOB_BYTES = 16 * 1024**3


class Descriptor(msgspec.Struct, frozen=True):
    """One blob of a bundle: what it is, its digest, its exact size in bytes."""

    media_type: str
    digest: str
    size: int
    annotations: dict[str, str] = msgspec.field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        """Return the OCI descriptor."""
        document: dict[str, Any] = {"mediaType": self.media_type, "digest": self.digest, "size": self.size}
        if self.annotations:
            document["annotations"] = dict(self.annotations)
        return document


class Manifest(msgspec.Struct, frozen=True):
    """A parsed manifest."""

    config: Descriptor
    layers: tuple[Descriptor, ...]
    annotations: dict[str, str] = msgspec.field(default_factory=dict)

    def files(self) -> dict[str, Descriptor]:
        """Return each file's path and its descriptor, in the order of the layers."""
        return {layer.annotations[FILEPATH_ANNOTATION]: layer for layer in self.layers}

    def blobs(self) -> tuple[Descriptor, ...]:
        """Return the config and the layers."""
        return (self.config, *self.layers)

    @property
    def total_bytes(self) -> int:
        """Size of the whole bundle without the manifest itself."""
        return sum(blob.size for blob in {blob.digest: blob for blob in self.blobs()}.values())


def encode_manifest(manifest: Manifest) -> bytes:
    """Return the manifest's canonical bytes; their sha256 is the bundle's digest."""
    document: dict[str, Any] = {
        "schemaVersion": 2,
        "mediaType": MANIFEST_MEDIA_TYPE,
        "artifactType": ARTIFACT_TYPE,
        "config": manifest.config.as_json(),
        "layers": [layer.as_json() for layer in manifest.layers],
    }
    if manifest.annotations:
        document["annotations"] = dict(manifest.annotations)
    return canonical_bytes(document)


class _Descriptor(msgspec.Struct, rename="camel"):
    media_type: str
    digest: str
    size: int
    annotations: dict[str, str] = {}


class _Manifest(msgspec.Struct, rename="camel"):
    schema_version: int
    config: _Descriptor
    layers: list[_Descriptor]
    artifact_type: str = ""
    annotations: dict[str, str] = {}


def parse_manifest(raw: bytes) -> Manifest:
    """Parse a bundle's manifest from hostile bytes.

    Raises:
        ContentError: It is too large, no OCI image manifest of a model, or a layer breaks a rule.
    """
    if len(raw) > MAX_MANIFEST_BYTES:
        raise ContentError(f"the manifest has {len(raw)} bytes, at most {MAX_MANIFEST_BYTES} are allowed")
    try:
        document = msgspec.json.decode(raw, type=_Manifest)
    except (msgspec.DecodeError, RecursionError) as error:
        raise ContentError(f"this is no OCI image manifest: {error}") from error
    if document.schema_version != 2 or document.artifact_type != ARTIFACT_TYPE:
        raise ContentError(
            f"expected schemaVersion 2 and artifactType {ARTIFACT_TYPE}, "
            f"got {document.schema_version} and {document.artifact_type!r:.100}"
        )
    if len(document.layers) > MAX_LAYERS:
        raise ContentError(f"the manifest has {len(document.layers)} layers, at most {MAX_LAYERS} are allowed")
    layers = tuple(_descriptor(layer) for layer in document.layers)
    _check_paths(layers)
    return Manifest(_descriptor(document.config), layers, document.annotations)


def _descriptor(parsed: _Descriptor) -> Descriptor:
    if not 0 <= parsed.size <= MAX_BLOB_BYTES:
        raise ContentError(f"blob {parsed.digest:.80} has size {parsed.size}, expected 0 to {MAX_BLOB_BYTES}")
    return Descriptor(parsed.media_type, parse_digest(parsed.digest), parsed.size, parsed.annotations)


def _check_paths(layers: tuple[Descriptor, ...]) -> None:
    seen: set[str] = set()
    for layer in layers:
        path = layer.annotations.get(FILEPATH_ANNOTATION)
        if path is None:
            raise ContentError(f"layer {layer.digest} has no annotation {FILEPATH_ANNOTATION}")
        safe_path(path)
        if path.casefold() in seen:
            raise ContentError(f"the path {path!r} stands twice in the manifest")
        seen.add(path.casefold())
