"""What can go wrong between a command and the server, and with which exit code it ends.

Owns the exit codes: 0 ok, 1 failed, 2 usage, 3 the watched rollout ended rolled back or failed, 4 not allowed;
`drift test` ends with 3 for drift and 4 for too few rows.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Any

from shoal_protocol.errors import CallerError, LocalError, PeerError, ShoalError


class ExitCode(IntEnum):
    """How shoalctl ends; programs rely on these."""

    OK = 0  # done
    FAILED = 1  # the server refused, or something broke on the way
    USAGE = 2  # the command line or a file that it names can't be understood
    ROLLED_BACK = 3  # the watched rollout ended rolled back, cancelled or failed
    NOT_ALLOWED = 4  # the credentials are missing, wrong or too weak
    DRIFT = 3  # `drift test`: the files differ
    TOO_FEW = 4  # `drift test`: not enough rows to say
    STOPPED = 130  # Ctrl-C


class UnreachableError(PeerError):
    """No answer came from the server."""

    code = "unreachable"


class ProblemError(PeerError):
    """The server answered with a problem (RFC 9457).

    Args:
        status: HTTP status.
        problem: the body, as far as it is a problem document.
    """

    code = "problem"

    def __init__(self, status: int, problem: dict[str, Any]) -> None:
        detail = str(problem.get("detail") or problem.get("title") or f"the server answered {status}")
        super().__init__(detail, hint=str(problem.get("hint") or ""), problem=problem)
        self.status = status
        self.problem_code = str(problem.get("code") or "")
        self.request_id = str(problem.get("request_id") or "")


class FileError(CallerError):
    """A file that the command line names can't be read or understood."""

    code = "file"


class SettingsError(LocalError):
    """Settings of shoalctl that can't be used."""

    code = "settings"


def exit_code_of(error: ShoalError) -> ExitCode:
    """Return the exit code that tells this error."""
    if isinstance(error, ProblemError):
        return ExitCode.NOT_ALLOWED if error.status in (401, 403) else ExitCode.FAILED
    return ExitCode.USAGE if isinstance(error, CallerError) else ExitCode.FAILED
