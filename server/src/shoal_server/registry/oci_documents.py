"""Manifests as the OCI distribution API sees them: any artifact, not only models. Pure.

Owns which fields the registry looks at. A manifest's bytes are stored and served as they came.
"""

from dataclasses import dataclass, field

import msgspec

from shoal_protocol.bundle.manifest import ARTIFACT_TYPE
from shoal_protocol.canonical import DIGEST_RE
from shoal_server.registry.refusals import RefusedError

MAX_BYTES = 4 * 1024**2
"""The least that the specification asks registries to accept."""

MANIFEST_TYPES = frozenset(
    {
        "application/vnd.oci.image.manifest.v1+json",
        "application/vnd.oci.image.index.v1+json",
        "application/vnd.docker.distribution.manifest.v2+json",
        "application/vnd.docker.distribution.manifest.list.v2+json",
    }
)


class _Descriptor(msgspec.Struct, rename="camel"):
    digest: str
    size: int
    media_type: str = ""


class _Document(msgspec.Struct, rename="camel"):
    schema_version: int
    media_type: str = ""
    artifact_type: str = ""
    config: _Descriptor | None = None
    layers: list[_Descriptor] = []
    manifests: list[_Descriptor] = []
    subject: _Descriptor | None = None
    annotations: dict[str, str] = {}


@dataclass(frozen=True)
class OciDocument:
    """What the registry needs to know of a manifest."""

    media_type: str
    artifact_type: str
    blobs: tuple[str, ...]
    """Digests of config and layers, which must be in the repository."""
    manifests: tuple[str, ...]
    """Digests of the manifests that an index lists, which must be in the repository."""
    subject: str | None
    annotations: dict[str, str] = field(default_factory=dict)

    @property
    def is_model(self) -> bool:
        """Whether it says that it is a bundle."""
        return self.artifact_type == ARTIFACT_TYPE


def parse_document(raw: bytes, media_type: str) -> OciDocument:
    """Parse a manifest from hostile bytes.

    Args:
        raw: the body.
        media_type: the request's Content-Type.

    Raises:
        RefusedError: it is no manifest, or says another type than the request.
    """
    try:
        document = msgspec.json.decode(raw, type=_Document)
    except (msgspec.DecodeError, RecursionError) as error:
        raise RefusedError("manifest", f"this is no OCI manifest: {error}") from error
    media_type = media_type or document.media_type
    if media_type not in MANIFEST_TYPES:
        raise RefusedError("manifest", f"expected an OCI or Docker manifest, got the media type {media_type!r:.100}")
    if document.media_type not in {"", media_type}:
        raise RefusedError(
            "manifest", f"Content-Type is {media_type}, but mediaType in it is {document.media_type!r:.100}"
        )
    config = [] if document.config is None else [document.config]
    blobs = tuple(part.digest for part in (*config, *document.layers))
    manifests = tuple(part.digest for part in document.manifests)
    subject = None if document.subject is None else document.subject.digest
    for digest in (*blobs, *manifests, *([subject] if subject else [])):
        if DIGEST_RE.fullmatch(digest) is None:
            raise RefusedError("manifest", f"expected a sha256 digest, got {digest!r:.100}", oci_code="DIGEST_INVALID")
    artifact_type = document.artifact_type or (document.config.media_type if document.config else "")
    return OciDocument(media_type, artifact_type, blobs, manifests, subject, document.annotations)
