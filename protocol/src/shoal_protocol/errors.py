"""The one error tree of Shoal, by who is at fault.

Every error that Shoal raises on purpose descends from `ShoalError`. A family says who has to act: the caller, the
other side of a connection, the author of a file or message, whoever signs, or this machine's own environment. A
distribution's root error subclasses one of the families, so that a command line or an HTTP layer can translate all of
them in one place.
"""

from __future__ import annotations

from typing import Any, ClassVar


class ShoalError(Exception):
    """Root of all errors raised on purpose.

    Args:
        message: What was expected, what came, in one or two sentences.
        hint: What to do next; shown below the message.
        data: Facts for programs (for example ``slot="quality"``); kept as the attribute `data`.
    """

    code: ClassVar[str] = "error"

    def __init__(self, message: str, *, hint: str = "", **data: Any) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.data = data


class CallerError(ShoalError):
    """The caller asked for something that can't be: a wrong argument, name or order of calls."""

    code = "usage"


class PeerError(ShoalError):
    """The other side of a connection did not answer, or not as agreed."""

    code = "peer"


class ContentError(ShoalError):
    """Bytes, a file or a message do not parse, or break a rule of their format."""

    code = "content"


class LocalError(ShoalError):
    """This machine lacks something: disk, memory, a permission, a plausible clock."""

    code = "local"


class TrustError(ShoalError):
    """Something is well-formed but not trusted."""

    code = "trust"


class UnsignedError(TrustError):
    """No valid signature of an expected key covers it, or the signed list does not name it."""

    code = "unsigned"


class DigestMismatchError(TrustError):
    """The bytes are not those that the digest names."""

    code = "digest_mismatch"


class ExpiredError(TrustError):
    """The signature was valid, but only until an instant that has passed."""

    code = "expired"


class RollbackError(TrustError):
    """Older than what was seen before: a replay, or a release below the signed minimum."""

    code = "rollback"


class DeniedError(TrustError):
    """On the signed deny list."""

    code = "denied"
