"""HTTP of the fleet for devices: enrolment, and what each should run."""

from __future__ import annotations

import secrets
from typing import Annotated

import msgspec
from fastapi import APIRouter, Depends, Header, Request, Response

from shoal_protocol.errors import ContentError
from shoal_protocol.trust.enrolment import EnrolReply, EnrolRequest
from shoal_server.access import audit
from shoal_server.access.guard import Program, request_id, require_device
from shoal_server.access.roles import Principal
from shoal_server.fleet import assignments, enrolment, intake, store
from shoal_server.fleet.announcements import TYPE_OF_ACTION, announce_device
from shoal_server.fleet.devices import POLL_S, DeviceState
from shoal_server.fleet.routes import sync_credentials
from shoal_server.link.addresses import reached_at

router = APIRouter(prefix="/api/v1/device", tags=["device"])

PUBLIC = (("POST", "/api/v1/device/enrol"),)
"""Routes that ask for no credentials: the join token in the body is the credential."""

MAX_ENROLMENT_BYTES = 16 * 1024
SALT_BYTES = 12

Device = Annotated[Principal, Depends(require_device())]


async def small_body(request: Request) -> bytes:
    """Read a small body; raises `ContentError` beyond the limit, before it is all in memory."""
    raw = bytearray()
    async for chunk in request.stream():
        raw += chunk
        if len(raw) > MAX_ENROLMENT_BYTES:
            raise ContentError(f"an enrolment request has at most {MAX_ENROLMENT_BYTES} bytes")
    return bytes(raw)


@router.post("/enrol", operation_id="device_enrol")
def enrol(request: Request, program: Program, body: Annotated[bytes, Depends(small_body)]) -> Response:
    """Let a device join by a join token; its secret is told this once."""
    try:
        wanted = msgspec.json.decode(body, type=EnrolRequest)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ContentError(f"the enrolment request: {error}") from error
    now = program.clock()
    with program.database.write() as session:
        joined = enrolment.enrol(
            session,
            wanted,
            now=now,
            new_secret=lambda: secrets.token_urlsafe(32),
            new_salt=lambda: secrets.token_bytes(SALT_BYTES),
        )
        audit.record(
            session,
            actor=f"join_token:{wanted.token_id}",
            action="device.enrol",
            subject=f"device:{joined.device}",
            after={"state": joined.state.value, "renewed": joined.renewed},
            request_id=request_id(request),
            now=now,
        )
        announce_device(
            session,
            TYPE_OF_ACTION["device.enrol"],
            joined.device,
            state=joined.state.value,
            labels=store.device(session, joined.device).labels,
            actor=f"join_token:{wanted.token_id}",
            reason="joined again with the same key" if joined.renewed else "",
            now=now,
        )
    if joined.state is DeviceState.ACCEPTED:
        sync_credentials(program)
    program.signals.bump("devices")
    program.signals.bump("desired")
    reply = EnrolReply(
        device=joined.device,
        state="accepted" if joined.state is DeviceState.ACCEPTED else "pending",
        secret=joined.secret,
        credential=joined.credential,
        mqtt_url=reached_at(program.link.url, request.url.hostname or "") or None,  # it got here by this name
        poll_s=POLL_S,
    )
    return Response(msgspec.json.encode(reply), media_type="application/json")


@router.get("/desired", operation_id="device_desired")
def desired(program: Program, who: Device, if_none_match: Annotated[str | None, Header()] = None) -> Response:
    """Tell a device its signed assignment: the same bytes as by MQTT."""
    device_id, now = str(who.device), program.clock()
    with program.database.read() as session:
        document = assignments.stored_document(session, device_id, now=now)
        lately = intake.polled_lately(store.device(session, device_id).polled_at, now)
    if document is None or not lately:
        with program.database.write() as session:
            intake.on_poll(session, device_id, now)
            document = assignments.document(session, device_id, signer=program.trust.assignment_signer, now=now)
    headers = {"ETag": document.etag, "Cache-Control": "no-cache"}
    if if_none_match is not None and document.etag in [one.strip() for one in if_none_match.split(",")]:
        return Response(status_code=304, headers=headers)
    return Response(document.envelope, media_type="application/json", headers=headers)
