"""HTTP of sampled raw rows: permitting it, ending it, taking rows in, handing them out, deleting them.

A permission is a field of the signed assignment with an end; it reaches no further than the devices that it names. Rows
that come without a permission in force are refused.
"""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
from fastapi import APIRouter, Depends, Query, Request, Response
from pydantic import BaseModel, Field

from shoal_protocol.errors import CallerError
from shoal_protocol.samples import MAX_BATCH_BYTES, parse_samples
from shoal_protocol.trust.assignment import Sampling, SlotTarget
from shoal_server.access.guard import Operator, Program, Viewer, record_change, require_device
from shoal_server.access.roles import Principal
from shoal_server.errors import ForbiddenError, ThrottledError, TooLargeError
from shoal_server.fleet import assignments, store
from shoal_server.fleet.cohort import parse_cohort
from shoal_server.services import Services
from shoal_server.telemetry import samples
from shoal_server.timestamps import rfc3339

router = APIRouter(prefix="/api/v1", tags=["fleet"])

MAX_SECONDS = 30 * 86_400.0
_PAGE_BATCHES = 16
_GRACE_MS = 60_000
"""What a device sent just before the end may arrive a little after it; its clock may differ a little, too."""

Device = Annotated[Principal, Depends(require_device())]


class WantedSampling(BaseModel):
    """Which raw rows may leave which devices, and how long."""

    slot: str = Field(min_length=1, max_length=64)
    cohort: str = Field(description="which devices, as they are now")
    share: float = Field(gt=0, le=1, description="of the rows")
    seconds: float = Field(ge=1, le=MAX_SECONDS, description="from now on")


class UnwantedSampling(BaseModel):
    """Where raw rows may no longer leave."""

    slot: str = Field(min_length=1, max_length=64)
    cohort: str = Field(default="all", description="which devices")


async def _body(request: Request) -> bytes:
    """Read a body of bounded size; raises `TooLargeError` before it is all in memory."""
    raw = bytearray()
    async for chunk in request.stream():
        raw += chunk
        if len(raw) > MAX_BATCH_BYTES:
            raise TooLargeError(f"expected at most {MAX_BATCH_BYTES} bytes of samples", hint="send fewer at a time")
    return bytes(raw)


@router.post("/device/samples", operation_id="device_samples", tags=["device"])
def take_samples(device: Device, program: Program, body: Annotated[bytes, Depends(_body)]) -> Response:
    """Take sampled rows in; refused without a permission in force."""
    assert device.device is not None
    batch, now = parse_samples(body), program.clock()
    with program.database.write() as session:
        wanted = assignments.targets(session, device.device).get(batch.slot)
        allowed = None if wanted is None else wanted.sampling
        if allowed is None or now * 1000 > allowed.until + _GRACE_MS:
            raise ForbiddenError(f"no raw rows of slot {batch.slot!r:.80} are wanted from this device")
        if samples.is_flooding(session, device.device, now=now):
            raise ThrottledError("this device has sent too many batches of samples in the last hour")
        samples.store(session, device.device, batch, now=now)
    return Response(b"{}", media_type="application/json")


@router.post("/sampling", operation_id="sampling_start")
def start_sampling(request: Request, program: Program, _who: Operator, wanted: WantedSampling) -> dict[str, Any]:
    """Permit a cohort's devices to send a share of the raw inputs of a slot, for a time."""
    until = int((program.clock() + wanted.seconds) * 1000)
    permission = Sampling(share=wanted.share, until=until)
    return _change(request, program, slot=wanted.slot, cohort=wanted.cohort, sampling=permission)


@router.post("/sampling/stop", operation_id="sampling_stop")
def stop_sampling(request: Request, program: Program, _who: Operator, unwanted: UnwantedSampling) -> dict[str, Any]:
    """Withdraw the permission."""
    return _change(request, program, slot=unwanted.slot, cohort=unwanted.cohort, sampling=None)


@router.get("/sampling", operation_id="sampling_list")
def list_sampling(program: Program, _who: Viewer, slot: str | None = None) -> dict[str, Any]:
    """Show which devices may send raw rows, and how much is stored."""
    now_ms = program.clock() * 1000
    with program.database.read() as session:
        permitted: dict[tuple[str, float, int], list[str]] = {}
        for one in store.devices(session):
            for name, target in assignments.targets(session, one.id).items():
                allowed = target.sampling
                if allowed is not None and allowed.until > now_ms and slot in {None, name}:
                    permitted.setdefault((name, allowed.share, allowed.until), []).append(one.id)
        stored = samples.sample_summaries(session, slot=slot)
    return {
        "permitted": [
            {"slot": name, "share": share, "until": rfc3339(until / 1000), "devices": devices}
            for (name, share, until), devices in sorted(permitted.items())
        ],
        "stored": [msgspec.to_builtins(one) | {"newest_at": rfc3339(one.newest_at)} for one in stored],
    }


@router.get("/samples", operation_id="samples_download")
def download_samples(
    request: Request,
    program: Program,
    _who: Operator,
    *,
    slot: str,
    device: str | None = None,
    cursor: int = 0,
    limit: Annotated[int, Query(ge=1, le=1000)] = _PAGE_BATCHES,
) -> dict[str, Any]:
    """Hand out stored batches of raw rows, in the order in which they came."""
    count = min(limit, _PAGE_BATCHES)
    with program.database.write() as session:
        found = samples.batches_after(session, cursor, slot=slot, device=device, limit=count)
        if cursor == 0:
            after = {"slot": slot, "device": device}
            record_change(session, request, action="sampling.download", subject=f"slot:{slot}", after=after)
    last = str(found[-1][0]) if len(found) == count else None
    return {"items": [batch for _, batch in found], "next_cursor": last}


@router.delete("/samples", operation_id="samples_delete")
def delete_samples(
    request: Request, program: Program, _who: Operator, *, slot: str, cohort: str = "all"
) -> dict[str, Any]:
    """Delete the stored raw rows of a slot."""
    with program.database.write() as session:
        devices = None
        if cohort != "all":
            devices = {one.id for one in store.devices(session, cohort=parse_cohort(cohort))}
        rows = samples.delete_samples(session, slot=slot, devices=devices)
        after = {"slot": slot, "cohort": cohort, "rows": rows}
        record_change(session, request, action="sampling.delete", subject=f"slot:{slot}", after=after)
    return {"slot": slot, "rows": rows}


def _change(
    request: Request, program: Services, *, slot: str, cohort: str, sampling: Sampling | None
) -> dict[str, Any]:
    def changed(target: SlotTarget) -> SlotTarget:
        return msgspec.structs.replace(target, sampling=sampling)

    with program.database.write() as session:
        matched = [device.id for device in store.devices(session, cohort=parse_cohort(cohort))]
        devices = assignments.adjust_all(session, slot, matched, changed, now=program.clock())
        if not devices:
            raise CallerError(
                f"the cohort matches {len(matched)} devices, none of which runs a model in slot {slot!r:.80}",
                hint="see `shoalctl device list`",
            )
        until = None if sampling is None else rfc3339(sampling.until / 1000)
        share = None if sampling is None else sampling.share
        after = {"slot": slot, "cohort": cohort, "devices": len(devices), "share": share, "until": until}
        action = "sampling.stop" if sampling is None else "sampling.start"
        record_change(session, request, action=action, subject=f"slot:{slot}", after=after)
    program.signals.bump("desired")
    return {"slot": slot, "share": share, "until": until, "devices": devices}
