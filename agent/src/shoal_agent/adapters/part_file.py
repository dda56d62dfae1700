"""A download under way, as it lies in the staging folder.

    <sha256>.part    bytes of the blob itself
    <sha256>.coded   bytes of a coded form of it (`shoal_protocol.bundle.codings`); decoded into .part when whole
    <sha256>.note    what these bytes are: coding, validator, where they came from

Bytes without a note are believed to be nothing. Nothing here is synced: what a power cut spoils is found when the whole
is hashed, and fetched again.
"""

from __future__ import annotations

from pathlib import Path

import msgspec

from shoal_protocol.bundle.codings import IDENTITY


class Note(msgspec.Struct, frozen=True, kw_only=True):
    """What the bytes of a download under way are.

    Attributes:
        total: How many there will be.
        coding: `IDENTITY`, or the coding of the form.
        base: Digest of the blob that the form was coded against; empty: none.
        etag: Strong validator of what is being downloaded; empty: there is none.
        source: URL of the server or mirror that gave the validator.
        mirrors: URLs of all mirrors that bytes came from.
    """

    total: int
    coding: str = IDENTITY
    base: str = ""
    etag: str = ""
    source: str = ""
    mirrors: tuple[str, ...] = ()


class PartFile:
    """The files of one download.

    Args:
        path: Of the part; the others lie beside it.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._coded = path.with_suffix(".coded")
        self._note = path.with_suffix(".note")

    def note(self) -> Note | None:
        """Return what the bytes are, None when that is not known; they then have to be fetched anew."""
        try:
            return msgspec.json.decode(self._note.read_bytes(), type=Note)
        except (OSError, msgspec.DecodeError):
            return None

    def collected(self, note: Note) -> Path:
        """Return where the bytes of a note are collected."""
        return self.path if note.coding == IDENTITY else self._coded

    def size(self, note: Note) -> int:
        """Return how many bytes have come."""
        try:
            return self.collected(note).stat().st_size
        except FileNotFoundError:
            return 0

    def begin(self, note: Note) -> None:
        """Forget what there is, and take down what will come."""
        self.discard()
        self.write(note)

    def write(self, note: Note) -> None:
        """Take down what the bytes are, at once or not at all."""
        temporary = self._note.with_suffix(".note.tmp")
        temporary.write_bytes(msgspec.json.encode(note))
        temporary.replace(self._note)

    def decoded(self, note: Note) -> None:
        """The part holds the whole blob now; forget the form that it was decoded from."""
        self.write(note)
        self._coded.unlink(missing_ok=True)

    def discard(self) -> None:
        """Forget the download."""
        for path in (self._note, self._coded, self.path):
            path.unlink(missing_ok=True)
