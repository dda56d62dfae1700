"""HTTP by which a device fetches what it should count beyond its bundle."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Response

from shoal_server.access.guard import Program, require_device
from shoal_server.access.roles import Principal
from shoal_server.errors import NotFoundError
from shoal_server.fleet import assignments
from shoal_server.fleet.counting import counting_document

router = APIRouter(prefix="/api/v1/device/counting", tags=["device"])

Device = Annotated[Principal, Depends(require_device())]


@router.get("/{digest}", operation_id="device_counting")
def fetch(digest: str, device: Device, program: Program) -> Response:
    """Return the document with this digest, if the device's assignment names it."""
    assert device.device is not None
    with program.database.read() as session:
        wanted = {target.counting for target in assignments.targets(session, device.device).values()}
        found = counting_document(session, digest) if digest in wanted else None
    if found is None:
        raise NotFoundError("this device's assignment names no such document")
    return Response(found, media_type="application/json")
