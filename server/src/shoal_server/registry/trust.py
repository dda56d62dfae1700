"""The signed list of releases, kept by the server: TUF metadata.

Owns making, extending, renewing, taking in and serving the metadata of TUF's four top-level roles. Two modes, told by
the root itself (`mode`): in development trust the server holds every key, so a push with a releaser's token is enough
for a device to accept the bundle, and the server says so wherever it describes itself. With release keys, root and list
are signed away from here; the server checks and serves them and signs only snapshot, timestamp and assignments.

Invariants:
    - A change is one transaction with whatever causes it: list, snapshot and timestamp appear together or not at all.
    - Versions only grow by one; what was signed once is never replaced by other bytes.
    - A target's path and digest are checked here, because TUF clients don't.
"""

import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, TypeVar

from securesystemslib.signer import CryptoSigner, Signer
from sqlmodel import Session
from tuf.api.metadata import Metadata, MetaFile, Root, Snapshot, Targets, Timestamp

from shoal_protocol.canonical import Digest, sha256_digest
from shoal_protocol.errors import DigestMismatchError, ExpiredError
from shoal_protocol.trust.roots import TrustMode, check_signed, check_successor, parse_root, trust_mode
from shoal_protocol.trust.signed_list import SignedList
from shoal_protocol.trust.targets import parse_targets, release_target, set_restrictions, signed_list
from shoal_server.errors import ConflictError, NotFoundError, PreconditionError
from shoal_server.registry import trust_documents as documents
from shoal_server.registry.list_rules import Held, check_next_list
from shoal_server.registry.trust_keys import (
    ONLINE_ROLES,
    ROLES,
    load_keys,
    make_keys,
    missing_keys,
    next_online_keys,
    tidy_keys,
)
from shoal_server.storage.database import Clock, Database, lock_for_transaction

LIFETIMES = {
    "root": timedelta(days=3650),
    "targets": timedelta(days=90),
    "snapshot": timedelta(days=14),
    "timestamp": timedelta(days=2),
}
"""How long a device believes what the server signs; each is renewed at half of it."""

CARRIED_LIFETIME = timedelta(days=14)
"""How long a device believes a parcel: as long as the assignment in it."""

_FILE_RE = re.compile(r"(?:(\d{1,9})\.)?(root|targets|snapshot|timestamp)\.json")

_SignedT = TypeVar("_SignedT", Root, Timestamp, Snapshot, Targets)


class StaleListError(ConflictError):
    """A signed list came that does not follow the present one: another pipeline was faster."""

    code = "stale_list"


class TrustService:
    """Signs and serves the metadata of one server.

    Args:
        database: where the documents are.
        keys_folder: where the keys are, or are made at the first start.
        clock: for expiry.
    """

    def __init__(self, database: Database, *, keys_folder: Path, clock: Clock) -> None:
        self._database = database
        self._clock = clock
        self._folder = keys_folder
        self._keys = load_keys(keys_folder)
        self._begin()

    @property
    def mode(self) -> TrustMode:
        """Who holds the keys."""
        with self._database.read() as session:
            return trust_mode(documents.root(session).signed)

    @property
    def assignment_signer(self) -> Signer:
        """The signer of assignments: the key of the timestamp role."""
        with self._database.read() as session:
            return self._signer(documents.root(session).signed, "timestamp")

    @property
    def targets_version(self) -> int:
        """Version of the signed list now, the floor of a device that joins now."""
        with self._database.read() as session:
            return documents.newest(session, "targets")

    def pinned_root(self) -> tuple[int, Digest]:
        """Return version and digest of the newest root, which a device that joins now believes from the start."""
        with self._database.read() as session:
            raw = documents.newest_raw(session, "root")
        return parse_root(raw).signed.version, sha256_digest(raw)

    def metadata(self, file: str) -> bytes:
        """Return a document by the name under which TUF clients ask for it, such as `3.targets.json`.

        Raises:
            NotFoundError: there is no such document; a client then knows that it has the newest root.
        """
        match = _FILE_RE.fullmatch(file)
        if match is None:
            raise NotFoundError(f"{file!r:.80} is no document of the trust metadata")
        with self._database.read() as session:
            version = int(match[1]) if match[1] else documents.newest(session, match[2])
            return documents.raw(session, match[2], version)

    def root(self, session: Session) -> Root:
        """Return the newest root."""
        return documents.root(session).signed

    def signed_list(self, session: Session) -> SignedList:
        """Return what the list allows now, as seen by the open transaction."""
        return signed_list(documents.targets(session).signed)

    def signs_releases(self, session: Session) -> bool:
        """Tell whether a push is signed here; False: only a release key elsewhere can."""
        return trust_mode(documents.root(session).signed) is TrustMode.DEVELOPMENT

    def publish_release(
        self,
        session: Session,
        *,
        model: str,
        version: str,
        manifest_raw: bytes,
        counter: int,
        platform: str | None = None,
    ) -> None:
        """Add a release to the signed list, in development trust; the same release again changes nothing.

        Raises:
            DigestMismatchError: the list already names another digest for this version.
        """
        target = release_target(model, version, manifest_raw, counter=counter, platform=platform)
        current = documents.targets(session).signed.targets.get(target.path)
        if current is not None:
            if current.hashes != target.hashes:
                raise DigestMismatchError(
                    f"{target.path} is released with another digest", found=current.hashes["sha256"]
                )
            return

        def add(targets: Targets) -> None:
            targets.targets[target.path] = target

        self._change_list(session, add)

    def withdraw_release(self, session: Session, *, model: str, version: str, digest: str) -> None:
        """Take a release off the signed list, in development trust: no device installs it any more."""

        def remove(targets: Targets) -> None:
            targets.targets.pop(f"{model}/{version}", None)
            known = signed_list(targets)
            set_restrictions(targets, deny=known.deny - {digest}, minimum=known.minimum)

        self._change_list(session, remove)

    def set_denied(self, session: Session, digest: str, *, denied: bool) -> None:
        """Put a digest on the signed deny list, or lift it from there, in development trust."""

        def restrict(targets: Targets) -> None:
            known = signed_list(targets)
            deny = known.deny | {digest} if denied else known.deny - {digest}
            set_restrictions(targets, deny=deny, minimum=known.minimum)

        self._change_list(session, restrict)

    def accept_list(self, session: Session, raw: bytes, *, held: Held, if_match: str | None = None) -> bool:
        """Take a list that a release key signed elsewhere, and publish it.

        Args:
            session: of an open write transaction.
            raw: the signed list.
            held: what the registry holds.
            if_match: entity tag of the list that was edited.

        Returns:
            False when this very list is the present one already.

        Raises:
            ConflictError: the server signs the list itself, or the list's version is not the next one.
            PreconditionError: another list than `if_match` is the present one.
            UnsignedError: not enough release keys signed it.
            ExpiredError: it is expired already.
            ContentError: it breaks a rule of `list_rules`.
        """
        lock_for_transaction(session, "trust")
        present = documents.newest_raw(session, "targets")
        if raw == present:
            return False
        root = documents.root(session).signed
        if trust_mode(root) is TrustMode.DEVELOPMENT:
            raise ConflictError(
                "this server signs the list of releases itself (development trust)",
                hint="give it your keys first: shoal-convert keys adopt",
            )
        if if_match is not None and if_match != entity_tag(present):
            raise PreconditionError(
                f"the signed list is now version {_version_of(present)}: another pipeline was faster",
                hint="fetch it, add to it, sign it again",
            )
        self._store_list(session, root, raw, held)
        self._publish_snapshot(session)
        return True

    def accept_root(self, session: Session, raw: bytes, *, targets: bytes | None, held: Held) -> bool:
        """Take a root that root keys signed elsewhere, together with the list that its release keys signed.

        In development trust the server adds the signature of its own root key, which the caller, an administrator,
        asks for by this: that is how a fleet changes to real keys without joining again.

        Returns:
            False when this very root is the present one already.

        Raises:
            ConflictError: the root leaves the server without a key that it needs, or gives it one too many.
            UnsignedError: not enough keys signed it.
            RollbackError: its version is not the next one.
            ExpiredError: it is expired already.
        """
        lock_for_transaction(session, "trust")
        old, new = documents.root(session), parse_root(raw)
        if new.signed_bytes == old.signed_bytes:
            return False
        own = self._keys.find(old.signed, "root")
        if own is not None and own.public_key.keyid not in new.signatures:
            new.sign(own, append=True)
        root = check_successor(old.signed, new)
        self._keys = load_keys(self._folder)
        self._check_keys(root)
        self._check_unexpired("root", root)
        documents.store(session, "root", root.version, documents.to_bytes(new))
        if targets is not None:
            self._store_list(session, root, targets, held)
        else:
            check_signed(root, Targets.type, documents.targets(session), whose="the new root")
        self._publish_snapshot(session)
        return True

    def next_online_keys(self) -> dict[str, dict[str, Any]]:
        """Return the public keys that can replace the server's online ones, by role and key id."""
        made = next_online_keys(self._folder)
        self._keys = load_keys(self._folder)
        return {role: {signer.public_key.keyid: signer.public_key.to_dict()} for role, signer in made.items()}

    def tidy_keys(self) -> list[str]:
        """Delete key files that the newest root doesn't name any more; returns which."""
        with self._database.read() as session:
            root = documents.root(session).signed
        gone = tidy_keys(self._folder, root)
        self._keys = load_keys(self._folder)
        return gone

    def refresh(self) -> bool:
        """Renew whatever this server signs and has lived half its life, with all that refers to it."""
        with self._database.read() as session:
            due = self._due(session)
        if not due:
            return False
        with self._database.write() as session:
            lock_for_transaction(session, "trust")
            due = self._due(session)
            if "root" in due:
                self._renew(session, "root", documents.root(session))
            if "targets" in due:
                self._change_list(session, lambda _targets: None)
            elif "snapshot" in due:
                self._publish_snapshot(session)
            elif "timestamp" in due:
                self._renew(session, "timestamp", documents.timestamp(session))
        return bool(due)

    def documents_to_carry(self) -> dict[str, bytes]:
        """Return all that a device without a network needs to verify the signed list, by the names of the files.

        The timestamp among them is believed for `CARRIED_LIFETIME`, seven times as long as a published one. It is never
        published, and the one that is published then has a higher version: a device that is connected has seen that,
        so nobody can pass the long-lived one off to it to keep news from it.
        """
        with self._database.write() as session:
            lock_for_transaction(session, "trust")
            self._publish_snapshot(session)  # anew, so that it outlives the way
            timestamp = documents.timestamp(session)
            timestamp.signed.version += 1
            timestamp.signed.expires = self._now() + CARRIED_LIFETIME
            timestamp.sign(self._signer(documents.root(session).signed, "timestamp"))
            found = {"timestamp.json": documents.to_bytes(timestamp)}
            self._renew(session, "timestamp", timestamp)
            for role in ("snapshot", "targets"):
                version = documents.newest(session, role)
                found[f"{version}.{role}.json"] = documents.raw(session, role, version)
            for version in range(1, documents.newest(session, "root") + 1):
                found[f"{version}.root.json"] = documents.raw(session, "root", version)
        return found

    def expiries(self) -> dict[str, float]:
        """Return when each role's newest document expires, seconds since the epoch."""
        with self._database.read() as session:
            return {role: documents.expires(session, role) for role in ROLES}

    def _begin(self) -> None:
        with self._database.read() as session:
            begun = documents.newest(session, "root") > 0
        if not begun:
            keys = make_keys(self._folder)
            with self._database.write() as session:
                lock_for_transaction(session, "trust")
                if documents.newest(session, "root") == 0:
                    self._first_documents(session, keys)
        self.tidy_keys()
        with self._database.read() as session:
            root = documents.root(session).signed
        lost = missing_keys(self._keys, root, _roles_signed_here(root))
        if lost is not None:
            raise lost

    def _first_documents(self, session: Session, keys: dict[str, CryptoSigner]) -> None:
        root = Root(expires=self._expiry("root"), consistent_snapshot=True)
        for role in ROLES:
            root.add_key(keys[role].public_key, role)
        targets = Targets(expires=self._expiry("targets"))
        set_restrictions(targets)
        firsts: dict[str, Any] = {
            "root": root,
            "targets": targets,
            "snapshot": Snapshot(expires=self._expiry("snapshot")),
            "timestamp": Timestamp(expires=self._expiry("timestamp")),
        }
        for role, signed in firsts.items():
            metadata: Metadata[Any] = Metadata(signed)
            metadata.sign(keys[role])
            documents.store(session, role, 1, documents.to_bytes(metadata))

    def _check_keys(self, root: Root) -> None:
        if trust_mode(root) is not TrustMode.RELEASE_KEY:
            raise ConflictError("a root that isn't made for release keys came; the way back is not offered")
        for role in ("root", "targets"):
            if self._keys.find(root, role) is not None:
                raise ConflictError(f"the new root gives this server a {role} key; only the online keys belong here")
        for role in ONLINE_ROLES:
            if root.roles[role].threshold != 1 or self._keys.find(root, role) is None:
                raise ConflictError(
                    f"the new root names {role} keys that this server does not hold, so it could sign nothing",
                    hint="make the root anew from this server's present one",
                )

    def _check_unexpired(self, what: str, signed: Root | Targets) -> None:
        if signed.is_expired(datetime.fromtimestamp(self._clock(), UTC)):
            raise ExpiredError(
                f"the {what} expired at {signed.expires.isoformat()}", hint="sign it again with a later date"
            )

    def _store_list(self, session: Session, root: Root, raw: bytes, held: Held) -> None:
        metadata, present = parse_targets(raw), documents.targets(session)
        check_signed(root, Targets.type, metadata, whose="the root")
        if metadata.signed.version != present.signed.version + 1:
            raise StaleListError(
                f"the signed list has version {metadata.signed.version}, expected {present.signed.version + 1}",
                hint="fetch the present list, add to it, sign it again",
            )
        self._check_unexpired("signed list", metadata.signed)
        check_next_list(signed_list(present.signed), signed_list(metadata.signed), held)
        documents.store(session, "targets", metadata.signed.version, raw)

    def _change_list(self, session: Session, change: Callable[[Targets], None]) -> None:
        lock_for_transaction(session, "trust")
        self._renew(session, "targets", documents.targets(session), change)
        self._publish_snapshot(session)

    def _publish_snapshot(self, session: Session) -> None:
        targets = documents.newest(session, "targets")

        def list_targets(snapshot: Snapshot) -> None:
            snapshot.meta["targets.json"] = MetaFile(version=targets)

        self._renew(session, "snapshot", documents.snapshot(session), list_targets)
        snapshot = documents.newest(session, "snapshot")

        def name_snapshot(timestamp: Timestamp) -> None:
            timestamp.snapshot_meta = MetaFile(version=snapshot)

        self._renew(session, "timestamp", documents.timestamp(session), name_snapshot)

    def _renew(
        self,
        session: Session,
        role: str,
        metadata: Metadata[_SignedT],
        change: Callable[[_SignedT], None] | None = None,
    ) -> None:
        if change is not None:
            change(metadata.signed)
        metadata.signed.version += 1
        metadata.signed.expires = self._expiry(role)
        metadata.sign(self._signer(documents.root(session).signed, role))
        documents.store(session, role, metadata.signed.version, documents.to_bytes(metadata))

    def _signer(self, root: Root, role: str) -> Signer:
        """Return the signer of a role; another replica may have changed the keys, so the folder is asked again."""
        found = self._keys.find(root, role)
        if found is None:
            self._keys = load_keys(self._folder)
            found = self._keys.find(root, role)
        if found is None:
            raise missing_keys(self._keys, root, [role]) or AssertionError
        return found

    def _expiry(self, role: str) -> datetime:
        return self._now() + LIFETIMES[role]

    def _now(self) -> datetime:
        return datetime.fromtimestamp(self._clock(), UTC).replace(microsecond=0)

    def _due(self, session: Session) -> set[str]:
        now = self._clock()
        roles = _roles_signed_here(documents.root(session).signed)
        return {role for role in roles if documents.expires(session, role) - now < LIFETIMES[role].total_seconds() / 2}


def entity_tag(raw: bytes) -> str:
    """Return the HTTP entity tag of a document."""
    return f'"{sha256_digest(raw).removeprefix("sha256:")[:32]}"'


def _roles_signed_here(root: Root) -> tuple[str, ...]:
    return ROLES if trust_mode(root) is TrustMode.DEVELOPMENT else ONLINE_ROLES


def _version_of(raw: bytes) -> int:
    return parse_targets(raw).signed.version
