"""Secrets that people and pipelines hold: how they are made, and how they are kept without being known.

Passwords are chosen by people, so they are hashed slowly (argon2id). Tokens have 256 random bits, so one round of
SHA-256 is enough and finding a token by its hash leaks nothing.
"""

import hashlib
import secrets as system_secrets
import threading

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError

TOKEN_PREFIX = "shoal_"  # noqa: S105 - the public prefix by which scanners recognise a leaked token
MIN_PASSWORD_LENGTH = 10
_AT_ONCE = 4


def new_token() -> str:
    """Make an API token: the prefix and 256 random bits."""
    return TOKEN_PREFIX + system_secrets.token_urlsafe(32)


def new_password() -> str:
    """Make a password that can be typed: 24 characters, 120 bits."""
    alphabet = "abcdefghijkmnpqrstuvwxyz23456789"
    return "-".join("".join(system_secrets.choice(alphabet) for _ in range(6)) for _ in range(4))


def token_hash(token: str) -> str:
    """Return what is stored of a token or session cookie."""
    return hashlib.sha256(token.encode()).hexdigest()


class Passwords:
    """argon2id with the library's recommended cost, about 50 ms and 64 MB a try; at most four tries at once.

    Anybody may try a password, so what all tries together take has to have a bound.
    """

    def __init__(self, hasher: PasswordHasher | None = None) -> None:
        self._hasher = hasher or PasswordHasher()
        self._tries = threading.BoundedSemaphore(_AT_ONCE)
        self._nobody = self._hasher.hash(system_secrets.token_hex(16))

    def hash(self, password: str) -> str:
        """Return the hash to store, with its salt and cost inside."""
        with self._tries:
            return self._hasher.hash(password)

    def verify(self, stored: str | None, password: str) -> bool:
        """Tell whether the password is right; takes as long when there is nobody to compare with.

        Args:
            stored: what `hash` returned; None for a person who doesn't exist.
            password: what was typed.
        """
        try:
            with self._tries:
                self._hasher.verify(stored or self._nobody, password)
        except (VerificationError, InvalidHashError):
            return False
        return stored is not None
