"""One byte form for every JSON document that is hashed or signed: RFC 8785.

Owns canonical JSON, digests, and the rounding of derived floats that keeps digests equal across machines. Nearly every
document holds nothing but plain texts and middling numbers, for which msgspec writes the same bytes seven times faster;
all others are left to rfc8785, the reference that both are held against by a property test.
"""

from __future__ import annotations

import hashlib
import math
import re
from typing import Any, NewType

import msgspec

from shoal_protocol.errors import ContentError

Digest = NewType("Digest", str)
"""``sha256:`` and 64 lower-case hexadecimal digits."""

DIGEST_RE = re.compile(r"sha256:[0-9a-f]{64}")


def canonical_bytes(value: Any) -> bytes:
    """Encode a JSON-like value by the JSON Canonicalization Scheme (RFC 8785).

    Raises:
        ContentError: The value has no canonical form: a NaN, an infinity, an integer beyond 2**53, a non-string key, a
            text without a UTF-8 form, or too many levels.
    """
    try:
        return _sorted(_plain(value))
    except (_UnusualError, TypeError, UnicodeEncodeError, RecursionError):
        return _by_the_book(value)


def sha256_digest(data: bytes | bytearray | memoryview) -> Digest:
    """Return the digest of the raw bytes."""
    return Digest("sha256:" + hashlib.sha256(data).hexdigest())


def parse_digest(text: str) -> Digest:
    """Validate a digest.

    Raises:
        ContentError: The text is not ``sha256:`` followed by 64 lower-case hexadecimal digits.
    """
    if DIGEST_RE.fullmatch(text) is None:
        raise ContentError(f"expected a digest 'sha256:' + 64 hexadecimal digits, got {text!r:.100}")
    return Digest(text)


def rounded(value: float, digits: int = 6) -> float:
    """Round to significant digits, so that a derived float is the same on every machine of one CPU family.

    >>> rounded(0.12345678)
    0.123457
    """
    if value == 0 or not math.isfinite(value):
        return float(value)
    return float(f"{value:.{digits - 1}e}")


_EXACT_INTEGERS = 2**53
_PLAIN_FLOATS = (1e-4, 1e15)
"""Between these, ECMAScript and msgspec both write all digits and no exponent."""

_sorted = msgspec.json.Encoder(order="sorted").encode


class _UnusualError(Exception):
    """A value that msgspec may write otherwise than RFC 8785 wants."""


def _plain(value: Any) -> Any:
    """Return an equal value of which msgspec makes the canonical bytes; whole floats become integers."""
    kind = type(value)
    if kind is str:
        if value.isprintable():  # no control characters, no surrogates
            return value
    elif kind is int:
        if -_EXACT_INTEGERS < value < _EXACT_INTEGERS:
            return value
    elif value is None or kind is bool:
        return value
    elif kind is float:
        if _PLAIN_FLOATS[0] <= abs(value) <= _PLAIN_FLOATS[1] or value == 0:
            return int(value) if value.is_integer() else value
    elif kind is dict:
        if all(type(key) is str and key.isascii() and key.isprintable() for key in value):  # others sort by UTF-16
            return {key: _plain(entry) for key, entry in value.items()}
    elif kind is list or kind is tuple:
        return [_plain(entry) for entry in value]
    raise _UnusualError


def _by_the_book(value: Any) -> bytes:
    import rfc8785  # noqa: PLC0415 - few documents need it, and every start of an agent would pay

    try:
        return rfc8785.dumps(value)
    except (rfc8785.CanonicalizationError, TypeError, UnicodeEncodeError, RecursionError) as error:
        raise ContentError(f"this value has no canonical JSON form: {error}") from error
