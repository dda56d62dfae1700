"""Roots of trust: who may sign what, and which root may follow which.

A root names the keys of TUF's four top-level roles. The *root keys* sign roots, the *release keys* sign the list of
releases (targets); both may be kept away from the server. The *online keys* (snapshot, timestamp) stay at the server.
(The Update Framework specification 1.0, sections 4.3 and 5.3.) No I/O, no clock.

Invariant: a root is believed only when its predecessor's root keys and its own sign it, each up to its threshold.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from securesystemslib.signer import Key
from tuf.api.exceptions import RepositoryError
from tuf.api.metadata import Metadata, Root, Snapshot, Targets, Timestamp

from shoal_protocol.errors import CallerError, ContentError, RollbackError, UnsignedError
from shoal_protocol.trust.targets import SHOAL_FIELD

MAX_ROOT_BYTES = 512_000
"""As TUF clients allow by default."""

MAX_ROTATIONS = 256
"""Roots that are walked over at once, as TUF clients do by default."""


class TrustMode(StrEnum):
    """Who can make a device install something."""

    DEVELOPMENT = "development"  # the server holds every key: a laptop needs none, and a stolen server can do all
    RELEASE_KEY = "release_key"  # root and release keys are kept away from the server, which holds the online keys only


@dataclass(frozen=True)
class RoleKeys:
    """The keys of a role, and how many of them have to sign."""

    keys: tuple[Key, ...]
    threshold: int = 1


def parse_root(raw: bytes) -> Metadata[Root]:
    """Parse a root without believing it.

    Raises:
        ContentError: It is no root, or lacks a role that is needed here.
    """
    if len(raw) > MAX_ROOT_BYTES:
        raise ContentError(f"a root of {len(raw)} bytes is over the limit of {MAX_ROOT_BYTES}")
    try:
        metadata = Metadata[Root].from_bytes(raw)
    except (RepositoryError, RecursionError) as error:
        raise ContentError(f"this is no root of trust: {error}") from error
    if not isinstance(metadata.signed, Root):
        raise ContentError("this is signed metadata, but no root of trust")
    return metadata


def check_successor(old: Root, new: Metadata[Root]) -> Root:
    """Return the next root, when the one before and itself allow it.

    Raises:
        RollbackError: Its version is not the next one.
        UnsignedError: Keys of the old root, or its own, did not sign it up to the threshold.
    """
    if new.signed.version != old.version + 1:
        raise RollbackError(f"a root of version {new.signed.version} came, expected version {old.version + 1}")
    for signer, whose in ((old, "the root before it"), (new.signed, "its own")):
        check_signed(signer, Root.type, new, whose=whose)
    return new.signed


def check_signed(root: Root, role: str, metadata: Metadata[Root] | Metadata[Targets], *, whose: str) -> None:
    """Check signatures up to a role's threshold.

    Raises:
        UnsignedError: They are too few; the message names those that are missing.
    """
    try:
        result = root.get_verification_result(role, metadata.signed_bytes, metadata.signatures)
    except (ValueError, RepositoryError) as error:
        raise UnsignedError(f"the signatures can't be checked: {error}") from error
    if not result.verified:
        missing = ", ".join(key[:12] for key in sorted(result.unsigned)) or "none known"
        raise UnsignedError(
            f"{len(result.signed)} of {result.threshold} signatures by {whose}'s {_NAMES.get(role, role)} "
            f"are there (not signed by: {missing})",
            hint="sign with one of these keys; `shoal-convert keys show` lists them",
            keyids=sorted(result.unsigned),
        )


def newest_root(pinned: bytes, next_root: Callable[[int], bytes | None]) -> Root:
    """Walk from a pinned root to the newest, each signed by the one before and by itself.

    Args:
        pinned: Raw; trusted as it is.
        next_root: Version -> raw root, none when there is no such version.

    Raises:
        ContentError: A root does not parse.
        UnsignedError: A root is not signed as it must be.
        RollbackError: A root has another version than it was asked for.
    """
    root = parse_root(pinned).signed
    for _ in range(MAX_ROTATIONS):
        raw = next_root(root.version + 1)
        if raw is None:
            break
        root = check_successor(root, parse_root(raw))
    return root


def make_root(
    *, version: int, expires: datetime, root: RoleKeys, release: RoleKeys, snapshot: Key, timestamp: Key
) -> Root:
    """Make a root that is to be signed.

    Raises:
        CallerError: A threshold can't be reached, or the same key stands for two purposes.
    """
    for name, wanted in (("root", root), ("release", release)):
        count = len({key.keyid for key in wanted.keys})
        if not 1 <= wanted.threshold <= count:
            raise CallerError(f"{wanted.threshold} of {count} {name} keys can't sign", hint="lower the threshold")
    online = {snapshot.keyid, timestamp.keyid}
    away = {key.keyid for key in (*root.keys, *release.keys)}
    if online & away:
        raise CallerError("a key that the server holds can't be a root or release key", hint="make a new key")
    made = Root(version=version, expires=expires, consistent_snapshot=True)
    made.unrecognized_fields[SHOAL_FIELD] = {"trust": TrustMode.RELEASE_KEY.value}
    parts: Sequence[tuple[str, RoleKeys]] = (
        (Root.type, root),
        (Targets.type, release),
        (Snapshot.type, RoleKeys((snapshot,))),
        (Timestamp.type, RoleKeys((timestamp,))),
    )
    for role, wanted in parts:
        for key in wanted.keys:
            made.add_key(key, role)
        made.roles[role].threshold = wanted.threshold
    return made


def trust_mode(root: Root) -> TrustMode:
    """Return who holds the keys, as the root's own signed word says."""
    said = root.unrecognized_fields.get(SHOAL_FIELD)
    adopted = isinstance(said, dict) and said.get("trust") == TrustMode.RELEASE_KEY
    return TrustMode.RELEASE_KEY if adopted else TrustMode.DEVELOPMENT


def role_keys(root: Root, role: str) -> RoleKeys:
    """Return the keys of one role."""
    found = root.roles[role]
    return RoleKeys(tuple(root.keys[keyid] for keyid in found.keyids if keyid in root.keys), found.threshold)


def same_keys(one: Iterable[Key], other: Iterable[Key]) -> bool:
    """Tell whether two sets of keys are equal."""
    return {key.keyid for key in one} == {key.keyid for key in other}


_NAMES = {Root.type: "root keys", Targets.type: "release keys"}
