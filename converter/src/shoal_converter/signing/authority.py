"""The server's trust metadata as somebody with a key sees it: fetched, verified, and sent back signed.

Owns requests and what is believed of the answers. A list is extended only after it was verified, because a signature
vouches for all that it covers: by the root that the keyring pinned (walked forward to the newest), or, without any
pinned root, by the very key that signs now.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from securesystemslib.exceptions import UnverifiedSignatureError, VerificationError
from securesystemslib.signer import Signer
from tuf.api.metadata import Metadata, Root, Targets

from shoal_converter.errors import RegistryRefusedError, SignatureError
from shoal_converter.registry import Registry
from shoal_protocol.trust.roots import TrustMode, check_signed, newest_root, parse_root, trust_mode
from shoal_protocol.trust.targets import parse_targets


class Memory(Protocol):
    """What is remembered between two runs; a keyring is one."""

    def root(self) -> bytes | None:
        """Return the pinned root."""

    def save_root(self, raw: bytes) -> None:
        """Pin a newer root."""

    def seen(self) -> int:
        """Return the version of the newest list that was seen."""

    def save_seen(self, version: int) -> None:
        """Remember a list's version."""


@dataclass(frozen=True)
class CurrentList:
    """The signed list as it is now, verified, with what names this very state of it."""

    metadata: Metadata[Targets]
    etag: str


class FasterError(SignatureError):
    """Another pipeline changed the list meanwhile: fetch it anew."""

    code = "faster"


class Authority:
    """One server's trust metadata.

    Args:
        registry: The server.
        memory: What is pinned; none: only what one's own key signed is believed.
    """

    def __init__(self, registry: Registry, memory: Memory | None) -> None:
        self._registry = registry
        self._memory = memory

    def mode(self) -> TrustMode | None:
        """Return who holds the keys there; none: it is no Shoal server."""
        root = self._fetch("/trust/root.json")
        return None if root is None else trust_mode(parse_root(root).signed)

    def root(self) -> Metadata[Root]:
        """Return the newest root: walked to from the pinned one, or as the server says where none is pinned.

        Raises:
            SignatureError: The server has none, or it does not follow from the pinned one.
        """
        raw = self._fetch("/trust/root.json")
        if raw is None:
            raise SignatureError(f"{self._registry.url} keeps no signed list: it is no Shoal server")
        pinned = self._memory.root() if self._memory else None
        if pinned is None:
            return parse_root(raw)
        newest = newest_root(pinned, lambda version: self._fetch(f"/trust/{version}.root.json"))
        found = parse_root(raw)
        if found.signed != newest:
            raise SignatureError(
                f"{self._registry.url} shows root version {found.signed.version}, which does not follow from the one "
                f"that this keyring knows (version {parse_root(pinned).signed.version})",
                hint="is this the server whose keys these are? If so, treat it as stolen",
            )
        if self._memory is not None and raw != pinned:
            self._memory.save_root(raw)
        return found

    def current(self, root: Root, signer: Signer | None) -> CurrentList:
        """Return the list, verified.

        Args:
            root: From `root`.
            signer: Who is about to sign; its signature is believed where no root is pinned.

        Raises:
            SignatureError: It can't be believed, or is older than one that was seen here.
        """
        seen = self._memory.seen() if self._memory else 0  # first: another pipeline may see a newer one meanwhile
        status, headers, raw = self._registry.exchange("GET", "/trust/targets.json")
        if status != 200:
            raise SignatureError(f"{self._registry.url} has no signed list ({status})")
        metadata = parse_targets(raw)
        if self._memory is not None and self._memory.root() is not None:
            check_signed(root, Targets.type, metadata, whose="the pinned root")
        elif signer is not None and not _signed_by(signer, metadata):
            raise SignatureError(
                "the server's list is not signed by this key, so nothing vouches for what is on it",
                hint="give the pinned root, which the folder of keys holds: --root shoal-keys/root.json",
            )
        if metadata.signed.version < seen:
            raise SignatureError(
                f"the server shows list version {metadata.signed.version}, version {seen} was seen here before",
                hint="it may have been restored from a backup, or be stolen; look before you sign",
            )
        return CurrentList(metadata, headers.get("etag", ""))

    def put_list(self, metadata: Metadata[Targets], *, etag: str) -> None:
        """Send a signed list.

        Raises:
            FasterError: Another one came meanwhile.
            SignatureError: The server does not accept it, with its reason.
        """
        headers = {"Content-Type": "application/json"} | ({"If-Match": etag} if etag else {})
        status, _, body = self._registry.exchange(
            "PUT", "/trust/targets.json", content=to_wire(metadata), headers=headers
        )
        if status == 412 or (status == 409 and b'"stale_list"' in body):
            raise FasterError(_said(body))
        _check(self._registry.url, status, body, "releaser")
        if self._memory is not None:
            self._memory.save_seen(metadata.signed.version)

    def put_root(self, root: Metadata[Root], targets: Metadata[Targets] | None) -> dict[str, Any]:
        """Send a signed root, with the list that its release keys signed where those are new.

        Returns:
            What the server says: version, digest, mode, deleted_keys.

        Raises:
            SignatureError: The server does not accept it, with its reason.
        """
        upload = {"root": _base64(to_wire(root)), "targets": None if targets is None else _base64(to_wire(targets))}
        headers = {"Content-Type": "application/json"}
        content = json.dumps(upload).encode()
        status, _, body = self._registry.exchange("PUT", "/trust/root.json", content=content, headers=headers)
        _check(self._registry.url, status, body, "admin")
        if self._memory is not None:
            stored = self._fetch(f"/trust/{root.signed.version}.root.json")
            if stored is not None and parse_root(stored).signed == root.signed:
                self._memory.save_root(stored)
            if targets is not None:
                self._memory.save_seen(targets.signed.version)
        answer: dict[str, Any] = json.loads(body)
        return answer

    def next_online_keys(self) -> dict[str, dict[str, Any]]:
        """Ask the server for new keys of its own; returns their public halves by role and key id."""
        status, _, body = self._registry.exchange("POST", "/api/v1/trust/online-keys")
        _check(self._registry.url, status, body, "admin")
        found: dict[str, dict[str, Any]] = json.loads(body)
        return found

    def status(self) -> dict[str, Any] | None:
        """Return what the server says of its trust, where one may ask."""
        found = self._registry.json("/api/v1/trust")
        return found if isinstance(found, dict) else None

    def _fetch(self, path: str) -> bytes | None:
        status, _, body = self._registry.exchange("GET", path)
        return body if status == 200 else None


def change_list(
    authority: Authority,
    signer: Signer,
    change: Callable[[Targets], bool],
    *,
    wait: Callable[[int], None],
    attempts: int = 40,
) -> Metadata[Targets]:
    """Fetch the list, change it, sign it, send it; again when another pipeline was faster.

    Args:
        authority: The server.
        signer: The release key.
        change: Changes the list in place; False: there is nothing to change.
        wait: Called with the number of the attempt before it is made again.
        attempts: How often to try.

    Raises:
        SignatureError: The list can't be believed, the key is no release key there, or the server refuses.
    """
    for attempt in range(1, attempts + 1):
        root = authority.root().signed
        check_release_key(root, signer)
        current = authority.current(root, signer)
        if not change(current.metadata.signed):
            return current.metadata
        current.metadata.signed.version += 1
        current.metadata.sign(signer)
        try:
            authority.put_list(current.metadata, etag=current.etag)
        except FasterError:
            if attempt == attempts:
                raise
            wait(attempt)
        else:
            return current.metadata
    raise AssertionError  # unreachable: the last attempt returns or raises


def to_wire(metadata: Metadata[Any]) -> bytes:
    """Return a document's bytes."""
    from tuf.api.serialization.json import JSONSerializer  # noqa: PLC0415 - only when something is sent

    return metadata.to_bytes(JSONSerializer(compact=True))


def check_release_key(root: Root, signer: Signer) -> None:
    """Check that a server takes what a key signs.

    Raises:
        SignatureError: It doesn't, and why.
    """
    if trust_mode(root) is TrustMode.DEVELOPMENT:
        raise SignatureError(
            "this server signs releases itself (development trust), so a release key has no say there yet",
            hint="push without --key, or give the server your keys: shoal-convert keys adopt",
        )
    allowed = root.roles[Targets.type].keyids
    if signer.public_key.keyid not in allowed:
        raise SignatureError(
            f"the key {signer.public_key.keyid[:12]} is no release key of this server "
            f"(those are: {', '.join(keyid[:12] for keyid in allowed)})",
            hint="name the right one by --key; `shoal-convert keys show` lists them",
        )


def _signed_by(signer: Signer, metadata: Metadata[Targets]) -> bool:
    signature = metadata.signatures.get(signer.public_key.keyid)
    if signature is None:
        return False
    try:
        signer.public_key.verify_signature(signature, metadata.signed_bytes)
    except (UnverifiedSignatureError, VerificationError):
        return False
    return True


def _check(url: str, status: int, body: bytes, role: str) -> None:
    if status < 300:
        return
    said = _said(body)
    if status == 401 or (status == 403 and b"forbidden" in body):
        raise RegistryRefusedError(
            f"{url} refuses ({status}): {said}", hint=f"this needs a token of the role {role}", status=status
        )
    raise SignatureError(f"{url} does not accept it ({status}): {said}", status=status)


def _said(body: bytes) -> str:
    try:
        document = json.loads(body)
    except ValueError:
        return body[:200].decode("utf-8", "replace")
    if not isinstance(document, dict):
        return str(document)[:200]
    hint = document.get("hint")
    return str(document.get("detail") or document.get("title") or document)[:1000] + (f" ({hint})" if hint else "")


def _base64(raw: bytes) -> str:
    return base64.b64encode(raw).decode()
