"""Coded forms of blobs: which there are, and which of them answers a request.

A blob may lie in the store a second time, compressed alone, and further times, compressed against blobs that devices
hold already (`shoal_protocol.bundle.codings`). A form is stored like any blob, under the digest of its coded bytes, but
belongs to no repository: it is pulled only as a content coding of the blob that it stands for, by whoever may pull that
one. Its ETag is its own, so ranges of a form never mix with those of another.

Owns the rows and the choice. Leaves making forms to `form_making`, and removing them to `collection`: a form goes when
its blob or its base goes, and one that was made against a base after `PATCH_KEPT_S`; a device that wants it then asks
for it anew.
"""

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass

from sqlmodel import Session, col, delete, select

from shoal_protocol.bundle.codings import DCZ, DICTIONARY_HEADER, ZSTD, parse_dictionary_header
from shoal_server.registry.tables import BlobForm
from shoal_server.storage.database import insert_ignore

PATCH_KEPT_S = 30 * 86_400.0
"""A rollout is over by then; what its devices came from is seldom come from again."""

PATCHES_A_BLOB = 8
"""So many forms against others are made of a blob at most; a device that lies about what it holds makes little work."""

VARY = f"Accept-Encoding, {DICTIONARY_HEADER}"
"""Tells caches what else than the address an answer depends on."""


_ZERO_RE = re.compile(r"\s*q\s*=\s*0(\.0*)?\s*", re.IGNORECASE)
"""A weight of nothing: the client does not take that coding."""


@dataclass(frozen=True)
class Accepted:
    """Which codings a client takes.

    Attributes:
        alone: Whether it takes blobs that are compressed alone.
        base: Digest of the blob against which it takes one; none: it takes no such thing.
    """

    alone: bool = False
    base: str | None = None


@dataclass(frozen=True)
class Form:
    """One coded form: the coding's name in HTTP, and digest and size of the coded bytes."""

    coding: str
    digest: str
    size: int


@dataclass(frozen=True)
class Choice:
    """What answers a request.

    Attributes:
        form: None: the blob as it is.
        missing: Bases, or "" for none, of forms that the client would take and nobody has tried to make.
    """

    form: Form | None
    missing: tuple[str, ...]


def accepted(headers: Mapping[str, str]) -> Accepted:
    """Read what a client takes (RFC 9110, section 12.5.3; RFC 9842).

    >>> accepted({"accept-encoding": "gzip, zstd;q=0.5", "available-dictionary": ":no:"})
    Accepted(alone=True, base=None)
    >>> accepted({"accept-encoding": "identity, zstd; q=0.0"})
    Accepted(alone=False, base=None)
    """
    taken = set()
    for entry in headers.get("accept-encoding", "").split(","):
        name, _, parameter = entry.partition(";")
        if not _ZERO_RE.fullmatch(parameter):
            taken.add(name.strip().lower())
    base = parse_dictionary_header(headers.get(DICTIONARY_HEADER.lower(), "")) if DCZ in taken else None
    return Accepted(alone=ZSTD in taken, base=base)


def choose(session: Session, digest: str, asked: Accepted) -> Choice:
    """Choose the smallest form of a blob that a client takes; none is larger than the blob."""
    bases = {*([""] if asked.alone else []), *([asked.base] if asked.base else [])}
    if not bases:
        return Choice(None, ())
    rows = {row.base: row for row in session.exec(select(BlobForm).where(BlobForm.digest == digest))}
    full = sum(base != "" for base in rows) >= PATCHES_A_BLOB
    missing = tuple(base for base in sorted(bases - set(rows)) if not (base and full))
    found = min((rows[base] for base in bases & set(rows) if rows[base].form), key=lambda row: row.size, default=None)
    if found is None:
        return Choice(None, missing)
    return Choice(Form(DCZ if found.base else ZSTD, found.form, found.size), missing)


def form_row(session: Session, digest: str, base: str) -> BlobForm | None:
    """Return what is known of one form, None when nobody has tried to make it."""
    return session.get(BlobForm, (digest, base))


def patches(session: Session, digest: str) -> int:
    """Return how many forms of a blob against others there are, or were found to save nothing."""
    return len(session.exec(select(BlobForm.base).where(BlobForm.digest == digest, BlobForm.base != "")).all())


def record(session: Session, row: BlobForm) -> None:
    """Write down what came of making a form; the caller holds `oci_store.lock_contents`."""
    insert_ignore(session, BlobForm, row.model_dump())


def stale(session: Session, linked: Collection[str], *, before: float) -> list[BlobForm]:
    """Return the forms whose time is over.

    Args:
        session: Of any transaction.
        linked: Digests of all blobs that stay.
        before: Patches that were made before this instant are stale, seconds since the epoch.
    """
    rows = session.exec(select(BlobForm)).all()
    return [row for row in rows if not _lives(row, linked) or (row.base and row.made_at < before)]


def remove(session: Session, rows: Collection[BlobForm]) -> None:
    """Forget forms; their bytes are then garbage."""
    for row in rows:
        session.exec(delete(BlobForm).where(col(BlobForm.digest) == row.digest, col(BlobForm.base) == row.base))


def stored_forms(session: Session) -> set[str]:
    """Return the digests of all coded bytes."""
    return set(session.exec(select(BlobForm.form).where(BlobForm.form != "")))


def _lives(row: BlobForm, linked: Collection[str]) -> bool:
    return row.digest in linked and (not row.base or row.base in linked)
