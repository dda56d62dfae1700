"""Errors of the server, each with the HTTP status that tells it.

Owns the families that HTTP distinguishes and the protocol doesn't. `web.problems` translates every `ShoalError`; an
error without `status` gets that of its family.
"""

from typing import ClassVar

from shoal_protocol.errors import CallerError, LocalError


class NotFoundError(CallerError):
    """What the caller names isn't there."""

    code = "not_found"
    status: ClassVar[int] = 404


class ConflictError(CallerError):
    """The request contradicts what is already there."""

    code = "conflict"
    status: ClassVar[int] = 409


class PreconditionError(CallerError):
    """The caller edits a state that is no longer the current one (If-Match)."""

    code = "precondition_failed"
    status: ClassVar[int] = 412


class PreconditionRequiredError(CallerError):
    """The caller must say which state it edits (If-Match)."""

    code = "precondition_required"
    status: ClassVar[int] = 428


class UnauthorizedError(CallerError):
    """Who calls is unknown: no credentials, or wrong ones."""

    code = "unauthorized"
    status: ClassVar[int] = 401


class ForbiddenError(CallerError):
    """Who calls is known and isn't allowed this."""

    code = "forbidden"
    status: ClassVar[int] = 403


class ThrottledError(CallerError):
    """Too many attempts; `data["retry_after_s"]` says how long to wait."""

    code = "throttled"
    status: ClassVar[int] = 429


class TooLargeError(CallerError):
    """The body is larger than what is read here."""

    code = "too_large"
    status: ClassVar[int] = 413


class StartError(LocalError):
    """The server can't start on this machine with these settings."""

    code = "start"
