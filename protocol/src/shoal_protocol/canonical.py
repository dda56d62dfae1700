"""One byte form for every JSON document that is hashed or signed: RFC 8785.

Owns canonical JSON, digests, and the rounding of derived floats that keeps digests equal across machines.
"""

from __future__ import annotations

import hashlib
import math
import re
from typing import Any, NewType

import rfc8785

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
        return rfc8785.dumps(value)
    except (rfc8785.CanonicalizationError, TypeError, UnicodeEncodeError, RecursionError) as error:
        raise ContentError(f"this value has no canonical JSON form: {error}") from error


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
