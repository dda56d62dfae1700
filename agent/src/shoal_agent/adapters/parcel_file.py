"""A parcel: the file that brings an assignment, and all that belongs to it, to a device without a network.

Read in place, never extracted; a name inside is only ever a key. Owns reading within bounds; leaves believing what it
reads to whoever verifies what comes over the network too.
"""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Self

import msgspec

from shoal_agent.errors import ParcelError
from shoal_protocol.bundle.manifest import MAX_MANIFEST_BYTES, Descriptor
from shoal_protocol.parcel import ABOUT, DESIRED, FORMAT, RECEIPT, TRUST, About, blob_member
from shoal_protocol.trust.envelope import MAX_ENVELOPE_BYTES

_HINT = "make it with: shoalctl device export NAME --output FILE"
_MAX_MEMBERS = 100_000
_MAX_DOCUMENT_BYTES = 32 << 20
_CHUNK = 1 << 20


class _Answer(io.BytesIO):
    """A document as an answer of HTTP."""

    def __init__(self, status: int, body: bytes) -> None:
        super().__init__(body)
        self.status = status


class ParcelFile:
    """A parcel that is open.

    Args:
        path: The file.

    Raises:
        ParcelError: It can't be read, is no parcel, or is of a newer form.
    """

    url = "parcel:"
    """What stands before the names of documents, where the TUF client expects a server."""

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            self._tar = tarfile.open(path, "r:")  # noqa: SIM115 - closed by `close`
        except (OSError, tarfile.TarError) as error:
            raise ParcelError(f"{path} can't be read as a parcel: {error}", hint=_HINT) from error
        try:
            self._members = self._index()
            self.about = self._about()
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let the file go."""
        self._tar.close()

    def desired(self) -> bytes:
        """Return the signed assignment.

        Raises:
            ParcelError: There is none.
        """
        return self._required(DESIRED, MAX_ENVELOPE_BYTES)

    def receipt(self) -> bytes | None:
        """Return the signed receipt for the device's mail; none: no mail has come."""
        return self._read(RECEIPT, MAX_ENVELOPE_BYTES)

    def manifest(self, digest: str) -> bytes:
        """Return a bundle's manifest.

        Raises:
            ParcelError: It is not in there.
        """
        return self._required(blob_member(digest), MAX_MANIFEST_BYTES)

    def copy_blob(self, blob: Descriptor, target: Path) -> None:
        """Copy a blob, of exactly its size.

        Raises:
            ParcelError: It is not in there, or of another size.
            OSError: The disk is full, or the file can't be read on.
        """
        member = self._members.get(blob_member(blob.digest))
        if member is None or member.size != blob.size:
            came = "lacks it" if member is None else f"has {member.size} bytes of it"
            raise ParcelError(f"{self._path}: the blob {blob.digest} has {blob.size} bytes, the parcel {came}")
        with self._open(member) as source, target.open("wb") as file:
            while chunk := source.read(_CHUNK):
                file.write(chunk)

    @contextmanager
    def open(self, method: str, path: str) -> Iterator[_Answer]:  # noqa: ARG002 - as of an HTTP client
        """Return a signed document as a server would: 404 where there is none, which ends the walk over roots."""
        name = path.removeprefix(f"{self.url}/trust/")
        body = self._read(f"{TRUST}{name}", _MAX_DOCUMENT_BYTES)
        yield _Answer(404 if body is None else 200, body or b"")

    def _index(self) -> dict[str, tarfile.TarInfo]:
        members: dict[str, tarfile.TarInfo] = {}
        try:
            for member in self._tar:
                if member.isreg():
                    members.setdefault(member.name, member)
                if len(members) > _MAX_MEMBERS:
                    raise ParcelError(f"{self._path} has more than {_MAX_MEMBERS} files")
        except (OSError, tarfile.TarError) as error:
            raise ParcelError(f"{self._path} breaks off: {error}", hint="copy it again") from error
        return members

    def _about(self) -> About:
        try:
            about = msgspec.json.decode(self._required(ABOUT, MAX_ENVELOPE_BYTES), type=About)
        except msgspec.DecodeError as error:
            raise ParcelError(f"{self._path}: {ABOUT} does not parse: {error}", hint=_HINT) from error
        if about.format > FORMAT:
            raise ParcelError(
                f"{self._path} has the form {about.format}, this agent knows {FORMAT}", hint="update the agent"
            )
        return about

    def _required(self, name: str, most: int) -> bytes:
        found = self._read(name, most)
        if found is None:
            raise ParcelError(f"{self._path} has no {name}", hint=_HINT)
        return found

    def _read(self, name: str, most: int) -> bytes | None:
        member = self._members.get(name)
        if member is None:
            return None
        if member.size > most:
            raise ParcelError(f"{self._path}: {name} has {member.size} bytes, at most {most} are read")
        try:
            with self._open(member) as file:
                return file.read()
        except (OSError, tarfile.TarError) as error:
            raise ParcelError(f"{self._path}: {name} can't be read: {error}", hint="copy it again") from error

    def _open(self, member: tarfile.TarInfo) -> IO[bytes]:
        file = self._tar.extractfile(member)
        assert file is not None  # regular files only
        return file
