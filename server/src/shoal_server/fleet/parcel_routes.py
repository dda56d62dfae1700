"""HTTP for what is carried by hand: parcels to devices without a network, mail from them."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request
from starlette.responses import StreamingResponse

from shoal_protocol.parcel import MAX_LETTER_BYTES
from shoal_server.access.guard import Operator, Program, record_change
from shoal_server.errors import TooLargeError
from shoal_server.fleet import intake
from shoal_server.fleet.mail import open_letter
from shoal_server.fleet.parcels import pack_parcel, parcel_bytes

router = APIRouter(prefix="/api/v1/devices", tags=["fleet"])


async def _body(request: Request) -> bytes:
    """Read a letter; raises `TooLargeError` before it is all in memory."""
    raw = bytearray()
    async for chunk in request.stream():
        raw += chunk
        if len(raw) > MAX_LETTER_BYTES:
            raise TooLargeError(f"a letter has at most {MAX_LETTER_BYTES} bytes", hint="send one line at a time")
    return bytes(raw)


@router.post("/{device_id}/parcel", operation_id="devices_parcel")
def parcel(request: Request, program: Program, _who: Operator, device_id: str) -> StreamingResponse:
    """Make a parcel: a tar with what the device should run, for `shoal-agent import`."""
    with program.database.write() as session:
        intake.on_fetched_by_hand(session, device_id, program.clock())
    program.settle_rollouts()
    with program.database.write() as session:
        made = pack_parcel(session, program, device_id, now=program.clock())
        told = {"generation": made.about.generation, "slots": made.about.slots}
        record_change(session, request, action="device.parcel", subject=f"device:{device_id}", after=told)
    program.signals.bump("desired")
    made = replace(made, documents=program.trust.documents_to_carry())
    headers = {"Content-Disposition": 'attachment; filename="shoal.parcel"', "Cache-Control": "no-store"}
    return StreamingResponse(parcel_bytes(made, program.blobs), media_type="application/x-tar", headers=headers)


@router.post("/{device_id}/mail", operation_id="devices_mail")
def mail(
    request: Request, program: Program, _who: Operator, device_id: str, body: Annotated[bytes, Depends(_body)]
) -> dict[str, Any]:
    """Take one letter of a device's mail in, as if the device had sent it; answers when it is committed."""
    with program.database.write() as session:
        messages = open_letter(session, device_id, body)
        record_change(
            session, request, action="device.mail", subject=f"device:{device_id}", after={"messages": len(messages)}
        )
    submission = program.ingest.submit_and_wait(device_id, messages)
    malformed = [arrived.fault for arrived in submission.arrivals if arrived.message is None]
    kinds: dict[str, int] = {}
    for kind, _ in messages:
        kinds[kind.value] = kinds.get(kind.value, 0) + 1
    return {"device": device_id, "messages": kinds, "malformed": malformed}
