"""How devices join: tokens that let them, and the proof that each holds a key that it made itself.

Owns join tokens (hashed, expiring, capped, bound to labels), the check of an enrolment request, and the device's first
credentials. Leaves the request's form to `shoal_protocol.trust.enrolment`, later credentials to `credentials`.

Invariants: a token's secret and a device's secret are stored only as hashes; labels come from the token, never from the
device; a name belongs to the key that enrolled it first.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from sqlalchemy.exc import IntegrityError
from sqlmodel import Session

from shoal_protocol.errors import CallerError
from shoal_protocol.mqtt.topics import check_device
from shoal_protocol.trust.enrolment import EnrolRequest, enrol_proof_message
from shoal_server.errors import ConflictError, ForbiddenError, NotFoundError
from shoal_server.fleet.challenges import check_challenge, key_of
from shoal_server.fleet.devices import FACT_NAMES, DeviceState
from shoal_server.fleet.proofs import EnrolmentError, check_signature
from shoal_server.fleet.store import check_labels
from shoal_server.fleet.tables import DesiredRow, DeviceRow, JoinTokenRow
from shoal_server.link.verifiers import verifier_line

MAX_TOKEN_LIFETIME_S = 366 * 86_400.0
_MAX_FACT_CHARACTERS = 128


@dataclass(frozen=True)
class Enrolled:
    """A device that has just joined.

    Attributes:
        device: Its id.
        state: Accepted, or pending until an operator accepts it.
        secret: Its password; told once, stored only as a verifier.
        renewed: Whether it had joined before with the same key, so that its older secret is void now.
        credential: Number of these credentials.
    """

    device: str
    state: DeviceState
    secret: str
    renewed: bool
    credential: int = 1


@dataclass(frozen=True, kw_only=True)
class NewToken:
    """A join token to make; times in seconds since the epoch.

    Attributes:
        uses: How many devices may enrol by it.
        labels: That every such device gets.
        needs_approval: Whether an operator must accept each device.
    """

    uses: int = 1
    labels: Mapping[str, str]
    needs_approval: bool = False
    expires_at: float
    created_by: str


def create_token(session: Session, wanted: NewToken, *, token_id: str, secret: str, now: float) -> JoinTokenRow:
    """Store a join token.

    Args:
        session: Of an open write transaction.
        wanted: What it allows.
        token_id: New and unique.
        secret: At least 256 random bits, as text; only its hash is stored.
        now: Seconds since the epoch.

    Raises:
        CallerError: No use, an expiry in the past or too far ahead, or a label that is not allowed.
    """
    if wanted.uses < 1 or not now < wanted.expires_at <= now + MAX_TOKEN_LIFETIME_S:
        raise CallerError("a join token has at least one use and lasts up to a year")
    row = JoinTokenRow(
        id=token_id,
        secret_hash=_token_hash(secret),
        labels=check_labels(wanted.labels),
        uses_left=wanted.uses,
        needs_approval=wanted.needs_approval,
        created_by=wanted.created_by,
        created_at=now,
        expires_at=wanted.expires_at,
    )
    session.add(row)
    session.flush()
    return row


def revoke_token(session: Session, token_id: str) -> JoinTokenRow:
    """Let nobody join by this token any more.

    Raises:
        NotFoundError: There is no such token.
    """
    row = session.get(JoinTokenRow, token_id, with_for_update=True)
    if row is None:
        raise NotFoundError(f"there is no join token {token_id!r:.80}")
    session.delete(row)
    return row


def enrol(
    session: Session, request: EnrolRequest, *, now: float, new_secret: Callable[[], str], new_salt: Callable[[], bytes]
) -> Enrolled:
    """Let a device join.

    The same device asking again with the same key (its answer was lost) gets a new secret and costs no further use.

    Args:
        session: Of an open write transaction.
        request: As it came.
        now: Seconds since the epoch.
        new_secret: Makes 256 random bits as text.
        new_salt: Makes 12 random bytes.

    Raises:
        EnrolmentError: The token or the proof does not hold.
        ChallengeError: The challenge must not be answered.
        ConflictError: The name belongs to another device.
        ForbiddenError: This device was revoked.
        CallerError: The name or key has a form that is not allowed.
    """
    token = _usable_token(session, request, now)
    public_key = request.public_key
    message = enrol_proof_message(request.challenge, request.token_id, request.name, public_key)
    check_signature(public_key, message, request.proof)
    device_id = check_device(request.name or f"device-{hashlib.sha256(public_key.encode()).hexdigest()[:12]}")
    row = session.get(DeviceRow, device_id, with_for_update=True)
    renewed = row is not None
    answered_ms = 0 if row is None or row.public_key != public_key else row.proved_at_ms
    made_ms = check_challenge(key_of(session), request.challenge, token.id, now=now, answered_ms=answered_ms)
    if row is None:
        row = _join(session, token, device_id, public_key, now)
    elif row.public_key != public_key:
        raise ConflictError(
            f"the name {device_id} belongs to a device with another key",
            hint="choose another --name, or decommission the old device first",
        )
    elif row.state == DeviceState.REVOKED:
        raise ForbiddenError(f"the device {device_id} was revoked", hint="an operator has to decommission it first")
    else:
        row.credential += 1
    secret = new_secret()
    row.verifier = verifier_line(secret, salt=new_salt())
    row.next_verifier = row.next_public_key = ""
    row.credential_at, row.proved_at_ms = now, made_ms
    row.facts = {**row.facts, **_facts(request.capabilities)}
    session.add(row)
    try:
        session.flush()
    except IntegrityError as error:  # on PostgreSQL two may see no such name at once; the first to commit has it
        raise ConflictError(
            f"another device takes the name {device_id} at this very moment", hint="choose another --name, or try again"
        ) from error
    return Enrolled(device_id, DeviceState(row.state), secret, renewed, row.credential)


def _usable_token(session: Session, request: EnrolRequest, now: float) -> JoinTokenRow:
    row = session.get(JoinTokenRow, request.token_id, with_for_update=True)
    fits = hmac.compare_digest(_token_hash(request.token_secret), "" if row is None else row.secret_hash)
    if row is None or not fits:
        raise EnrolmentError("this join token is unknown", hint="make a new one: shoalctl token create")
    if now >= row.expires_at:
        raise EnrolmentError("this join token has expired", hint="make a new one: shoalctl token create")
    return row


def _join(session: Session, token: JoinTokenRow, device_id: str, public_key: str, now: float) -> DeviceRow:
    if token.uses_left < 1:
        raise EnrolmentError("this join token is used up", hint="make one with more: shoalctl token create --uses N")
    token.uses_left -= 1
    session.add(token)
    state = DeviceState.PENDING if token.needs_approval else DeviceState.ACCEPTED
    left_over = session.get(DesiredRow, device_id, with_for_update=True)
    if left_over is not None:  # written by whoever was about to send it while the device before was decommissioned
        session.delete(left_over)
        session.flush()
    session.add(DesiredRow(device=device_id, generation=1, changed_at=now))
    return DeviceRow(
        id=device_id,
        state=state,
        labels=dict(token.labels),
        public_key=public_key,
        verifier="",
        token_id=token.id,
        enrolled_at=now,
    )


def _facts(capabilities: Mapping[str, str]) -> dict[str, str]:
    """Keep what cohorts may ask for."""
    return {key: value[:_MAX_FACT_CHARACTERS] for key, value in capabilities.items() if key in FACT_NAMES[1:] and value}


def _token_hash(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()
