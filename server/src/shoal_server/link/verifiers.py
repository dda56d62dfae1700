"""How a device's secret is stored: as the line of a mosquitto password file.

One form serves the embedded endpoint, HTTP Basic of devices, and an external mosquitto. A hundred rounds are enough,
since the secrets are 256 random bits made by the server, never chosen by people.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac

_ROUNDS = 101
_SALT_BYTES = 12
_HASH_BYTES = 64


def verifier_line(secret: str, *, salt: bytes) -> str:
    """Return the verifier ``$7$101$<salt>$<hash>`` of a secret.

    Args:
        secret: At least 256 random bits, as text.
        salt: 12 random bytes.

    Raises:
        ValueError: The salt has another length.
    """
    if len(salt) != _SALT_BYTES:
        raise ValueError(f"expected a salt of {_SALT_BYTES} bytes, got {len(salt)}")
    digest = hashlib.pbkdf2_hmac("sha512", secret.encode(), salt, _ROUNDS, _HASH_BYTES)
    return f"$7${_ROUNDS}${base64.b64encode(salt).decode()}${base64.b64encode(digest).decode()}"


def verify_secret(secret: bytes, line: str) -> bool:
    """Tell whether a secret is the one of a verifier line; an unreadable line fits no secret."""
    try:
        empty, kind, rounds, salt, digest = line.split("$")
        expected = base64.b64decode(digest, validate=True)
        raw_salt = base64.b64decode(salt, validate=True)
    except (ValueError, binascii.Error):
        return False
    if (empty, kind, rounds) != ("", "7", str(_ROUNDS)):
        return False
    found = hashlib.pbkdf2_hmac("sha512", secret, raw_salt, _ROUNDS, len(expected) or _HASH_BYTES)
    return hmac.compare_digest(found, expected)
