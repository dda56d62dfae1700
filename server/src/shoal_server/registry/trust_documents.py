"""The signed documents in the database, by role and version.

Owns queries and storing. What is signed, and by whom, is `trust`'s.

Invariant: what was signed once is never replaced by other bytes.
"""

from typing import Any

from sqlmodel import Session, col, delete, func, select
from tuf.api.metadata import Metadata, Root, Snapshot, Targets, Timestamp
from tuf.api.serialization.json import JSONSerializer

from shoal_server.errors import NotFoundError
from shoal_server.registry.tables import TrustDocument

_KEPT_VERSIONS = 20


def newest(session: Session, role: str) -> int:
    """Return the newest version of a role's document, 0 when there is none."""
    query = select(func.max(TrustDocument.version)).where(TrustDocument.role == role)
    return session.exec(query).one() or 0


def raw(session: Session, role: str, version: int) -> bytes:
    """Return a document's bytes; raises `NotFoundError`."""
    found = session.get(TrustDocument, (role, version))
    if found is None:
        raise NotFoundError(f"there is no version {version} of {role}.json")
    return found.raw


def newest_raw(session: Session, role: str) -> bytes:
    """Return the newest document's bytes."""
    return raw(session, role, newest(session, role))


def root(session: Session) -> Metadata[Root]:
    """Return the newest root."""
    return Metadata[Root].from_bytes(newest_raw(session, "root"))


def targets(session: Session) -> Metadata[Targets]:
    """Return the newest signed list."""
    return Metadata[Targets].from_bytes(newest_raw(session, "targets"))


def snapshot(session: Session) -> Metadata[Snapshot]:
    """Return the newest snapshot."""
    return Metadata[Snapshot].from_bytes(newest_raw(session, "snapshot"))


def timestamp(session: Session) -> Metadata[Timestamp]:
    """Return the newest timestamp."""
    return Metadata[Timestamp].from_bytes(newest_raw(session, "timestamp"))


def expires(session: Session, role: str) -> float:
    """Return when the newest document expires, seconds since the epoch."""
    metadata: Metadata[Any] = Metadata.from_bytes(newest_raw(session, role))
    return float(metadata.signed.expires.timestamp())


def to_bytes(metadata: Metadata[Any]) -> bytes:
    """Return the wire form."""
    return metadata.to_bytes(JSONSerializer(compact=True))


def store(session: Session, role: str, version: int, content: bytes) -> None:
    """Store a new version; of everything but roots, which devices walk over one by one, the newest are kept."""
    if session.get(TrustDocument, (role, version)) is not None:
        raise RuntimeError(f"version {version} of {role}.json is already signed; two changes ran at once")
    session.add(TrustDocument(role=role, version=version, raw=content))
    session.flush()
    if role != "root":
        old = delete(TrustDocument).where(
            col(TrustDocument.role) == role, col(TrustDocument.version) <= version - _KEPT_VERSIONS
        )
        session.exec(old)
