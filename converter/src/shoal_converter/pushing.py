"""Bundles to and from a registry.

Owns the order: blobs that the registry lacks, the manifest under its version, the statements that refer to it; then it
asks who signed. Raw manifest bytes are sent as they are, so that the digest is the same everywhere.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from shoal_converter.bundle import Bundle
from shoal_converter.errors import RegistryRefusedError, SignatureError
from shoal_converter.oci_layout import Layout
from shoal_converter.referrers import push_referrers
from shoal_converter.registry import Registry
from shoal_protocol.bundle.manifest import Manifest, parse_manifest
from shoal_protocol.canonical import sha256_digest
from shoal_protocol.refs import parse_ref

if TYPE_CHECKING:
    from shoal_converter.signing.pipeline import ReleaseKey

Progress = Callable[[str], None]

_MOST_BUNDLE_BYTES = 4 * 1024**3


@dataclass(frozen=True)
class Pushed:
    """What a push did.

    Attributes:
        ref: ``name:version``.
        digest: The bundle's.
        url: The registry.
        sent_bytes: Of blobs; 0 when all were already there.
        already_there: Blobs that the registry had.
        signed_by: Who signed it, for people; empty when nobody did.
        key_ids: Of the keys whose signatures cover it.
        statements: Whether the registry took them.
    """

    ref: str
    digest: str
    url: str
    sent_bytes: int
    already_there: int
    signed_by: str
    key_ids: tuple[str, ...]
    statements: bool

    def as_json(self) -> dict[str, Any]:
        """Return it as plain data."""
        return {**asdict(self), "key_ids": list(self.key_ids)}


def push(
    bundle: Bundle,
    url: str | Registry,
    *,
    token: str | None = None,
    ca: str | None = None,
    progress: Progress | None = None,
    bytes_sent: Callable[[int], None] | None = None,
    key: ReleaseKey | None = None,
) -> Pushed:
    """Upload a bundle.

    Args:
        bundle: What to send.
        url: Of the server, or an open connection.
        token: Of a releaser.
        ca: File of the certificate authority.
        progress: Called with one line for each step.
        bytes_sent: Called with the number of bytes of each piece that goes out.
        key: Signs the release here; none: the server has to, or nobody does.

    Raises:
        RegistryError: The registry can't be reached or fails.
        RegistryRefusedError: It says no, with its reasons.
        SignatureError: It stored something else.
    """
    tell = progress or (lambda _: None)
    count = bytes_sent or (lambda _: None)
    name, version = bundle.info.name, bundle.info.version
    with _opened(url, token, ca) as registry:
        if key is not None:
            key.check(registry)
        blobs = bundle.blobs()
        paths: dict[str, str] = {sha256_digest(content): path for path, content in bundle.files.items()}
        missing = {digest: content for digest, content in blobs.items() if not registry.has_blob(name, digest)}
        for digest, content in blobs.items():
            label = paths.get(digest, "config.json")
            if digest in missing:
                registry.upload(name, content, sent=count)
                tell(f"{label}  {len(content):,} bytes  sent")
            else:
                tell(f"{label}  {len(content):,} bytes  already there")
        there = registry.manifest_digest(name, version) == bundle.digest
        registry.put_manifest(name, version, bundle.manifest_raw)
        tell(f"manifest {name}:{version}  {'already there' if there else 'sent'}")
        statements = _push_statements(registry, bundle, name, tell)
        if key is not None:
            listed = key.release(registry, name, version, bundle.manifest_raw).signed
            tell(f"signed list version {listed.version}  names {name}:{version}")
        key_ids = signatures(registry, name, version, bundle.digest)
        return Pushed(
            ref=str(bundle.ref),
            digest=bundle.digest,
            url=registry.url,
            sent_bytes=sum(len(content) for content in missing.values()),
            already_there=len(blobs) - len(missing),
            signed_by=_signer_words(registry) if key_ids else "",
            key_ids=key_ids,
            statements=statements,
        )


def _signer_words(registry: Registry) -> str:
    """Say whose key signed, by the server's own word on its trust; older servers and others say nothing."""
    document = registry.json("/version")
    mode = document.get("trust") if isinstance(document, dict) else None
    return "the release key" if mode == "release_key" else "the server's development key"


def _push_statements(registry: Registry, bundle: Bundle, name: str, tell: Progress) -> bool:
    """Send the statements; a registry without them is no failure, since nothing depends on them."""
    layout = bundle.layout()
    own = bundle.blobs()
    try:
        for digest, content in layout.blobs.items():
            if digest not in own and not registry.has_blob(name, digest):
                registry.upload(name, content, sent=lambda _: None)
        push_referrers(registry, name, bundle.digest, layout.referrers)
    except RegistryRefusedError as error:
        tell(f"statements  not taken by the registry: {error.message}")
        return False
    for title in sorted(bundle.statements):
        tell(f"statement {title}  sent")
    return True


def signatures(registry: Registry, name: str, version: str, digest: str) -> tuple[str, ...]:
    """Return the ids of the keys that signed a release into the server's list; empty where there is no list at all.

    This says who signed, for people; it verifies nothing. Devices verify, from a root that they pinned.

    Raises:
        SignatureError: There is a list, and it does not name the release.
    """
    document = registry.json("/trust/targets.json")
    if not isinstance(document, dict):
        return ()
    target = (document.get("signed", {}).get("targets") or {}).get(f"{name}/{version}") or {}
    if (target.get("hashes") or {}).get("sha256") != digest.partition(":")[2]:
        raise SignatureError(
            f"{registry.url} took {name}:{version} but did not sign it: no device will install it",
            hint="sign it: push again with --key, the release key of this server (shoal-convert keys --help)",
        )
    return tuple(str(entry.get("keyid")) for entry in document.get("signatures") or [] if entry.get("sig"))


def pull(
    ref: str,
    url: str | Registry,
    *,
    token: str | None = None,
    ca: str | None = None,
    progress: Progress | None = None,
) -> Bundle:
    """Download a bundle and check every digest.

    Args:
        ref: ``name:version``, ``name@alias`` or ``name@sha256:…``.
        url: Of the registry, or an open connection.
        token: Of anybody who may read.
        ca: File of the certificate authority.
        progress: Called with one line for each file.

    Raises:
        RegistryError: The registry can't be reached.
        RegistryRefusedError: It has no such bundle, or says no.
        SignatureError: It sent other bytes than asked for.
        ContentError: What it sent is no bundle.
    """
    tell = progress or (lambda _: None)
    parsed = parse_ref(ref)
    reference = parsed.version or parsed.digest or parsed.alias or ""
    with _opened(url, token, ca) as registry:
        raw = registry.manifest(parsed.name, reference)
        if parsed.digest and sha256_digest(raw) != parsed.digest:
            raise SignatureError(f"{registry.url} sent another manifest than {parsed.digest}")
        manifest = parse_manifest(raw)
        if manifest.total_bytes > _MOST_BUNDLE_BYTES:
            raise RegistryRefusedError(
                f"the bundle has {manifest.total_bytes:,} bytes, more than {_MOST_BUNDLE_BYTES:,}"
            )
        blobs = _fetched(registry, parsed.name, manifest, tell)
    return Bundle.from_layout(Layout(reference, raw, (), blobs))


def _fetched(registry: Registry, name: str, manifest: Manifest, tell: Progress) -> dict[str, bytes]:
    paths = {layer.digest: path for path, layer in manifest.files().items()}
    blobs: dict[str, bytes] = {}
    for blob in manifest.blobs():
        if blob.digest not in blobs:
            blobs[blob.digest] = registry.blob(name, blob.digest, size=blob.size)
            tell(f"{paths.get(blob.digest, 'config.json')}  {blob.size:,} bytes")
    return blobs


def _opened(url: str | Registry, token: str | None, ca: str | None) -> AbstractContextManager[Registry]:
    if isinstance(url, Registry):
        return nullcontext(url)
    return Registry(url, token=token, ca=ca)
