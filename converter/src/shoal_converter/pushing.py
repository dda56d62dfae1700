"""Bundles to and from a registry.

Owns the order: blobs that the registry lacks, the manifest under its version, the statements that refer to it; then it
asks who signed. Raw manifest bytes are sent as they are, so that the digest is the same everywhere.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from shoal_converter.bundle import Bundle
from shoal_converter.errors import RegistryRefusedError, SignatureError
from shoal_converter.oci_layout import Layout
from shoal_converter.registry import Registry
from shoal_converter.statements import SentStatements, pull_statements, push_statements, split_statements
from shoal_protocol.bundle.manifest import Manifest, parse_manifest
from shoal_protocol.canonical import sha256_digest
from shoal_protocol.refs import parse_ref

if TYPE_CHECKING:
    from shoal_converter.signing.pipeline import ReleaseKey

Progress = Callable[[str], None]

_MOST_TAGS = 12
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
        statements: Whether the registry takes them.
        statements_sent: Names of those that it lacked.
    """

    ref: str
    digest: str
    url: str
    sent_bytes: int
    already_there: int
    signed_by: str
    key_ids: tuple[str, ...]
    statements: bool
    statements_sent: tuple[str, ...] = ()

    def as_json(self) -> dict[str, Any]:
        """Return it as plain data."""
        return {**asdict(self), "key_ids": list(self.key_ids), "statements_sent": list(self.statements_sent)}


@dataclass(frozen=True)
class Plan:
    """What a push would do.

    Attributes:
        ref: ``name:version``.
        digest: The bundle's.
        url: The registry.
        missing: Path and size of each file that it lacks.
        already_there: Path and size of each that it has.
        released: The digest under this version now; none: the version is new.
        statements: Which of the statements beside it are there.
    """

    ref: str
    digest: str
    url: str
    missing: tuple[tuple[str, int], ...]
    already_there: tuple[tuple[str, int], ...]
    released: str | None
    statements: SentStatements

    @property
    def missing_bytes(self) -> int:
        """Size of what would be sent."""
        return sum(size for _, size in self.missing)

    def as_json(self) -> dict[str, Any]:
        """Return it as plain data."""
        files = {
            name: [{"path": path, "bytes": size} for path, size in listed]
            for name, listed in (("missing", self.missing), ("already_there", self.already_there))
        }
        return {"ref": self.ref, "digest": self.digest, "url": self.url, "missing_bytes": self.missing_bytes, **files}


def plan(bundle: Bundle, url: str | Registry, *, token: str | None = None, ca: str | None = None) -> Plan:
    """Ask a registry what it lacks of a bundle; nothing is sent.

    Args:
        bundle: What would be pushed.
        url: Of the server, or an open connection.
        token: Of a releaser.
        ca: File of the certificate authority.

    Raises:
        RegistryError: The registry can't be reached or fails.
        RegistryRefusedError: It would refuse: no token, a role that may not push, or a version that is taken.
    """
    name, version = bundle.info.name, bundle.info.version
    with _opened(url, token, ca) as registry:
        sized = [(label, digest, len(content)) for label, digest, content in _labelled(bundle)]
        there = {digest for _, digest, _ in sized if registry.has_blob(name, digest)}
        released = registry.manifest_digest(name, version)
        if released is not None and released != bundle.digest:
            raise taken(registry.url, name, version, released)
        check_role(registry)
        return Plan(
            ref=str(bundle.ref),
            digest=bundle.digest,
            url=registry.url,
            missing=tuple((label, size) for label, digest, size in sized if digest not in there),
            already_there=tuple((label, size) for label, digest, size in sized if digest in there),
            released=released,
            statements=split_statements(registry, bundle),
        )


def check_role(registry: Registry) -> None:
    """Ask a Shoal server whether the token may push; another registry tells only when it is tried.

    Raises:
        RegistryRefusedError: It may not.
    """
    person = registry.json("/api/v1/whoami")
    if not isinstance(person, dict):
        return
    role = person.get("role")
    if role not in {None, "releaser", "admin"}:
        raise RegistryRefusedError(
            f"the token {person.get('name')} at {registry.url} is a {role}'s, and pushing needs releaser",
            hint="an admin makes one: shoalctl token create --role releaser --name ci",
        )


def taken(url: str, name: str, version: str, released: str) -> RegistryRefusedError:
    """Return what is said of a version that exists with other bytes."""
    return RegistryRefusedError(
        f"{url} has {name}:{version} already, as {released[:19]}…: a released version never changes",
        hint="pack it under the next version: -t NAME:VERSION; shoal-convert diff shows what differs",
        status=409,
    )


def _labelled(bundle: Bundle) -> list[tuple[str, str, bytes]]:
    """Return what is called how, the digest and the content of every blob."""
    paths: dict[str, str] = {sha256_digest(content): path for path, content in bundle.files.items()}
    return [(paths.get(digest, "config.json"), digest, content) for digest, content in bundle.blobs().items()]


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
        bytes_sent: Called with the number of bytes of each piece that goes out, or is there already.
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
        blobs = _labelled(bundle)
        missing = {digest for _, digest, _ in blobs if not registry.has_blob(name, digest)}
        released = registry.manifest_digest(name, version)
        if released is not None and released != bundle.digest:
            raise taken(registry.url, name, version, released)
        _send_blobs(registry, name, blobs, missing=missing, sent=count, tell=tell)
        registry.put_manifest(name, version, bundle.manifest_raw)
        tell(f"manifest {name}:{version}  {'already there' if released else 'sent'}")
        statements = push_statements(registry, bundle, tell)
        if key is not None:
            listed = key.release(registry, name, version, bundle.manifest_raw).signed
            tell(f"signed list version {listed.version}  names {name}:{version}")
        key_ids = signatures(registry, name, version, bundle.digest)
        return Pushed(
            ref=str(bundle.ref),
            digest=bundle.digest,
            url=registry.url,
            sent_bytes=sum(len(content) for _, digest, content in blobs if digest in missing),
            already_there=len(blobs) - len(missing),
            signed_by=_signer_words(registry) if key_ids else "",
            key_ids=key_ids,
            statements=statements.taken,
            statements_sent=statements.sent,
        )


def _send_blobs(
    registry: Registry,
    name: str,
    blobs: Sequence[tuple[str, str, bytes]],
    *,
    missing: Collection[str],
    sent: Callable[[int], None],
    tell: Progress,
) -> None:
    for label, digest, content in blobs:
        if digest in missing:
            registry.upload(name, content, sent=sent)
        else:
            sent(len(content))
        if not _is_test(label):
            tell(f"{label}  {len(content):,} bytes  {'sent' if digest in missing else 'already there'}")
    for word, there in (("sent", True), ("already there", False)):
        sizes = [len(content) for label, digest, content in blobs if _is_test(label) and (digest in missing) is there]
        _tell_tests(sizes, word, tell)


def _is_test(path: str) -> bool:
    return path.startswith("test_data_set_")


def _tell_tests(sizes: Sequence[int], word: str, tell: Progress) -> None:
    """Tell of the files of a bundle's own tests in a line: there may be hundreds, and they belong together."""
    if sizes:
        files = "1 file" if len(sizes) == 1 else f"{len(sizes)} files"
        tell(f"test_data_set_*  {files}, {sum(sizes):,} bytes{word and '  '}{word}")


def _signer_words(registry: Registry) -> str:
    """Say whose key signed, by the server's own word on its trust; older servers and others say nothing."""
    document = registry.json("/version")
    mode = document.get("trust") if isinstance(document, dict) else None
    return "the release key" if mode == "release_key" else "the server's development key"


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
    bytes_received: Callable[[int, int], None] | None = None,
) -> Bundle:
    """Download a bundle and the statements about it, and check every digest.

    Args:
        ref: ``name:version``, ``name@alias`` or ``name@sha256:…``.
        url: Of the registry, or an open connection.
        token: Of anybody who may read.
        ca: File of the certificate authority.
        progress: Called with one line for each file.
        bytes_received: Called with the number of bytes of each piece that came, and of all that will.

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
        raw = _manifest(registry, parsed.name, reference)
        if parsed.digest and sha256_digest(raw) != parsed.digest:
            raise SignatureError(f"{registry.url} sent another manifest than {parsed.digest}")
        manifest = parse_manifest(raw)
        if manifest.total_bytes > _MOST_BUNDLE_BYTES:
            raise RegistryRefusedError(
                f"the bundle has {manifest.total_bytes:,} bytes, more than {_MOST_BUNDLE_BYTES:,}"
            )
        blobs = _fetched(registry, parsed.name, manifest, tell, bytes_received or (lambda _, __: None))
        referrers, stated = pull_statements(registry, parsed.name, sha256_digest(raw), tell)
    return Bundle.from_layout(Layout(reference, raw, referrers, {**stated, **blobs}))


def _manifest(registry: Registry, name: str, reference: str) -> bytes:
    """Return the manifest that a reference names; where there is none, say what there is."""
    try:
        return registry.manifest(name, reference)
    except RegistryRefusedError as error:
        if error.data.get("status") != 404:
            raise
        document = registry.json(f"/v2/{name}/tags/list")
        tags = document.get("tags") if isinstance(document, dict) else None
        listed = ", ".join(str(tag) for tag in (tags or [])[-_MOST_TAGS:])
        hint = f"{name} has {listed}" if listed else f"nothing of the name {name} is there: was it pushed?"
        raise RegistryRefusedError(error.message, hint=hint, status=404) from error


def _fetched(
    registry: Registry, name: str, manifest: Manifest, tell: Progress, received: Callable[[int, int], None]
) -> dict[str, bytes]:
    paths = {layer.digest: path for path, layer in manifest.files().items()}
    wanted = {blob.digest: blob.size for blob in manifest.blobs()}
    total = sum(wanted.values())
    blobs: dict[str, bytes] = {}
    for digest, size in wanted.items():
        blobs[digest] = registry.blob(name, digest, size=size, received=lambda count: received(count, total))
        if not _is_test(paths.get(digest, "")):
            tell(f"{paths.get(digest, 'config.json')}  {size:,} bytes")
    _tell_tests([size for digest, size in wanted.items() if _is_test(paths.get(digest, ""))], "", tell)
    return blobs


def _opened(url: str | Registry, token: str | None, ca: str | None) -> AbstractContextManager[Registry]:
    if isinstance(url, Registry):
        return nullcontext(url)
    return Registry(url, token=token, ca=ca)
