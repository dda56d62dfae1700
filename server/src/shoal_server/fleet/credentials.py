"""How a device's credentials (its secret and its key) are replaced while it goes on working.

Owns the three steps and what holds between them. Leaves the routes to `routes` and `credential_routes`, and when
devices are asked without an operator to the loop that calls `ask_old`.

1. `ask`: the next signed assignment names a higher number.
2. `hand_out`: the device, by its credentials so far, brings a new public key, signed by the old and by the new key, and
   is told a new secret.
3. `confirm`: the device has stored it and shows it for the first time.

Invariants:
    - Until step 3 the credentials so far hold, everywhere; a cut at any point leaves a device that can log in. Step 2
      can be repeated; then the secret that it made before, which nobody ever showed, is void.
    - From step 3 on only the new ones hold. Of two machines that share an identity, one gets there; the other is out.
    - A broker is only ever told the credentials that hold, one line a device.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from sqlmodel import Session, col, func, select

from shoal_protocol.trust.enrolment import RotationRequest, rotation_proof_message
from shoal_server.errors import ConflictError
from shoal_server.fleet import assignments, clones, store
from shoal_server.fleet.challenges import check_challenge, key_of
from shoal_server.fleet.devices import DeviceState
from shoal_server.fleet.proofs import check_signature
from shoal_server.fleet.tables import DesiredRow, DeviceRow
from shoal_server.link.verifiers import verifier_line, verify_secret

ASKED_AT_ONCE = 20
"""Devices asked in one turn of the loop, so that a fleet that joined on one day is not all busy at once."""


@dataclass(frozen=True)
class HandedOut:
    """New credentials, not holding yet.

    Attributes:
        secret: Told this once, stored only as a verifier.
        number: Of these credentials.
    """

    secret: str
    number: int


def ask(session: Session, device_id: str, *, now: float) -> int:
    """Have a device get itself new credentials; asking again before it did so changes nothing.

    Returns:
        The number that they will have.

    Raises:
        NotFoundError: There is no such device.
        ConflictError: It is not accepted.
    """
    row = store.row_of(session, device_id)
    if row.state != DeviceState.ACCEPTED:
        raise ConflictError(
            f"the device {device_id} is {row.state}", hint="only an accepted device has credentials to be replaced"
        )
    assignments.want_credential(session, device_id, row.credential + 1, now=now)
    return row.credential + 1


def ask_old(session: Session, *, held_before: float, now: float, limit: int = ASKED_AT_ONCE) -> list[str]:
    """Ask the devices whose credentials are the oldest.

    Args:
        session: Of an open write transaction.
        held_before: Only those that hold since before then, seconds since the epoch.
        now: Seconds since the epoch.
        limit: So many at most.

    Returns:
        Whom was asked.
    """
    query = (
        select(DeviceRow.id)
        .join(DesiredRow, col(DesiredRow.device) == DeviceRow.id, isouter=True)
        .where(DeviceRow.state == DeviceState.ACCEPTED, col(DeviceRow.credential_at) < held_before)
        .where(func.coalesce(DesiredRow.credential, 0) <= col(DeviceRow.credential))
        .order_by(col(DeviceRow.credential_at), col(DeviceRow.id))
        .limit(limit)
    )
    found = list(session.exec(query))
    for device_id in sorted(found):  # as all who lock several assignments
        ask(session, device_id, now=now)
    return found


def hand_out(
    session: Session,
    device_id: str,
    request: RotationRequest,
    *,
    now: float,
    new_secret: Callable[[], str],
    new_salt: Callable[[], bytes],
) -> HandedOut:
    """Make new credentials for a device that proved who it is; they hold once it has shown them.

    Args:
        session: Of an open write transaction.
        device_id: Proven by the secret that holds.
        request: As it came.
        now: Seconds since the epoch.
        new_secret: Makes 256 random bits as text.
        new_salt: Makes 12 random bytes.

    Raises:
        ChallengeError: The challenge must not be answered.
        EnrolmentError: A signature does not fit.
        CallerError: The new key has a form that is not allowed.
    """
    row = store.row_of(session, device_id)
    made_ms = check_challenge(key_of(session), request.challenge, device_id, now=now, answered_ms=row.proved_at_ms)
    message = rotation_proof_message(request.challenge, device_id, request.public_key)
    check_signature(row.public_key, message, request.proof)
    check_signature(request.public_key, message, request.new_proof)
    secret = new_secret()
    row.next_verifier = verifier_line(secret, salt=new_salt())
    row.next_public_key = request.public_key
    row.proved_at_ms = made_ms
    session.add(row)
    return HandedOut(secret, row.credential + 1)


def confirm(session: Session, device_id: str, secret: str, *, now: float) -> bool:
    """Let the credentials hold that the device shows, and no others.

    Returns:
        Whether that changed anything; not, when they held already.
    """
    row = store.row_of(session, device_id)
    if not row.next_verifier or not verify_secret(secret.encode(), row.next_verifier):
        return False
    row.verifier, row.public_key = row.next_verifier, row.next_public_key
    row.next_verifier = row.next_public_key = ""
    row.credential += 1
    row.credential_at = now
    clones.settle(session, row, now=now)
    session.add(row)
    return True
