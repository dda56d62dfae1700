"""Challenges that devices sign: made without a trace, good once and for a short time.

A challenge is `<ms since the epoch>.<random>.<mark>`; the mark (HMAC-SHA256 under a key of this installation's) binds
it to its subject and to this server, so nothing is stored when anybody asks for one. What was answered is stored with
the device: the time of the newest challenge. An older or equal one is refused, so a recorded answer is worth nothing.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets

from sqlmodel import Session

from shoal_server.errors import UnauthorizedError
from shoal_server.fleet.tables import ServerKeyRow
from shoal_server.storage.database import lock_for_transaction

LASTS_S = 120.0
MAX_SUBJECT = 64
_KEY = "challenges"
_LONGEST = 200


class ChallengeError(UnauthorizedError):
    """A challenge is not this server's, for another subject, too old, or answered already."""

    code = "challenge"


def key_of(session: Session) -> bytes | None:
    """Return the installation's key; none before it was made."""
    row = session.get(ServerKeyRow, _KEY)
    return None if row is None else bytes.fromhex(row.value)


def make_key(session: Session) -> bytes:
    """Make the key, unless another server just did; for an open write transaction."""
    lock_for_transaction(session, "server_keys")
    found = key_of(session)
    if found is None:
        found = secrets.token_bytes(32)
        session.add(ServerKeyRow(name=_KEY, value=found.hex()))
    return found


def make_challenge(key: bytes, subject: str, *, now: float, nonce: bytes) -> str:
    """Return a challenge.

    Args:
        key: Of the installation.
        subject: Id of the join token or device that may answer it.
        now: Seconds since the epoch.
        nonce: 16 random bytes.
    """
    head = f"{round(now * 1000)}.{nonce.hex()}"
    return f"{head}.{_mark(key, subject, head)}"


def check_challenge(key: bytes | None, challenge: str, subject: str, *, now: float, answered_ms: int) -> int:
    """Return when a challenge was made, milliseconds since the epoch.

    Args:
        key: Of the installation; none: it never made one.
        challenge: As the device sent it back.
        subject: Who answers.
        now: Seconds since the epoch.
        answered_ms: When the newest challenge was made that this device answered; 0: it never did.

    Raises:
        ChallengeError: It must not be answered.
    """
    head, _, mark = challenge[:_LONGEST].rpartition(".")
    again = "ask for a new one: GET /api/v1/device/challenge"
    if key is None or not hmac.compare_digest(mark.encode(), _mark(key, subject, head).encode()):
        raise ChallengeError("this challenge is not one that this server made for you", hint=again)
    made_ms = int(head.partition(".")[0])
    if not -LASTS_S <= now - made_ms / 1000 <= LASTS_S:  # another server's clock may be ahead
        raise ChallengeError(f"this challenge is older than {LASTS_S:g} s", hint=again)
    if made_ms <= answered_ms:
        raise ChallengeError("this challenge, or a newer one, was answered already", hint=again)
    return made_ms


def _mark(key: bytes, subject: str, head: str) -> str:
    return hmac.new(key, f"{subject}\n{head}".encode(), hashlib.sha256).hexdigest()
