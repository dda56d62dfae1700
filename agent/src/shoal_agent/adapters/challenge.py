"""Asking the server for a challenge to sign, and reading why it refuses what was asked of it."""

from __future__ import annotations

from urllib.parse import quote

import msgspec

from shoal_agent.adapters.http_client import HttpClient
from shoal_agent.errors import TransportError
from shoal_protocol.errors import PeerError
from shoal_protocol.trust.enrolment import CHALLENGE_PATH, Challenge


class _Problem(msgspec.Struct):
    title: str = ""
    detail: str = ""
    hint: str = ""


def fetch_challenge(http: HttpClient, subject: str) -> str:
    """Return a challenge of the server's.

    Args:
        http: To the server.
        subject: Id of the join token, or of this device.

    Raises:
        PeerError: The server can't be reached or refuses.
    """
    status, _, body = http.exchange("GET", f"{CHALLENGE_PATH}?subject={quote(subject, safe='')}")
    if status != 200:
        raise refusal(status, body, hint="is this a Shoal server?")
    try:
        return msgspec.json.decode(body, type=Challenge).challenge
    except msgspec.DecodeError as error:
        raise TransportError(f"GET {CHALLENGE_PATH}: the answer does not parse: {error}") from error


def refusal(status: int, body: bytes, *, hint: str) -> PeerError:
    """Return the error that an answer stands for.

    Args:
        status: Of the answer.
        body: Problem details (RFC 9457), or anything.
        hint: What to do when the server doesn't say.
    """
    try:
        problem = msgspec.json.decode(body, type=_Problem)
    except msgspec.DecodeError:
        problem = _Problem()
    told = problem.detail or problem.title or f"HTTP status {status}"
    return PeerError(f"the server refused this device: {told}", hint=problem.hint or hint, status=status)
