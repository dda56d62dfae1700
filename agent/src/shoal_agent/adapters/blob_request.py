"""What is asked for a blob, and what an answer means: codings, ranges, validators. Pure.

Owns the rules of HTTP that a download rests on (RFC 9110, sections 8.4, 13.1.5 and 14; RFC 9842). Leaves sending,
writing and decoding to `shoal_agent.adapters.download`.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from shoal_agent.adapters.part_file import Note
from shoal_agent.errors import TransportError
from shoal_protocol.bundle.codings import DCZ, DICTIONARY_HEADER, IDENTITY, CodingError, dictionary_header
from shoal_protocol.bundle.manifest import Descriptor
from shoal_protocol.errors import DigestMismatchError


class Terms(msgspec.Struct, frozen=True):
    """What a download takes.

    Attributes:
        blob: What it is to become; its size and digest are signed.
        codings: In which it may come, besides as it is.
        base: Digest of the stored blob that `DCZ` may be coded against.
    """

    blob: Descriptor
    codings: tuple[str, ...] = ()
    base: str = ""

    def takes(self, note: Note) -> bool:
        """Tell whether what a note describes can still become the blob."""
        if note.coding == IDENTITY:
            return note.total == self.blob.size
        base = self.base if note.coding == DCZ else ""
        return note.coding in self.codings and note.base == base and note.etag != "" and note.total < self.blob.size


class Place(msgspec.Struct, frozen=True):
    """Who is asked.

    Attributes:
        url: Of the server or mirror.
        is_mirror: Whether it is a mirror.
    """

    url: str
    is_mirror: bool = False


def request_headers(terms: Terms, place: Place, *, note: Note | None = None, done: int = 0) -> dict[str, str]:
    """Return the headers that ask for a blob, or for the rest of what was begun.

    A validator is only good where it came from. The bytes of the blob itself are the same everywhere, so from another
    place they are asked for without one; a form may be another one elsewhere, so there it is asked for with it, and
    comes from its beginning if it is.

    Args:
        terms: What is taken.
        place: Who is asked.
        note: What was begun.
        done: Bytes of that, above 0.
    """
    codings = terms.codings if note is None else (note.coding,)
    headers = {"Accept-Encoding": ", ".join(codings or (IDENTITY,))}
    if DCZ in codings:
        headers[DICTIONARY_HEADER] = dictionary_header(terms.base)
    if note is not None:
        headers["Range"] = f"bytes={done}-"
        if note.etag and (note.source == place.url or note.coding != IDENTITY):
            headers["If-Range"] = note.etag
    return headers


def answered(
    terms: Terms, place: Place, *, status: int, headers: Mapping[str, str], note: Note | None, done: int
) -> tuple[int, Note]:
    """Return where in the file an answer's body begins, and what the file then is.

    Args:
        terms: What is taken.
        place: Who was asked.
        status: 200 or 206.
        headers: Of the answer, in any case.
        note: What was begun, as in the request.
        done: Bytes of that.

    Raises:
        TransportError: It is not what was asked for.
        DigestMismatchError: It is of another size than was signed.
        CodingError: It is a form of no use.
    """
    coding = (headers.get("Content-Encoding") or IDENTITY).strip().lower()
    if status == 206:
        return done, _continued(
            terms, place, coding=coding, span=headers.get("Content-Range") or "", note=note, at=done
        )
    length = headers.get("Content-Length") or ""
    total = int(length) if length.isascii() and length.isdecimal() and len(length) < 20 else None
    begun = Note(
        total=terms.blob.size,
        etag=_strong(headers.get("ETag")),
        source=place.url,
        mirrors=(place.url,) if place.is_mirror else (),
    )
    if coding == IDENTITY:
        if total is not None and total > terms.blob.size:
            raise too_many(begun, terms.blob)
        return 0, begun
    if coding not in terms.codings:
        raise TransportError(f"the blob came in the coding {coding!r:.40}, which was not asked for")
    if total is None or total >= terms.blob.size:
        raise CodingError(f"a form of {length or 'unknown'} bytes saves nothing of {terms.blob.size}")
    return 0, msgspec.structs.replace(begun, total=total, coding=coding, base=terms.base if coding == DCZ else "")


def too_many(note: Note, blob: Descriptor) -> DigestMismatchError | CodingError:
    """Return what to say when more bytes come than there may be."""
    if note.coding != IDENTITY:
        return CodingError(f"more than the announced {note.total} bytes of the form came")
    what = f"what is sent has more than the {blob.size} signed bytes of {blob.digest}"
    return DigestMismatchError(what, digest=blob.digest)


def _continued(terms: Terms, place: Place, *, coding: str, span: str, note: Note | None, at: int) -> Note:
    """Return the note of a file that a partial answer goes on with."""
    if note is None or coding != note.coding or not span.startswith(f"bytes {at}-"):
        what = f"asked for bytes from {at}, got {span!r:.80} in the coding {coding!r:.40}"
        raise TransportError(what) if note is None or note.coding == IDENTITY else CodingError(what)
    if span.rpartition("/")[2] not in {"*", str(note.total)}:
        raise DigestMismatchError(
            f"what is sent has not the {note.total} bytes of {terms.blob.digest}, but is {span!r:.80}",
            digest=terms.blob.digest,
        )
    if not place.is_mirror or place.url in note.mirrors:
        return note
    return msgspec.structs.replace(note, mirrors=(*note.mirrors, place.url))


def _strong(etag: str | None) -> str:
    """Return a validator that can be used with ranges, else nothing (RFC 9110, section 13.1.5)."""
    return etag if etag and etag.isascii() and not etag.startswith("W/") and len(etag) < 256 else ""
