"""What says something about a bundle: found, and pushed so that clients find it, by the referrers API or a tag.

A registry that knows of referrers answers with `OCI-Subject` and lists them itself. In one that doesn't, such as
docker-registry 2.8, the client keeps an index of them under the tag `sha256-<hex>` (OCI distribution specification 1.1,
"Referrers Tag Schema").
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from shoal_converter.registry import INDEX_MEDIA_TYPE, Registry
from shoal_protocol.bundle.manifest import MANIFEST_MEDIA_TYPE
from shoal_protocol.canonical import canonical_bytes, sha256_digest


def listed_referrers(registry: Registry, name: str, subject: str) -> list[dict[str, Any]]:
    """Return the descriptors of what a registry lists as saying something about a manifest."""
    document = registry.json(f"/v2/{name}/referrers/{subject}")
    if document is None:
        document = json.loads(registry.index(name, _tag(subject)) or b"{}")
    entries = document.get("manifests") if isinstance(document, dict) else None
    return [entry for entry in entries or [] if isinstance(entry, dict)]


def push_referrers(registry: Registry, name: str, subject: str, referrers: Iterable[bytes]) -> None:
    """Send manifests that say something about another one, whose blobs are there already.

    Args:
        registry: Where to.
        name: The repository.
        subject: Digest of what they speak about.
        referrers: Raw manifests.
    """
    unlisted = [raw for raw in referrers if not registry.put_referrer(name, raw)]
    if not unlisted:
        return
    raw = registry.index(name, _tag(subject))
    merged = index_with(raw, unlisted)
    if merged != raw:
        registry.put_manifest(name, _tag(subject), merged, media_type=INDEX_MEDIA_TYPE)


def _tag(subject: str) -> str:
    return subject.replace(":", "-")


def index_with(raw: bytes | None, referrers: Iterable[bytes]) -> bytes:
    """Return an index with manifests added to those that it lists; what is listed already stays as it is.

    >>> json.loads(index_with(None, [b'{"artifactType": "text/plain"}']))["manifests"][0]["artifactType"]
    'text/plain'
    """
    document: dict[str, Any] = json.loads(raw) if raw else {"schemaVersion": 2, "mediaType": INDEX_MEDIA_TYPE}
    listed: list[dict[str, Any]] = list(document.get("manifests") or [])
    known = {entry.get("digest") for entry in listed}
    listed += [_entry(one) for one in referrers if sha256_digest(one) not in known]
    return canonical_bytes({**document, "manifests": listed})


def _entry(raw: bytes) -> dict[str, Any]:
    document = json.loads(raw)
    entry: dict[str, Any] = {"mediaType": MANIFEST_MEDIA_TYPE, "digest": sha256_digest(raw), "size": len(raw)}
    kind = document.get("artifactType") or (document.get("config") or {}).get("mediaType")
    extra = {"artifactType": kind, "annotations": document.get("annotations")}
    return entry | {key: value for key, value in extra.items() if value}
