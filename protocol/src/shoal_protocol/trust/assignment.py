"""The signed assignment: what the server wants to run where.

An envelope (`shoal_protocol.trust.envelope`) over JSON, signed by the key of TUF's timestamp role, so that it needs no
key of its own and rotates with root. `generation` only grows; the same generation with other content is refused.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import msgspec

from shoal_protocol.canonical import canonical_bytes, parse_digest, sha256_digest
from shoal_protocol.errors import ContentError, ExpiredError, RollbackError, UnsignedError
from shoal_protocol.trust.envelope import opened, sealed

if TYPE_CHECKING:
    from securesystemslib.signer import Key, Signer

PAYLOAD_TYPE = "application/vnd.shoal.assignment.v1+json"
MAX_SLOTS = 64
LATEST_MS = 253_402_300_799_000
"""End of the year 9999: what is later has no date, and a device keeps the newest `issued` as the floor of its time."""


class Sampling(msgspec.Struct, frozen=True, kw_only=True):
    """Which share of raw inputs may leave the device, and until when (milliseconds since the epoch)."""

    share: float
    until: int


class SlotTarget(msgspec.Struct, frozen=True, kw_only=True):
    """What one slot should run.

    Attributes:
        digest: Of the bundle; none: the slot should be empty.
        name: ``model:version``, for people only.
        attempt: Grows when an operator says "try again" after a final failure.
        shadow: Digest of a bundle that should see the same inputs and answer nobody.
        sampling: Permission to send raw rows.
        windows: When it may be activated, as `shoal_protocol.maintenance` writes them; none: at any time.
        counting: Digest of what is counted beyond what the bundle says, see `shoal_protocol.profile.counting`.
    """

    digest: str | None = None
    name: str | None = None
    attempt: int = 0
    shadow: str | None = None
    sampling: Sampling | None = None
    windows: tuple[str, ...] | None = None
    counting: str | None = None


class Assignment(msgspec.Struct, frozen=True, kw_only=True):
    """What one device should run; `issued` and `expires` in milliseconds since the epoch, UTC.

    `credential` is the number of the credentials that it should hold: a device with lower ones gets others; 0: any.
    """

    device: str
    generation: int
    slots: dict[str, SlotTarget]
    issued: int
    expires: int
    credential: int = 0

    @property
    def content_digest(self) -> str:
        """Digest of what is wanted, without the dates: equal for a document that was only signed again.

        What a slot does not say is left out, so that a program that knows of more agrees with one that doesn't.
        """
        slots = {name: msgspec.to_builtins(target) for name, target in self.slots.items()}
        wanted: dict[str, Any] = {
            name: {key: value for key, value in slot.items() if value is not None} for name, slot in slots.items()
        }
        if self.credential:
            wanted = {"slots": wanted, "credential": self.credential}
        return sha256_digest(canonical_bytes(wanted))


def sign_assignment(assignment: Assignment, signer: Signer) -> bytes:
    """Return the envelope to publish."""
    payload = canonical_bytes(msgspec.to_builtins(assignment))
    return sealed(payload, PAYLOAD_TYPE, signer)


def verify_assignment(raw: bytes, keys: Sequence[Key], *, device: str, now_ms: int) -> Assignment:
    """Verify and parse an envelope.

    Args:
        raw: As received.
        keys: Of the timestamp role in the device's verified root.
        device: Whom it must be for.
        now_ms: The device's reference time.

    Raises:
        ContentError: It does not parse.
        UnsignedError: No key's signature covers it, or it is for another device.
        ExpiredError: It was valid once.
    """
    return parse_assignment(opened(raw, PAYLOAD_TYPE, keys, what="assignment"), device=device, now_ms=now_ms)


def parse_assignment(payload: bytes, *, device: str, now_ms: int) -> Assignment:
    """Parse what an envelope held whose signature was verified.

    Raises:
        ContentError: It does not parse.
        UnsignedError: It is for another device.
        ExpiredError: It was valid once.
    """
    try:
        assignment = msgspec.json.decode(payload, type=Assignment)
    except (msgspec.DecodeError, RecursionError) as error:
        raise ContentError(f"assignment: {error}") from error
    if assignment.device != device:
        raise UnsignedError(f"this assignment is for the device {assignment.device!r:.80}, not for {device!r}")
    if len(assignment.slots) > MAX_SLOTS or assignment.generation < 1:
        raise ContentError(f"assignment: {len(assignment.slots)} slots, generation {assignment.generation}")
    if not 0 <= assignment.issued < assignment.expires <= LATEST_MS:
        raise ContentError(
            f"assignment: issued at {assignment.issued} ms, expires at {assignment.expires} ms; "
            "expected one instant and a later one, before the year 10000"
        )
    for target in assignment.slots.values():
        for digest in (target.digest, target.shadow, target.counting):
            if digest is not None:
                parse_digest(digest)
    if now_ms >= assignment.expires:
        late_s = (now_ms - assignment.expires) // 1000
        raise ExpiredError(
            f"the assignment of generation {assignment.generation} expired {late_s} s ago",
            hint="check this device's clock; otherwise the server has not signed for long",
        )
    return assignment


def check_succession(seen: tuple[int, str] | None, new: Assignment) -> None:
    """Refuse a replay.

    Args:
        seen: Generation and `Assignment.content_digest` of the newest assignment that was accepted before, if any.
        new: A verified assignment.

    Raises:
        RollbackError: It is older, or of the same generation with another content.
    """
    if seen is None or new.generation > seen[0]:
        return
    if new.generation < seen[0]:
        raise RollbackError(f"the assignment has generation {new.generation}, this device has already seen {seen[0]}")
    if new.content_digest != seen[1]:
        raise RollbackError(f"a second, different assignment came with generation {new.generation}")
