"""From a bundle's files to its manifest."""

from __future__ import annotations

from collections.abc import Mapping

from shoal_protocol.bundle.layout import FILEPATH_ANNOTATION, TITLE_ANNOTATION, media_type_for, safe_path
from shoal_protocol.bundle.manifest import CONFIG_MEDIA_TYPE, Descriptor, Manifest
from shoal_protocol.canonical import sha256_digest


def build_manifest(
    files: Mapping[str, bytes], *, config: bytes, annotations: Mapping[str, str] | None = None
) -> Manifest:
    """Describe files as one raw layer each, ordered by path so that the digest does not depend on the caller.

    Args:
        files: Path inside the bundle -> content.
        config: The ModelPack config document.
        annotations: Of the manifest; only facts that are equal for equal inputs (no time, host or user).

    Raises:
        ContentError: A path is not safe.
    """
    layers = tuple(
        Descriptor(
            media_type_for(safe_path(path)),
            sha256_digest(files[path]),
            len(files[path]),
            {FILEPATH_ANNOTATION: path, TITLE_ANNOTATION: path},
        )
        for path in sorted(files)
    )
    described = Descriptor(CONFIG_MEDIA_TYPE, sha256_digest(config), len(config))
    return Manifest(described, layers, dict(annotations or {}))
