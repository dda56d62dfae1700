"""The signed list of releases, kept by the server: TUF metadata in development trust.

Owns making, extending, restricting, renewing and serving the metadata of TUF's four top-level roles. In development
trust the server holds every key, so a push with a releaser's token is enough for a device to accept the bundle; the
server says so wherever it describes itself (`mode`).

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

from securesystemslib.signer import Signer
from sqlmodel import Session, col, delete, func, select
from tuf.api.metadata import Metadata, MetaFile, Root, Snapshot, Targets, Timestamp
from tuf.api.serialization.json import JSONSerializer

from shoal_protocol.canonical import Digest, sha256_digest
from shoal_protocol.errors import DigestMismatchError
from shoal_protocol.trust.targets import SignedList, release_target, set_restrictions, signed_list
from shoal_server.errors import NotFoundError
from shoal_server.registry.tables import TrustDocument
from shoal_server.registry.trust_keys import ROLES, DevelopmentKeys, load_keys, make_keys
from shoal_server.storage.database import Clock, Database, insert_ignore, lock_for_transaction

LIFETIMES = {
    "root": timedelta(days=3650),
    "targets": timedelta(days=90),
    "snapshot": timedelta(days=14),
    "timestamp": timedelta(days=2),
}
"""How long a device believes what was signed; each is renewed at half of it."""

_KEPT_VERSIONS = 20
_FILE_RE = re.compile(r"(?:(\d{1,9})\.)?(root|targets|snapshot|timestamp)\.json")

_SignedT = TypeVar("_SignedT", Root, Timestamp, Snapshot, Targets)


class TrustService:
    """Signs and serves the metadata of one server.

    Args:
        database: where the documents are.
        keys_folder: where the keys are, or are made at the first start.
        clock: for expiry.
    """

    mode = "development"
    """Who holds the keys: `development` means that this server holds all of them."""

    def __init__(self, database: Database, *, keys_folder: Path, clock: Clock) -> None:
        self._database = database
        self._clock = clock
        self._keys = self._begin(keys_folder)
        with database.read() as session:
            self.root_digest: Digest = sha256_digest(_raw(session, "root", 1))

    @property
    def assignment_signer(self) -> Signer:
        """The signer of assignments: the key of the timestamp role."""
        return self._keys["timestamp"]

    @property
    def targets_version(self) -> int:
        """Version of the signed list now, the floor of a device that joins now."""
        with self._database.read() as session:
            return _newest(session, "targets")

    def metadata(self, file: str) -> bytes:
        """Return a document by the name under which TUF clients ask for it, such as `3.targets.json`.

        Raises:
            NotFoundError: there is no such document; a client then knows that it has the newest root.
        """
        match = _FILE_RE.fullmatch(file)
        if match is None:
            raise NotFoundError(f"{file!r:.80} is no document of the trust metadata")
        with self._database.read() as session:
            version = int(match[1]) if match[1] else _newest(session, match[2])
            return _raw(session, match[2], version)

    def signed_list(self, session: Session) -> SignedList:
        """Return what the list allows now, as seen by the open transaction."""
        return signed_list(_load(session, "targets", Targets).signed)

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
        """Add a release to the signed list; the same release again changes nothing.

        Raises:
            DigestMismatchError: the list already names another digest for this version.
        """
        target = release_target(model, version, manifest_raw, counter=counter, platform=platform)
        current = _load(session, "targets", Targets).signed.targets.get(target.path)
        if current is not None:
            if current.hashes != target.hashes:
                raise DigestMismatchError(
                    f"{target.path} is released with another digest", found=current.hashes["sha256"]
                )
            return

        def add(targets: Targets) -> None:
            targets.targets[target.path] = target

        self._change_list(session, add)

    def set_denied(self, session: Session, digest: str, *, denied: bool) -> None:
        """Put a digest on the signed deny list, or lift it from there."""

        def restrict(targets: Targets) -> None:
            known = signed_list(targets)
            deny = known.deny | {digest} if denied else known.deny - {digest}
            set_restrictions(targets, deny=deny, minimum=known.minimum)

        self._change_list(session, restrict)

    def refresh(self) -> bool:
        """Renew whatever has lived half its lifetime, with all that refers to it; True when something was."""
        with self._database.read() as session:
            due = self._due(session)
        if not due:
            return False
        with self._database.write() as session:
            lock_for_transaction(session, "trust")
            due = self._due(session)
            if "root" in due:
                self._renew(session, "root", Root)
            if "targets" in due:
                self._change_list(session, lambda _targets: None)
            elif "snapshot" in due:
                self._publish_snapshot(session)
            elif "timestamp" in due:
                self._renew(session, "timestamp", Timestamp)
        return bool(due)

    def expiries(self) -> dict[str, float]:
        """Return when each role's newest document expires, seconds since the epoch."""
        with self._database.read() as session:
            return {role: _expires(session, role) for role in ROLES}

    def _begin(self, folder: Path) -> DevelopmentKeys:
        with self._database.read() as session:
            begun = _newest(session, "root") > 0
        if begun:
            return load_keys(folder)
        keys = make_keys(folder)
        with self._database.write() as session:
            lock_for_transaction(session, "trust")
            if _newest(session, "root") == 0:
                self._first_documents(session, keys)
        return load_keys(folder)

    def _first_documents(self, session: Session, keys: DevelopmentKeys) -> None:
        root = Root(expires=self._expiry("root"), consistent_snapshot=True)
        for role in ROLES:
            root.add_key(keys[role].public_key, role)
        targets = Targets(expires=self._expiry("targets"))
        set_restrictions(targets)
        for role, signed in (
            ("root", root),
            ("targets", targets),
            ("snapshot", Snapshot(expires=self._expiry("snapshot"))),
            ("timestamp", Timestamp(expires=self._expiry("timestamp"))),
        ):
            _store(session, role, Metadata(signed), keys[role])

    def _change_list(self, session: Session, change: Callable[[Targets], None]) -> None:
        lock_for_transaction(session, "trust")
        self._renew(session, "targets", Targets, change)
        self._publish_snapshot(session)

    def _publish_snapshot(self, session: Session) -> None:
        targets = _newest(session, "targets")

        def list_targets(snapshot: Snapshot) -> None:
            snapshot.meta["targets.json"] = MetaFile(version=targets)

        self._renew(session, "snapshot", Snapshot, list_targets)
        snapshot = _newest(session, "snapshot")

        def name_snapshot(timestamp: Timestamp) -> None:
            timestamp.snapshot_meta = MetaFile(version=snapshot)

        self._renew(session, "timestamp", Timestamp, name_snapshot)

    def _renew(
        self, session: Session, role: str, kind: type[_SignedT], change: Callable[[_SignedT], None] | None = None
    ) -> None:
        metadata = _load(session, role, kind)
        if change is not None:
            change(metadata.signed)
        metadata.signed.version += 1
        metadata.signed.expires = self._expiry(role)
        _store(session, role, metadata, self._keys[role])

    def _expiry(self, role: str) -> datetime:
        now = datetime.fromtimestamp(self._clock(), UTC).replace(microsecond=0)
        return now + LIFETIMES[role]

    def _due(self, session: Session) -> set[str]:
        now = self._clock()
        return {role for role in ROLES if _expires(session, role) - now < LIFETIMES[role].total_seconds() / 2}


def _newest(session: Session, role: str) -> int:
    query = select(func.max(TrustDocument.version)).where(TrustDocument.role == role)
    return session.exec(query).one() or 0


def _raw(session: Session, role: str, version: int) -> bytes:
    found = session.get(TrustDocument, (role, version))
    if found is None:
        raise NotFoundError(f"there is no version {version} of {role}.json")
    return found.raw


def _load(session: Session, role: str, _kind: type[_SignedT]) -> Metadata[_SignedT]:
    return Metadata[_SignedT].from_bytes(_raw(session, role, _newest(session, role)))


def _expires(session: Session, role: str) -> float:
    metadata: Metadata[Any] = Metadata.from_bytes(_raw(session, role, _newest(session, role)))
    return float(metadata.signed.expires.timestamp())


def _store(session: Session, role: str, metadata: Metadata[Any], signer: Signer) -> None:
    metadata.sign(signer)
    version = metadata.signed.version
    raw = metadata.to_bytes(JSONSerializer(compact=True))
    if not insert_ignore(session, TrustDocument, {"role": role, "version": version, "raw": raw}):
        raise RuntimeError(f"version {version} of {role}.json is already signed; two changes ran at once")
    if role != "root":  # the walk from an old root to the newest needs every one of them
        old = delete(TrustDocument).where(
            col(TrustDocument.role) == role, col(TrustDocument.version) <= version - _KEPT_VERSIONS
        )
        session.exec(old)
