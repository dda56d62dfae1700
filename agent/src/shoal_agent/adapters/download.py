"""Downloads of manifests and blobs over the OCI distribution API: resumed, as small as can be, from the nearest place.

A blob may come as it is, compressed, or coded against a blob that is stored here (`shoal_protocol.bundle.codings`); the
server sends the smallest that it has of those that are asked for. It may come from a mirror, or by a redirect.

What is relied on is only the signed size and digest:
    - Never more bytes are written than were signed, and a form has fewer than the blob. What is decoded is bounded by
      the signed size while it is decoded.
    - A part is believed for its length only. A resumed request carries If-Range where the validator is of the same
      source; the whole is hashed again from byte 0 before it is taken over (`FolderBlobStore.adopt`).
    - Whatever is wrong with a form, the blob is then fetched as it is; whatever is wrong with a mirror, from the next
      place, the server at last.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from shoal_agent.adapters.blob_request import Place, Terms, answered, request_headers, too_many
from shoal_agent.adapters.http_client import HttpClient, read_bounded
from shoal_agent.adapters.part_file import Note, PartFile
from shoal_agent.adapters.sources import FAULT_REST_S, LIE_REST_S, Sources, mirrors_in
from shoal_agent.adapters.transfer import Pace, TooManyBytesError, Transfers
from shoal_agent.domain.disk_room import RESERVE_BYTES
from shoal_agent.errors import CancelledError, TransportError
from shoal_agent.ports import Cancelled, HeldBlob
from shoal_protocol.bundle.codings import (
    CODED_FROM_BYTES,
    DCZ,
    DCZ_MOST_BYTES,
    IDENTITY,
    ZSTD,
    CodingError,
    Decoder,
)
from shoal_protocol.bundle.manifest import MANIFEST_MEDIA_TYPE, MAX_MANIFEST_BYTES, Descriptor
from shoal_protocol.canonical import Digest, parse_digest, sha256_digest
from shoal_protocol.errors import DigestMismatchError

if TYPE_CHECKING:
    from urllib3 import BaseHTTPResponse

_PIECE = 1 << 16
_log = logging.getLogger(__name__)

MIRROR_PACE = Pace(min_bytes_per_s=1024.0, patience_s=20.0)
"""A mirror that is slower has no use: the next place goes on where it stopped."""


class _Wanted(msgspec.Struct, frozen=True):
    """One blob that is being fetched."""

    model: str
    blob: Descriptor
    file: PartFile
    held: HeldBlob | None
    cancelled: Cancelled
    came: Callable[[float], None]

    @property
    def path(self) -> str:
        return f"/v2/{self.model}/blobs/{self.blob.digest}"


class OciFetcher:
    """Fetches from ``/v2/`` of the server and its mirrors.

    Args:
        sources: Where from.
        transfers: How fast.
        patch_bytes: Memory that decoding against a stored blob may take: that of both blobs.
    """

    def __init__(self, sources: Sources, transfers: Transfers, *, patch_bytes: int = DCZ_MOST_BYTES) -> None:
        self._sources = sources
        self._transfers = transfers
        self._patch_bytes = patch_bytes
        self._plain: set[str] = set()

    def manifest(self, model: str, digest: str, *, size: int) -> bytes:
        """Return a manifest's bytes, checked against digest and signed size; the server is asked first.

        Raises:
            TransportError: Try again later.
            DigestMismatchError: The server holds something else under this name.
        """
        *mirrors, server = self._sources.order()
        try:
            return self._manifest(server, model, digest, size=size)
        except TransportError:
            for mirror in mirrors:
                with suppress(TransportError, DigestMismatchError):
                    return self._manifest(mirror, model, digest, size=size)
            raise

    def blob(
        self, model: str, blob: Descriptor, part: Path, *, cancelled: Cancelled, held: HeldBlob | None = None,
        came: Callable[[float], None] = lambda _share: None,
    ) -> None:  # fmt: skip
        """Complete a part file.

        Args:
            model: Repository.
            blob: What is to come.
            part: Where it is collected; other files of the download lie beside it.
            cancelled: Tells that it is given up.
            held: A stored blob that is likely to be like this one.
            came: Told after every read which share of what travels is there, 0 to 1.

        Raises:
            TransportError: It broke off or was too slow; what came is kept.
            DigestMismatchError: The server sends other bytes than were signed.
            CancelledError: It was given up; what came is kept.
        """
        wanted = _Wanted(model, blob, PartFile(part), held, cancelled, came)
        for source in self._sources.order():
            try:
                self._complete(source, wanted)
            except CancelledError:
                raise
            except (TransportError, DigestMismatchError) as error:
                if source is self._sources.server:
                    raise
                rest_s = FAULT_REST_S if isinstance(error, TransportError) else LIE_REST_S
                self._sources.rest(source.url, error.message, seconds=rest_s)
            else:
                return

    def _manifest(self, source: HttpClient, model: str, digest: str, *, size: int) -> bytes:
        path = f"/v2/{model}/manifests/{digest}"
        with source.open("GET", path, headers={"Accept": MANIFEST_MEDIA_TYPE}) as response:
            _expect(response.status, {200}, path)
            raw = read_bounded(response, MAX_MANIFEST_BYTES)
            link = response.headers.get("Link")
        if len(raw) != size or sha256_digest(raw) != digest:
            raise DigestMismatchError(
                f"the manifest that came has {len(raw)} bytes and {sha256_digest(raw)}, signed are {size} and {digest}",
                digest=digest,
            )
        if source is self._sources.server:
            self._sources.name(mirrors_in(link, path))
        return raw

    def _complete(self, source: HttpClient, wanted: _Wanted) -> None:
        """Fetch what is missing from one place; a form that is no good is replaced by the blob itself."""
        blob, file = wanted.blob, wanted.file
        try:
            note = self._collected(source, wanted)
            if note.coding != IDENTITY:
                self._decode(note, wanted)
        except (CodingError, MemoryError) as error:
            _log.warning("the coded form of %s is left out: %s", blob.digest, error)
            file.discard()
            self._plain.add(blob.digest)
            note = self._collected(source, wanted)
        if note.coding == IDENTITY and note.mirrors:
            self._check(note, wanted)

    def _collected(self, source: HttpClient, wanted: _Wanted) -> Note:
        """Collect all bytes of the blob, or of a form of it; return what they are."""
        file, terms = wanted.file, self._terms(wanted)
        place = Place(source.url, is_mirror=source is not self._sources.server)
        note = self._begun(file, terms)
        done = 0 if note is None else file.size(note)
        if note is not None and done == note.total:
            return note
        asked = request_headers(terms, place, note=note, done=done)
        with source.open("GET", wanted.path, headers=asked) as response:
            if response.status == 416:  # what was begun goes on nowhere: it is not what is offered here
                file.discard()
            _expect(response.status, {200, 206}, wanted.path)
            head = response.headers
            start, note = answered(terms, place, status=response.status, headers=head, note=note, done=done)
            if start:
                file.write(note)
            else:
                file.begin(note)
            self._collect(response, note, wanted, start=start, place=place)
        if file.size(note) != note.total:
            raise TransportError(
                f"the download of {wanted.blob.digest} broke off at {file.size(note)} of {note.total} bytes"
            )
        return note

    def _collect(self, response: BaseHTTPResponse, note: Note, wanted: _Wanted, *, start: int, place: Place) -> None:
        try:
            self._transfers.collect(
                response,
                wanted.file.collected(note),
                start=start,
                limit=note.total,
                pace=MIRROR_PACE if place.is_mirror else None,
                cancelled=wanted.cancelled,
                came=wanted.came,
            )
        except TooManyBytesError:
            raise too_many(note, wanted.blob) from None

    def _begun(self, file: PartFile, terms: Terms) -> Note | None:
        """Return what there is of the download, if it is of use; else forget it."""
        note = file.note()
        if note is not None and terms.takes(note) and 0 < file.size(note) <= note.total:
            return note
        if note is None or file.size(note):
            file.discard()
        return None

    def _terms(self, wanted: _Wanted) -> Terms:
        """Return what the blob may come as."""
        import shutil  # noqa: PLC0415 - 2 ms with its compressors, which a start should not pay

        blob, held = wanted.blob, wanted.held
        if blob.size < CODED_FROM_BYTES or blob.digest in self._plain:
            return Terms(blob)
        if shutil.disk_usage(wanted.file.path.parent).free < 2 * blob.size + RESERVE_BYTES:
            return Terms(blob)  # no room for a form beside the blob
        if held is None or held.blob.size < CODED_FROM_BYTES:
            return Terms(blob, (ZSTD,))
        if max(blob.size, held.blob.size) > DCZ_MOST_BYTES or blob.size + held.blob.size > self._patch_bytes:
            return Terms(blob, (ZSTD,))
        return Terms(blob, (ZSTD, DCZ), held.blob.digest)

    def _decode(self, note: Note, wanted: _Wanted) -> None:
        """Decode a form into the part, within the signed size.

        Raises:
            CodingError: The form is not one of what was signed.
            CancelledError: It was given up; the form is kept.
        """
        blob = wanted.blob
        base = wanted.held if note.coding == DCZ else None
        decoder = Decoder(note.coding, size=blob.size, dictionary=None if base is None else _content(base))
        digest = hashlib.sha256()
        with wanted.file.collected(note).open("rb") as form, wanted.file.path.open("wb") as part:
            while piece := form.read(_PIECE):
                if wanted.cancelled():
                    raise CancelledError(f"the decoding of {blob.digest} was given up")
                for data in decoder.feed(piece):
                    digest.update(data)
                    part.write(data)
        decoder.finish()
        if f"sha256:{digest.hexdigest()}" != blob.digest:
            raise CodingError("the form decodes to other bytes than were signed")
        _log.info("%s came as %d bytes of %s instead of %d", blob.digest, note.total, note.coding, blob.size)
        wanted.file.decoded(Note(total=blob.size))

    def _check(self, note: Note, wanted: _Wanted) -> None:
        """Hash what came from mirrors at once, while it is known which had a part in it.

        Raises:
            DigestMismatchError: It is not what was signed; it is discarded.
        """
        with wanted.file.path.open("rb") as part:
            found = hashlib.file_digest(part, "sha256").hexdigest()
        if f"sha256:{found}" == wanted.blob.digest:
            return
        wanted.file.discard()
        for url in note.mirrors:
            self._sources.rest(url, "it sent other bytes than were signed", seconds=LIE_REST_S)
        raise DigestMismatchError(
            f"expected {wanted.blob.digest}, got sha256:{found} from {', '.join(note.mirrors)}",
            digest=wanted.blob.digest,
        )


def _expect(status: int, allowed: set[int], path: str) -> None:
    if status not in allowed:
        raise TransportError(f"GET {path}: the server answered {status}", status=status)


def _content(held: HeldBlob) -> tuple[Digest, bytes]:
    """Return a stored blob as a dictionary.

    Raises:
        CodingError: It can't be read.
    """
    try:
        return parse_digest(held.blob.digest), held.read()
    except OSError as error:
        raise CodingError(f"{held.blob.digest}, which it was coded against, can't be read: {error}") from error
