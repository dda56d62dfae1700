"""HTTP by which devices get challenges to sign, and new credentials in the place of those they hold."""

from __future__ import annotations

import secrets
from typing import Annotated

import msgspec
from fastapi import APIRouter, Depends, Query, Request, Response

from shoal_protocol.errors import ContentError
from shoal_protocol.trust.enrolment import Challenge, RotationReply, RotationRequest
from shoal_server.access.guard import Program, basic_credentials, record_change, require_device
from shoal_server.access.roles import Principal
from shoal_server.errors import UnauthorizedError
from shoal_server.fleet import challenges, credentials
from shoal_server.fleet.device_routes import SALT_BYTES, small_body
from shoal_server.fleet.routes import sync_credentials

router = APIRouter(prefix="/api/v1/device", tags=["device"])

PUBLIC = (("GET", "/api/v1/device/challenge"),)
"""Routes that ask for no credentials: a challenge is worth nothing to who can't sign it."""

Device = Annotated[Principal, Depends(require_device())]


@router.get("/challenge", operation_id="device_challenge")
def challenge(program: Program, subject: Annotated[str, Query(max_length=challenges.MAX_SUBJECT)]) -> Response:
    """Return a challenge to sign, for a join token or a device; nothing is remembered of it."""
    with program.database.read() as session:
        key = challenges.key_of(session)
    if key is None:
        with program.database.write() as session:
            key = challenges.make_key(session)
    made = challenges.make_challenge(key, subject, now=program.clock(), nonce=secrets.token_bytes(16))
    reply = Challenge(challenge=made, lasts_s=challenges.LASTS_S)
    return Response(msgspec.json.encode(reply), media_type="application/json", headers={"Cache-Control": "no-store"})


@router.post("/credential", operation_id="device_credential")
def hand_out(program: Program, who: Device, body: Annotated[bytes, Depends(small_body)]) -> Response:
    """Hand out new credentials; those held so far hold until the new ones are confirmed."""
    try:
        wanted = msgspec.json.decode(body, type=RotationRequest)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ContentError(f"the request for new credentials: {error}") from error
    device_id = str(who.device)
    with program.database.write() as session:
        made = credentials.hand_out(
            session,
            device_id,
            wanted,
            now=program.clock(),
            new_secret=lambda: secrets.token_urlsafe(32),
            new_salt=lambda: secrets.token_bytes(SALT_BYTES),
        )
    reply = RotationReply(secret=made.secret, credential=made.number)
    return Response(msgspec.json.encode(reply), media_type="application/json")


@router.post("/credential/confirmation", operation_id="device_credential_confirm")
def confirm(request: Request, program: Program, who: Device) -> dict[str, bool]:
    """Let the credentials hold that this request is made with; the device's others are void, their sessions end."""
    header, device_id = request.headers.get("authorization", ""), str(who.device)
    if not header.lower().startswith("basic "):
        raise UnauthorizedError("expected Basic credentials: those that are to be confirmed")
    _, secret = basic_credentials(header)
    with program.database.write() as session:
        changed = credentials.confirm(session, device_id, secret, now=program.clock())
        if changed:
            record_change(session, request, action="device.rotated", subject=f"device:{device_id}")
    if changed:
        sync_credentials(program)
        program.signals.bump("devices")
    return {"changed": changed}
