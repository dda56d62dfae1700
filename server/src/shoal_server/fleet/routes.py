"""HTTP of the fleet for operators: devices and join tokens."""

from __future__ import annotations

import logging
import secrets
import shlex
import ssl
from collections.abc import Callable
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, status
from pydantic import BaseModel, Field
from sqlmodel import Session, col, select

from shoal_protocol.canonical import sha256_digest
from shoal_protocol.mqtt.topics import Down, down
from shoal_protocol.trust.join_token import JoinToken
from shoal_server.access.guard import Operator, Program, Viewer, authenticate, record_change
from shoal_server.fleet import assignments, credentials, enrolment, store
from shoal_server.fleet.announcements import TYPE_OF_ACTION, announce_device
from shoal_server.fleet.cohort import parse_cohort
from shoal_server.fleet.devices import ALL_SLOTS, Device
from shoal_server.fleet.letting_in import let_in
from shoal_server.fleet.tables import JoinTokenRow
from shoal_server.fleet.views import device_json, join_token_json
from shoal_server.link.port import LinkError
from shoal_server.outbox import EventType
from shoal_server.paging import MAX_LIMIT, decode_cursor, page
from shoal_server.services import Services
from shoal_server.timestamps import rfc3339

router = APIRouter(prefix="/api/v1", tags=["fleet"])
_log = logging.getLogger(__name__)


class LabelChanges(BaseModel):
    """Labels to set; null takes one away, what is not named stays."""

    labels: dict[str, str | None]


class Pin(BaseModel):
    """A slot that rollouts must not change."""

    slot: str = Field(default=ALL_SLOTS, description="every slot when left out")
    reason: str = "pinned"


class Unpin(BaseModel):
    """A slot that rollouts may change again."""

    slot: str = Field(default=ALL_SLOTS, description="every slot when left out")


class NewJoinToken(BaseModel):
    """A join token to make."""

    uses: int = Field(default=1, ge=1, le=100_000)
    labels: dict[str, str] = {}
    expires_in_s: float = Field(default=86_400.0, gt=0, le=enrolment.MAX_TOKEN_LIFETIME_S)
    preauthorised: bool = Field(default=True, description="else an operator must accept each device")


@router.get("/devices", operation_id="devices_list")
def list_devices(
    program: Program,
    _who: Viewer,
    q: Annotated[str, Query(description="a cohort query")] = "all",
    limit: Annotated[int, Query(ge=1, le=MAX_LIMIT)] = 100,
    cursor: str | None = None,
) -> dict[str, Any]:
    """List devices, by id."""
    after = decode_cursor(cursor) or ""
    with program.database.read() as session:
        found = [device for device in store.devices(session, cohort=parse_cohort(q)) if device.id > str(after)]
        shown = found[: limit + 1]
        desired = {device.id: assignments.targets(session, device.id) for device in shown}
    answer = page(
        shown,
        limit=limit,
        position=lambda device: device.id,
        item=lambda device: device_json(device, desired[device.id]),
    )
    return {**answer, "total": len(found)} if not after else answer


@router.get("/devices/{device_id}", operation_id="devices_show")
def show_device(program: Program, _who: Viewer, device_id: str) -> dict[str, Any]:
    """Show one device."""
    with program.database.read() as session:
        return device_json(store.device(session, device_id), assignments.targets(session, device_id))


@router.patch("/devices/{device_id}/labels", operation_id="devices_label")
def label_device(
    request: Request, program: Program, _who: Operator, device_id: str, changes: LabelChanges
) -> dict[str, Any]:
    """Set and remove labels."""
    return _change(
        request,
        program,
        device_id,
        "device.label",
        lambda session: store.set_labels(session, device_id, changes.labels),
    )


@router.post("/devices/{device_id}/pin", operation_id="devices_pin")
def pin_device(request: Request, program: Program, _who: Operator, device_id: str, wanted: Pin) -> dict[str, Any]:
    """Keep rollouts from changing a slot, or all."""
    return _change(
        request,
        program,
        device_id,
        "device.pin",
        lambda session: store.pin(session, device_id, slot=wanted.slot, reason=wanted.reason),
    )


@router.post("/devices/{device_id}/unpin", operation_id="devices_unpin")
def unpin_device(request: Request, program: Program, _who: Operator, device_id: str, wanted: Unpin) -> dict[str, Any]:
    """Let rollouts change a slot again, or all."""
    return _change(
        request, program, device_id, "device.unpin", lambda session: store.unpin(session, device_id, slot=wanted.slot)
    )


@router.post("/devices/{device_id}/accept", operation_id="devices_accept")
def accept_device(request: Request, program: Program, _who: Operator, device_id: str) -> dict[str, Any]:
    """Let a pending device in."""
    shown = _change(request, program, device_id, "device.accept", lambda session: store.accept(session, device_id))
    sync_credentials(program)
    return shown


@router.post("/devices/{device_id}/rotate", operation_id="devices_rotate")
def rotate_device(request: Request, program: Program, _who: Operator, device_id: str) -> dict[str, Any]:
    """Have a device get itself new credentials; it goes on working with the present ones until then."""
    now = program.clock()

    def change(session: Session) -> Device:
        credentials.ask(session, device_id, now=now)
        return store.device(session, device_id)

    shown = _change(request, program, device_id, "device.rotate", change)
    program.signals.bump("desired")
    return shown


@router.post("/devices/{device_id}/revoke", operation_id="devices_revoke")
def revoke_device(request: Request, program: Program, _who: Operator, device_id: str) -> dict[str, Any]:
    """Make a device's credentials void and end its session."""
    shown = _change(request, program, device_id, "device.revoke", lambda session: store.revoke(session, device_id))
    _throw_out(program, device_id)
    return shown


@router.post("/devices/{device_id}/decommission", operation_id="devices_decommission")
def decommission_device(request: Request, program: Program, who: Operator, device_id: str) -> dict[str, Any]:
    """Forget a device; its name is free again."""
    with program.database.write() as session:
        gone = store.decommission(session, device_id, now=program.clock())
        before = {"state": gone.state.value, "labels": dict(gone.labels)}
        record_change(
            session, request, action="device.decommission", subject=f"device:{device_id}", before=before, after=None
        )
        announce_device(
            session,
            EventType.DEVICE_DECOMMISSIONED,
            device_id,
            state="decommissioned",
            labels=gone.labels,
            actor=who.actor,
            now=program.clock(),
        )
    program.signals.bump("devices")
    _throw_out(program, device_id)
    return {"id": device_id, "state": "decommissioned"}


@router.post("/join-tokens", operation_id="join_tokens_create", status_code=status.HTTP_201_CREATED)
def create_join_token(request: Request, program: Program, who: Operator, wanted: NewJoinToken) -> dict[str, Any]:
    """Make a token by which devices may enrol; it is told this once."""
    now = program.clock()
    token_id, secret = secrets.token_hex(8), secrets.token_urlsafe(32)
    allowed = enrolment.NewToken(
        uses=wanted.uses,
        labels=wanted.labels,
        needs_approval=not wanted.preauthorised,
        expires_at=now + wanted.expires_in_s,
        created_by=who.actor,
    )
    with program.database.write() as session:
        row = enrolment.create_token(session, allowed, token_id=token_id, secret=secret, now=now)
        shown = join_token_json(row)
        record_change(session, request, action="join_token.create", subject=f"join_token:{token_id}", after=shown)
    root_version, root_digest = program.trust.pinned_root()
    token = JoinToken(
        id=token_id,
        secret=secret,
        root_digest=root_digest,
        root_version=root_version,
        targets_version=program.trust.targets_version,
        ca_digest=None if program.ca_pem is None else sha256_digest(ssl.PEM_cert_to_DER_cert(program.ca_pem.decode())),
    )
    join = f"shoal-agent join {shlex.quote(_public_url(program))} --token {token}"
    return {**shown, "token": str(token), "join": join, "expires_at": rfc3339(row.expires_at)}


@router.get("/join-tokens", operation_id="join_tokens_list")
def list_join_tokens(
    program: Program,
    _who: Operator,
    limit: Annotated[int, Query(ge=1, le=MAX_LIMIT)] = 100,
    cursor: str | None = None,
) -> dict[str, Any]:
    """List join tokens, by id."""
    query = select(JoinTokenRow).order_by(JoinTokenRow.id).limit(limit + 1)
    after = decode_cursor(cursor)
    if after is not None:
        query = query.where(col(JoinTokenRow.id) > str(after))
    with program.database.read() as session:
        rows = list(session.exec(query))
    return page(rows, limit=limit, position=lambda row: row.id, item=join_token_json)


@router.delete("/join-tokens/{token_id}", operation_id="join_tokens_delete")
def delete_join_token(request: Request, program: Program, _who: Operator, token_id: str) -> dict[str, Any]:
    """Let nobody join by a token any more."""
    with program.database.write() as session:
        row = enrolment.revoke_token(session, token_id)
        shown = join_token_json(row)
        record_change(session, request, action="join_token.delete", subject=f"join_token:{token_id}", before=shown)
    return {"deleted": token_id}


def sync_credentials(program: Services) -> None:
    """Let exactly the accepted devices in; a broker that can't be told now is told by the publisher."""
    try:
        let_in(program.database, program.link, program.letting_in)
    except LinkError:
        _log.warning("the broker did not take the devices' credentials", exc_info=True)


def _change(
    request: Request, program: Services, device_id: str, action: str, change: Callable[[Session], Device]
) -> dict[str, Any]:
    """Change one device, with its audit row, and the event for webhooks if it is one, in the same transaction."""
    with program.database.write() as session:
        before = _audited(store.device(session, device_id))
        changed = change(session)
        record_change(
            session, request, action=action, subject=f"device:{device_id}", before=before, after=_audited(changed)
        )
        if action in TYPE_OF_ACTION and changed.state != before["state"]:
            who = authenticate(request)
            announce_device(
                session,
                TYPE_OF_ACTION[action],
                device_id,
                state=changed.state.value,
                labels=changed.labels,
                actor="server" if who is None else who.actor,
                now=program.clock(),
            )
        shown = device_json(changed, assignments.targets(session, device_id))
    program.signals.bump("devices")
    return shown


def _audited(device: Device) -> dict[str, Any]:
    return {"state": device.state.value, "labels": dict(device.labels), "pins": dict(device.pins)}


def _throw_out(program: Services, device_id: str) -> None:
    sync_credentials(program)
    try:
        program.link.kick(device_id)
        program.link.publish(down(device_id, Down.DESIRED), b"", retain=True)
    except LinkError:
        _log.warning("the session of %s could not be ended at the broker", device_id, exc_info=True)


def _public_url(program: Services) -> str:
    return program.settings.public_url or program.url
