"""The devices of the fleet, stored: who they are, and what was changed about them.

Owns the queries over `DeviceRow` and the changes that people make. Leaves what devices say to `intake`, joining to
`enrolment`, what should run to `assignments`.

Every change takes the session of an open write transaction; the caller writes the audit row in the same one.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import msgspec
from sqlmodel import Session, col, select

from shoal_protocol.errors import CallerError
from shoal_protocol.mqtt.messages import HoldReport, SlotReport
from shoal_server.errors import ConflictError, NotFoundError
from shoal_server.fleet import clones
from shoal_server.fleet.cohort import Cohort
from shoal_server.fleet.devices import ALL_SLOTS, Device, DeviceState
from shoal_server.fleet.tables import DesiredRow, DeviceRow
from shoal_server.link.verifiers import verify_secret as secret_fits

MAX_LABELS = 64
MAX_LABEL_CHARACTERS = 128
_SQL_VARIABLES = 500

_COLUMNS = (
    col(DeviceRow.id),
    col(DeviceRow.state),
    col(DeviceRow.labels),
    col(DeviceRow.facts),
    col(DeviceRow.pins),
    col(DeviceRow.online),
    col(DeviceRow.last_seen_at),
    col(DeviceRow.polled_at),
    col(DeviceRow.enrolled_at),
    col(DeviceRow.epoch),
    col(DeviceRow.boot),
    col(DeviceRow.seq),
    col(DeviceRow.reported),
    col(DeviceRow.generation_reported),
    col(DeviceRow.clone_suspected_at),
    col(DeviceRow.hold),
    col(DeviceRow.credential),
    col(DeviceRow.credential_at),
    col(DesiredRow.generation),
    col(DesiredRow.credential),
)
"""What `_device` reads, in its order."""


def devices(session: Session, *, ids: Collection[str] | None = None, cohort: Cohort | None = None) -> list[Device]:
    """Return devices in the order of their ids.

    Args:
        session: Of any transaction.
        ids: Only these; None: all.
        cohort: Only those that it matches; None: all.
    """
    found = [_device(row) for row in _rows(session, None if ids is None else sorted(set(ids)))]
    return found if cohort is None else [device for device in found if cohort.matches(device.cohort_facts())]


def device(session: Session, device_id: str) -> Device:
    """Return one device.

    Raises:
        NotFoundError: There is none of that id.
    """
    found = devices(session, ids=[device_id])
    if not found:
        raise NotFoundError(f"there is no device {device_id!r:.80}", hint="shoalctl device list")
    return found[0]


def verify_secret(session: Session, device_id: str, secret: str) -> bool:
    """Tell whether this is that device: its secret fits, it is accepted and not revoked.

    A secret that was handed out to replace it fits, too: `credentials` says until when both do.
    """
    row = session.get(DeviceRow, device_id)
    if row is None or row.state != DeviceState.ACCEPTED:
        return False
    raw = secret.encode()
    return secret_fits(raw, row.verifier) or (row.next_verifier != "" and secret_fits(raw, row.next_verifier))


def is_accepted(session: Session, device_id: str) -> bool:
    """Tell whether a device is let in."""
    state = session.exec(select(DeviceRow.state).where(DeviceRow.id == device_id)).first()
    return state == DeviceState.ACCEPTED


def credentials(session: Session) -> list[tuple[str, str]]:
    """Return id and verifier line of every accepted device, for `DeviceLink.sync_credentials`."""
    query = select(DeviceRow.id, DeviceRow.verifier).where(DeviceRow.state == DeviceState.ACCEPTED)
    return [(device_id, verifier) for device_id, verifier in session.exec(query.order_by(DeviceRow.id))]


def set_labels(session: Session, device_id: str, changes: Mapping[str, str | None]) -> Device:
    """Set labels; None takes one away, what is not named stays.

    Raises:
        NotFoundError: There is no such device.
        CallerError: A label's name or value is not allowed.
    """
    row = row_of(session, device_id)
    labels = {**row.labels, **{key: value for key, value in changes.items() if value is not None}}
    labels = {key: value for key, value in labels.items() if changes.get(key, value) is not None}
    row.labels = check_labels(labels)
    return _saved(session, row)


def check_labels(labels: Mapping[str, str]) -> dict[str, str]:
    """Return the labels.

    Raises:
        CallerError: Too many, or a name or value that a cohort query could not hold.
    """
    if len(labels) > MAX_LABELS:
        raise CallerError(f"a device has at most {MAX_LABELS} labels, these are {len(labels)}")
    for key, value in labels.items():
        name_is_good = key and key.replace("-", "").replace("_", "").replace("/", "").isalnum() and key.isascii()
        if not name_is_good or len(key) > MAX_LABEL_CHARACTERS:
            raise CallerError(f"{key!r:.80} is no label name: expected letters, digits, '-', '_' and '/'")
        if len(value) > MAX_LABEL_CHARACTERS or not value.isprintable():
            raise CallerError(f"label {key}: a value has at most {MAX_LABEL_CHARACTERS} printable characters")
    return dict(labels)


def pin(session: Session, device_id: str, *, slot: str = ALL_SLOTS, reason: str) -> Device:
    """Keep rollouts from changing a slot, or all of them."""
    row = row_of(session, device_id)
    row.pins = {**row.pins, slot: reason}
    return _saved(session, row)


def unpin(session: Session, device_id: str, *, slot: str = ALL_SLOTS) -> Device:
    """Let rollouts change the slot again; `ALL_SLOTS` takes every pin away."""
    row = row_of(session, device_id)
    row.pins = {} if slot == ALL_SLOTS else {key: value for key, value in row.pins.items() if key != slot}
    return _saved(session, row)


def accept(session: Session, device_id: str) -> Device:
    """Let a pending device in.

    Raises:
        ConflictError: It was revoked.
    """
    row = row_of(session, device_id)
    if row.state == DeviceState.REVOKED:
        raise ConflictError(f"the device {device_id} was revoked", hint="decommission it, then let it join anew")
    row.state = DeviceState.ACCEPTED
    return _saved(session, row)


def revoke(session: Session, device_id: str) -> Device:
    """Make a device's credentials void; the caller then syncs credentials and kicks its session."""
    row = row_of(session, device_id)
    row.state = DeviceState.REVOKED
    row.online = False
    return _saved(session, row)


def decommission(session: Session, device_id: str, *, now: float) -> Device:
    """Forget a device and what it should run; its name is free again. History and audit keep naming it."""
    gone = device(session, device_id)
    desired = session.get(DesiredRow, device_id)
    if desired is not None:
        session.delete(desired)
    row = row_of(session, device_id)
    clones.settle(session, row, now=now)
    session.delete(row)
    session.flush()
    return gone


def forget_presence(session: Session) -> int:
    """Count every device as offline until it speaks again; call it before the line to the devices is opened.

    A presence that was heard before is believed again: a broker's stored copy is the newest word there is.

    Returns:
        How many were counted as online.
    """
    rows = list(session.exec(select(DeviceRow).where(col(DeviceRow.online).is_(True))))
    for row in rows:
        row.online = False
        row.seen = {kind: place for kind, place in row.seen.items() if kind != "presence"}
        session.add(row)
    return len(rows)


def row_of(session: Session, device_id: str) -> DeviceRow:
    """Return a device's row for changing it.

    Raises:
        NotFoundError: There is none.
    """
    row = session.get(DeviceRow, device_id, with_for_update=True)
    if row is None:
        raise NotFoundError(f"there is no device {device_id!r:.80}", hint="shoalctl device list")
    return row


def _rows(session: Session, ids: list[str] | None) -> list[tuple[Any, ...]]:
    # Columns, not entities: a fleet of 10,000 is read twice a second, and entities cost ten times as much.
    query = select(*_COLUMNS).join(DesiredRow, col(DesiredRow.device) == DeviceRow.id, isouter=True)  # type: ignore[call-overload]  # more columns than SQLModel has overloads for
    query = query.order_by(DeviceRow.id)
    if ids is None:
        return [tuple(row) for row in session.execute(query)]
    found: list[tuple[Any, ...]] = []
    for begin in range(0, len(ids), _SQL_VARIABLES):
        some = ids[begin : begin + _SQL_VARIABLES]
        found.extend(tuple(row) for row in session.execute(query.where(col(DeviceRow.id).in_(some))))
    return found


def _saved(session: Session, row: DeviceRow) -> Device:
    session.add(row)
    session.flush()
    return device(session, row.id)


def _device(row: tuple[Any, ...]) -> Device:
    (
        device_id,
        state,
        labels,
        facts,
        pins,
        online,
        last_seen_at,
        polled_at,
        enrolled_at,
        epoch,
        boot,
        seq,
        reported,
        generation_reported,
        clone_suspected_at,
        hold,
        credential,
        credential_at,
        generation,
        credential_wanted,
    ) = row
    return Device(
        id=device_id,
        state=DeviceState(state),
        labels=labels,
        facts=facts,
        online=online,
        last_seen_at=last_seen_at,
        polled_at=polled_at,
        enrolled_at=enrolled_at,
        epoch=epoch,
        boot=boot,
        seq=seq,
        reported=_reports(reported),
        generation=generation or 0,
        generation_reported=generation_reported,
        pins=pins,
        clone_suspected_at=clone_suspected_at,
        hold=None if hold is None else msgspec.convert(hold, type=HoldReport),
        credential=credential,
        credential_at=credential_at,
        credential_wanted=credential_wanted or 0,
    )


def _reports(stored: Mapping[str, Any]) -> dict[str, SlotReport]:
    return msgspec.convert(stored, type=dict[str, SlotReport])
