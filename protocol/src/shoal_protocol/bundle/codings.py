"""Content codings of blobs on their way to a device: compressed alone, or against a blob that the device holds.

Two codings of HTTP, both a single Zstandard frame (RFC 8878):

    zstd    the blob compressed alone, window of at most 8 MiB (RFC 9659)
    dcz     the blob compressed with another blob as its dictionary (RFC 9842, Compression Dictionary Transport):
            8 bytes of magic, the sha256 of the dictionary, then the frame; window of at most 128 MiB

Owns the bytes of both and the header that names a dictionary; leaves negotiation to the server and files to the agent.
Nothing here does I/O. A decoder never gives out more bytes than were signed, whatever the frame says.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterator
from typing import Final

from shoal_protocol.canonical import Digest, parse_digest
from shoal_protocol.errors import ContentError
from shoal_protocol.zstandard import zstandard

ZSTD: Final = "zstd"
DCZ: Final = "dcz"
IDENTITY: Final = "identity"

DICTIONARY_HEADER: Final = "Available-Dictionary"
"""Names the blob that the device holds: the sha256 as a byte sequence of RFC 8941, between colons."""

CODED_FROM_BYTES: Final = 4096
"""Smaller blobs travel as they are: a header more would cost what the coding saves."""

DCZ_MOST_BYTES: Final = 1 << 27
"""Larger blobs, and larger dictionaries, are not coded against each other: a device would need their memory."""

_DCZ_MAGIC: Final = bytes.fromhex("5e2a4d1820000000")
_DCZ_HEAD_BYTES: Final = len(_DCZ_MAGIC) + 32
_ALONE_WINDOW_LOG: Final = 23
_LEAST_WINDOW_LOG: Final = 10
_PIECE: Final = 1 << 18


class CodingError(ContentError):
    """What came is not the coding that it claims to be, or not of what was signed."""

    code = "coding"


class Encoder:
    """Codes one blob, piece by piece.

    Args:
        size: Of the blob, bytes; all of them must come.
        level: Of Zstandard, 1 to 22.
        dictionary: Digest and content of the blob that the device holds, `CODED_FROM_BYTES` or more; none: the blob is
            compressed alone.
    """

    def __init__(self, size: int, *, level: int, dictionary: tuple[Digest, bytes] | None = None) -> None:
        zstd = zstandard()
        key = zstd.CompressionParameter
        options: dict[int, int] = {key.compression_level: level, key.checksum_flag: 0}
        self._head = b""
        prefix = None
        if dictionary is None:
            options[key.window_log] = min(_window_log(size), _ALONE_WINDOW_LOG)
        else:
            digest, content = dictionary
            # So wide that a match may reach from the blob's last byte to the dictionary's first.
            options[key.window_log] = min(_window_log(size + len(content)), _window_log(DCZ_MOST_BYTES))
            options[key.enable_long_distance_matching] = 1
            prefix = zstd.ZstdDict(content, is_raw=True).as_prefix
            self._head = _dcz_head(digest)
        self._zstd = zstd.ZstdCompressor(options=options, zstd_dict=prefix)
        self._zstd.set_pledged_input_size(size)

    def feed(self, piece: bytes) -> bytes:
        """Take the next bytes of the blob; return what is ready of its coded form."""
        head, self._head = self._head, b""
        coded: bytes = self._zstd.compress(piece)
        return head + coded

    def finish(self) -> bytes:
        """Return the rest of the coded form.

        Raises:
            CodingError: Fewer or more bytes came than were announced.
        """
        try:
            coded = self.feed(b"")
            rest: bytes = self._zstd.flush(self._zstd.FLUSH_FRAME)
        except zstandard().ZstdError as error:
            raise CodingError(f"the blob was not of its announced size: {error}") from error
        return coded + rest


class Decoder:
    """Decodes one blob, piece by piece, within its signed size.

    Args:
        coding: `ZSTD` or `DCZ`.
        size: The blob's signed size, bytes; never more come out.
        dictionary: Digest and content of the blob that `DCZ` was made against.

    Raises:
        CodingError: The coding is unknown, or needs a dictionary that is not given.
    """

    def __init__(self, coding: str, *, size: int, dictionary: tuple[Digest, bytes] | None = None) -> None:
        self._left = size
        self._head: bytearray | None = None
        self._expected_head = b""
        window_log, prefix = _ALONE_WINDOW_LOG, None
        if coding == DCZ and dictionary is not None:
            digest, content = dictionary
            self._head, self._expected_head = bytearray(), _dcz_head(digest)
            window_log = max(_window_log(min(size + len(content), DCZ_MOST_BYTES)), _ALONE_WINDOW_LOG)
            prefix = zstandard().ZstdDict(content, is_raw=True).as_prefix
        elif coding != ZSTD:
            raise CodingError(f"expected the coding {ZSTD}, or {DCZ} with its dictionary, got {coding!r:.40}")
        zstd = zstandard()
        self._zstd = zstd.ZstdDecompressor(
            zstd_dict=prefix, options={zstd.DecompressionParameter.window_log_max: window_log}
        )

    def feed(self, piece: bytes) -> Iterator[bytes]:
        """Take the next coded bytes; give out what they decode to, in pieces of a bounded size.

        Raises:
            CodingError: They are no such coding, or decode to more than was signed.
        """
        if self._head is not None:
            piece = self._past_head(piece)
        while piece or not (self._zstd.needs_input or self._zstd.eof):
            if self._zstd.eof:
                raise CodingError("bytes follow after the end of the coded blob")
            try:
                found = self._zstd.decompress(piece, max_length=min(_PIECE, self._left + 1))
            except zstandard().ZstdError as error:
                raise CodingError(f"the coded blob is damaged: {error}") from error
            piece = b""
            if len(found) > self._left:
                raise CodingError("the coded blob decodes to more bytes than were signed")
            self._left -= len(found)
            if found:
                yield found
        if self._zstd.eof and self._zstd.unused_data:
            raise CodingError("bytes follow after the end of the coded blob")

    def finish(self) -> None:
        """Say that all coded bytes came.

        Raises:
            CodingError: The blob is not whole.
        """
        if not self._zstd.eof or self._left:
            raise CodingError(f"the coded blob ended {self._left} bytes short of what was signed")

    def _past_head(self, piece: bytes) -> bytes:
        """Collect the head of `DCZ`, compare it, and return what follows it in this piece."""
        assert self._head is not None
        missing = _DCZ_HEAD_BYTES - len(self._head)
        self._head += piece[:missing]
        if len(self._head) == _DCZ_HEAD_BYTES:
            if self._head != self._expected_head:
                raise CodingError("the coded blob was made against another dictionary than was asked for")
            self._head = None
        return piece[missing:]


def dictionary_header(digest: str) -> str:
    """Return the value of `DICTIONARY_HEADER` for a blob.

    >>> dictionary_header("sha256:" + "00" * 32)
    ':AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=:'
    """
    raw = bytes.fromhex(parse_digest(digest).removeprefix("sha256:"))
    return f":{base64.b64encode(raw).decode('ascii')}:"


def parse_dictionary_header(value: str) -> Digest | None:
    """Return the digest that `DICTIONARY_HEADER` names, None when it names none.

    >>> parse_dictionary_header(":AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=:")
    'sha256:0000000000000000000000000000000000000000000000000000000000000000'
    >>> parse_dictionary_header("sha256") is None
    True
    """
    text = value.strip()
    if len(text) != 46 or text[0] != ":" or text[-1] != ":":
        return None
    try:
        raw = base64.b64decode(text[1:-1].encode("ascii"), validate=True)
    except (binascii.Error, UnicodeEncodeError):
        return None
    return parse_digest(f"sha256:{raw.hex()}") if len(raw) == 32 else None


def _dcz_head(digest: str) -> bytes:
    return _DCZ_MAGIC + bytes.fromhex(digest.removeprefix("sha256:"))


def _window_log(size: int) -> int:
    return max((max(size, 1) - 1).bit_length(), _LEAST_WINDOW_LOG)
