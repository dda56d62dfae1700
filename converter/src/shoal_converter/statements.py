"""The statements beside a bundle, to and from a registry.

Owns which of them a registry lacks, and which of what it lists are fetched. Nothing depends on them: a registry that
takes or gives none is no failure. Who may push may state anything; only an OMS signature says who did.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from shoal_converter.bundle import SIGNATURE_MEDIA_TYPE, STATEMENT_MEDIA_TYPE, Bundle
from shoal_converter.errors import RegistryRefusedError, SignatureError
from shoal_converter.referrers import listed_referrers, push_referrers
from shoal_converter.registry import Registry
from shoal_protocol.canonical import DIGEST_RE, sha256_digest

_MOST_REFERRERS = 100
_MOST_BYTES = 16 * 1024**2
_KINDS = frozenset({STATEMENT_MEDIA_TYPE, SIGNATURE_MEDIA_TYPE})


@dataclass(frozen=True)
class SentStatements:
    """What became of a bundle's statements.

    Attributes:
        sent: Names of those that the registry lacked.
        already_there: Names of those that it had.
        taken: Whether it takes any.
    """

    sent: tuple[str, ...] = ()
    already_there: tuple[str, ...] = ()
    taken: bool = True


def split_statements(registry: Registry, bundle: Bundle) -> SentStatements:
    """Tell which statements a registry lacks; nothing is sent."""
    listed = {entry.get("digest") for entry in listed_referrers(registry, bundle.info.name, bundle.digest)}
    there = {name: sha256_digest(raw) in listed for name, raw in _named_referrers(bundle).items()}
    return SentStatements(
        tuple(name for name, known in there.items() if not known), tuple(name for name, known in there.items() if known)
    )


def push_statements(registry: Registry, bundle: Bundle, tell: Callable[[str], None]) -> SentStatements:
    """Send the statements that a registry lacks.

    Args:
        registry: Where the bundle is already.
        bundle: What they are about.
        tell: Called with one line for each.
    """
    name = bundle.info.name
    try:
        found = split_statements(registry, bundle)
        missing = [raw for title, raw in _named_referrers(bundle).items() if title in found.sent]
        blobs = bundle.layout().blobs
        for digest in dict.fromkeys(digest for raw in missing for digest in _parts(json.loads(raw))):
            if not registry.has_blob(name, digest):
                registry.upload(name, blobs[digest], sent=lambda _: None)
        push_referrers(registry, name, bundle.digest, missing)
    except RegistryRefusedError as error:
        tell(f"statements  not taken by the registry: {error.message}")
        return SentStatements(taken=False)
    for title in sorted(bundle.statements):
        tell(f"statement {title}  {'sent' if title in found.sent else 'already there'}")
    return found


def pull_statements(
    registry: Registry, name: str, subject: str, tell: Callable[[str], None]
) -> tuple[tuple[bytes, ...], dict[str, bytes]]:
    """Fetch the statements about a bundle, with every digest checked.

    Args:
        registry: Where it is.
        name: The repository.
        subject: The bundle's digest.
        tell: Called with one line for each, and for what isn't given.

    Returns:
        Their manifests, and the blobs that these name.

    Raises:
        RegistryError: The registry can't be reached.
        SignatureError: It sent other bytes than a digest names.
    """
    raws: list[bytes] = []
    blobs: dict[str, bytes] = {}
    for entry in listed_referrers(registry, name, subject)[:_MOST_REFERRERS]:
        digest = str(entry.get("digest"))
        if entry.get("artifactType") not in _KINDS or DIGEST_RE.fullmatch(digest) is None:
            continue
        try:
            raw = _manifest(registry, name, digest)
            document = json.loads(raw)
            if (document.get("subject") or {}).get("digest") != subject:
                raise RegistryRefusedError(f"{digest} speaks of another manifest")
            fetched = {part: registry.blob(name, part, size=_MOST_BYTES) for part in _parts(document)}
        except (RegistryRefusedError, ValueError, AttributeError, LookupError, TypeError) as error:
            tell(f"statement {digest[:19]}…  left out: {error}")
            continue
        raws.append(raw)
        blobs |= fetched
        tell(f"statement {_title(document)}  {len(fetched[_parts(document)[-1]]):,} bytes")
    return tuple(raws), blobs


def _named_referrers(bundle: Bundle) -> dict[str, bytes]:
    return dict(zip(sorted(bundle.statements), bundle.referrers(), strict=True))


def _manifest(registry: Registry, name: str, digest: str) -> bytes:
    raw = registry.manifest(name, digest)
    if sha256_digest(raw) != digest:
        raise SignatureError(f"{registry.url} sent another manifest than {digest}")
    return raw


def _parts(document: Any) -> list[str]:
    return [str(part["digest"]) for part in (document["config"], *document["layers"])]


def _title(document: Any) -> str:
    annotations = document["layers"][0].get("annotations") or {}
    return str(annotations.get("org.opencontainers.image.title", "without a name")).removesuffix(".json")
