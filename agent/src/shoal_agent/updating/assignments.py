"""Taking assignments in: verified, in order, and refused with a reason.

A refused document changes nothing: the running models, the wishes and the generation stay as they are.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import msgspec

from shoal_agent.domain.device import DeviceState
from shoal_protocol.canonical import sha256_digest
from shoal_protocol.errors import ContentError, ExpiredError, TrustError

if TYPE_CHECKING:
    from shoal_protocol.trust.assignment import Assignment
    from shoal_protocol.trust.signed_list import SignedList


class AssignmentTrust(Protocol):
    """What verifying an assignment needs."""

    def opened(self, raw: bytes, kind: str, *, what: str) -> bytes:
        """Return the payload of an envelope that the timestamp role's key of the newest verified root signed."""

    def refresh(self) -> SignedList:
        """Fetch newer metadata, and with it a newer root."""

    def now_ms(self) -> int:
        """Return the reference time."""

    def check_time(self, time_ms: int) -> None:
        """Refuse a signed time that is too far ahead."""

    def raise_floors(self, *, targets_version: int = 0, time_ms: int = 0) -> None:
        """Remember a signed time."""


class Refusal(msgspec.Struct, frozen=True):
    """Why a document was refused.

    Attributes:
        code: Of the error.
        message: What was expected and what came.
        document: Digest of the document, so that one that comes again is told once.
        generation: That it was signed for; 0: it could not be verified.
    """

    code: str
    message: str
    document: str
    generation: int = 0


class AssignmentIntake:
    """Verifies the assignments of one device.

    Args:
        device: Its id.
        trust: Keys and reference time.
    """

    def __init__(self, device: str, trust: AssignmentTrust) -> None:
        self._device = device
        self._trust = trust
        self._last_raw = b""
        self._generation = 0
        self.refusal: Refusal | None = None
        self.credential = 0
        """Number of the credentials that the newest assignment asks for; 0: any."""

    def take(self, raw: bytes, state: DeviceState) -> Assignment | None:
        """Return a newer assignment; none when there is nothing new in it, or it was refused (see `refusal`).

        Raises:
            PeerError: The keys may have changed, and the server can't be asked: try this document again later.
            OSError: What it proves can't be saved, so it must not be acted on: try it again later.
        """
        if raw == self._last_raw:
            return None
        self._generation = 0
        try:
            assignment = self._verified(raw, state)
            self._trust.check_time(assignment.issued)
            is_new = (assignment.generation, assignment.content_digest) != (state.generation, state.content_hash)
            self._trust.raise_floors(time_ms=assignment.issued)
        except (TrustError, ContentError) as error:
            self.refusal = Refusal(error.code, error.message, sha256_digest(raw), self._generation)
            return None
        self._last_raw, self.refusal = raw, None
        self.credential = assignment.credential
        return assignment if is_new else None

    def verified(self, raw: bytes, state: DeviceState) -> Assignment:
        """Return an assignment that `take` would take, by the keys that are known, and remember nothing of it.

        Raises:
            TrustError: It can't be trusted, is expired, or is older than what was seen.
            ContentError: It does not parse.
            PeerError: As for `take`.
        """
        assignment = self._verified_now(raw)
        _check_succession(assignment, state)
        self._trust.check_time(assignment.issued)
        return assignment

    def _verified(self, raw: bytes, state: DeviceState) -> Assignment:
        try:
            assignment = self._verified_now(raw)
        except ExpiredError:
            raise
        except TrustError as distrusted:
            try:
                self._trust.refresh()  # a newer root may name another key; a damaged cache is made whole by it, too
            except TrustError:
                raise distrusted from None
            assignment = self._verified_now(raw)
        self._generation = assignment.generation
        _check_succession(assignment, state)
        return assignment

    def _verified_now(self, raw: bytes) -> Assignment:
        from shoal_protocol.trust.assignment import PAYLOAD_TYPE, parse_assignment  # noqa: PLC0415 - after the start

        payload = self._trust.opened(raw, PAYLOAD_TYPE, what="assignment")
        return parse_assignment(payload, device=self._device, now_ms=self._trust.now_ms())


def _check_succession(assignment: Assignment, state: DeviceState) -> None:
    from shoal_protocol.trust.assignment import check_succession  # noqa: PLC0415 - after the start

    check_succession((state.generation, state.content_hash) if state.generation else None, assignment)
