"""New roots: handing a server's trust to real keys, and changing those keys later.

Owns which root follows and who has to sign it. A root that lacks signatures of keys that are elsewhere is written as a
`Proposal`, carried to them, signed there and sent from here; the server publishes root and list together.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import msgspec
from securesystemslib.signer import Key, Signer
from tuf.api.metadata import Metadata, Root, Snapshot, Targets, Timestamp

from shoal_converter.errors import KeyUnusableError, OutputExistsError, SignatureError
from shoal_converter.signing.authority import Authority
from shoal_converter.signing.keyring import KeyEntry, Keyring, Keys, KeySet
from shoal_protocol.errors import CallerError, UnsignedError
from shoal_protocol.trust.roots import TrustMode, check_signed, make_root, role_keys, same_keys, trust_mode


class Proposal(msgspec.Struct, frozen=True, kw_only=True):
    """A root that waits for signatures, and the keyring that belongs to it."""

    root: dict[str, Any]
    keys: Keys
    format_version: int = 1

    def metadata(self) -> Metadata[Root]:
        """Return the root with the signatures that it has so far."""
        try:
            return Metadata[Root].from_dict(msgspec.json.decode(msgspec.json.encode(self.root)))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise CallerError(f"the proposal's root can't be read: {error}") from error


def propose(
    authority: Authority, keys: Keys, *, expires: datetime, online: dict[str, dict[str, Any]] | None = None
) -> Proposal:
    """Return the root that should follow the server's present one.

    Args:
        authority: The server.
        keys: Root and release keys from then on.
        expires: Of the new root.
        online: New keys of the server's own, by role and key id; none: it keeps those that it has.
    """
    old = authority.root().signed
    made = make_root(
        version=old.version + 1,
        expires=expires,
        root=keys.root.role(),
        release=keys.release.role(),
        snapshot=_online(old, Snapshot.type, online),
        timestamp=_online(old, Timestamp.type, online),
    )
    return Proposal(root=Metadata(made).to_dict(), keys=keys)


def sign_proposal(proposal: Proposal, signers: Sequence[Signer]) -> Proposal:
    """Return the proposal with more signatures."""
    metadata = proposal.metadata()
    for signer in signers:
        metadata.sign(signer, append=True)
    return Proposal(root=metadata.to_dict(), keys=proposal.keys)


def lacking(proposal: Proposal, old: Root) -> str:
    """Say which signatures are missing; empty: the server will accept it.

    A root of development trust is signed by the server itself, which holds that key.
    """
    metadata = proposal.metadata()
    try:
        check_signed(metadata.signed, Root.type, metadata, whose="the new root")
        if trust_mode(old) is TrustMode.RELEASE_KEY:
            check_signed(old, Root.type, metadata, whose="the present root")
    except UnsignedError as error:
        return error.message
    return ""


def bring(authority: Authority, keyring: Keyring, proposal: Proposal, *, until: datetime) -> dict[str, Any]:
    """Send a fully signed root, with the list signed anew where release keys change, and keep its keyring.

    Raises:
        SignatureError: Signatures are missing, or the server refuses.
        KeyUnusableError: The list has to be signed by a new release key, and none is here.
    """
    old, new = authority.root().signed, proposal.metadata()
    missing = lacking(proposal, old)
    if missing and new.signed.version == old.version + 1:
        raise SignatureError(f"the root is not ready: {missing}", hint="shoal-convert keys sign FILE --key KEY")
    targets = None
    if not same_keys(role_keys(old, Targets.type).keys, role_keys(new.signed, Targets.type).keys):
        targets = _signed_again(authority, keyring, proposal, old, until)
    answer = authority.put_root(new, targets)
    keyring.save(proposal.keys)
    return answer


def _signed_again(
    authority: Authority, keyring: Keyring, proposal: Proposal, old: Root, until: datetime
) -> Metadata[Targets]:
    signers = keyring.signers_here(proposal.keys.release.keys)
    if len(signers) < proposal.keys.release.threshold:
        raise KeyUnusableError(
            f"the new release key has to sign the list, and its file is not in {keyring.folder}",
            hint="run this where the release key is",
        )
    metadata = authority.current(old, None).metadata
    metadata.signed.version += 1
    metadata.signed.expires = until
    metadata.signatures.clear()
    for signer in signers:
        metadata.sign(signer, append=True)
    return metadata


def _online(old: Root, role: str, online: dict[str, dict[str, Any]] | None) -> Key:
    if online is None:
        return role_keys(old, role).keys[0]
    keyid, public = next(iter(online[role].items()))
    return Key.from_dict(keyid, dict(public))


def new_key_set(keys: Sequence[KeyEntry], threshold: int) -> KeySet:
    """Return keys with a threshold that they can reach.

    Raises:
        CallerError: They can't.
    """
    if not 1 <= threshold <= len(keys):
        raise CallerError(f"{threshold} of {len(keys)} keys can't sign", hint="lower --threshold, or add keys")
    return KeySet(keys=tuple(keys), threshold=threshold)


def read_proposal(path: Path) -> Proposal:
    """Read a proposal.

    Raises:
        CallerError: It is none.
    """
    try:
        return msgspec.json.decode(path.read_bytes(), type=Proposal)
    except (OSError, msgspec.DecodeError) as error:
        raise CallerError(f"{path} is no proposal of a root: {error}", hint="--export writes one") from error


def write_proposal(path: Path, proposal: Proposal, *, replace: bool = False) -> None:
    """Write a proposal.

    Raises:
        OutputExistsError: Something is there and `replace` is not set.
    """
    if path.exists() and not replace:
        raise OutputExistsError(f"there is something at {path} already", hint="name another file by --export")
    path.write_bytes(msgspec.json.format(msgspec.json.encode(proposal), indent=2) + b"\n")
