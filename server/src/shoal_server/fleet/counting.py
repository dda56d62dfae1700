"""What devices count beyond their bundles, stored: one document a bundle, named by its digest in every assignment.

Owns that a document and the generations that name it are one transaction. Leaves what stands in it to the rooms above.
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec
from sqlmodel import Session, col, select

from shoal_protocol.canonical import sha256_digest
from shoal_protocol.trust.assignment import SlotTarget
from shoal_server.fleet.tables import CountingRow, DesiredRow


def countings(session: Session, bundles: Iterable[str]) -> dict[str, str]:
    """Return the digest of each bundle's document; bundles that are counted by themselves are left out."""
    wanted = select(CountingRow.bundle, CountingRow.digest).where(col(CountingRow.bundle).in_(sorted(set(bundles))))
    return dict(session.exec(wanted).all())


def counting_document(session: Session, digest: str) -> bytes | None:
    """Return the document with this digest; none: there is no such, or no longer."""
    return session.exec(select(CountingRow.body).where(CountingRow.digest == digest)).first()


def save_counting(session: Session, bundle: str, document: bytes | None, *, now: float) -> str | None:
    """Store what is counted of a bundle from now on; whoever assigns it then names it.

    Args:
        session: Of an open write transaction.
        bundle: Digest of the bundle.
        document: By `shoal_protocol.profile.counting`; none: the bundle alone says it.
        now: Seconds since the epoch.

    Returns:
        The document's digest.
    """
    row = session.get(CountingRow, bundle)
    if document is None:
        if row is not None:
            session.delete(row)
        return None
    digest = sha256_digest(document)
    session.merge(CountingRow(bundle=bundle, digest=digest, body=document, changed_at=now))
    return digest


def assigned_bundles(session: Session) -> dict[str, set[str]]:
    """Return the bundles that slots are assigned to run, each with the digests of documents by which it is counted."""
    found: dict[str, set[str]] = {}
    for slots in session.exec(select(DesiredRow.slots)):
        for stored in slots.values():
            target = msgspec.convert(stored, type=SlotTarget)
            if target.digest is not None:
                found.setdefault(target.digest, set()).add(target.counting or "")
    return found
