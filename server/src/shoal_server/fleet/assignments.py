"""What each device should run, stored: the outbox from which the publisher sends.

Owns generations, the slots of each device, and the signed document of the newest generation. Leaves the document's form
to `desired` and sending to `publisher`.

Invariants: a generation only grows; a change and its generation are one transaction; a document is stored before it is
sent, so that MQTT and HTTP tell the same bytes.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass

import msgspec
from securesystemslib.signer import Signer
from sqlalchemy import or_, update
from sqlmodel import Session, col, select

from shoal_protocol.canonical import sha256_digest
from shoal_protocol.trust.assignment import SlotTarget, sign_assignment
from shoal_server.fleet.counting import countings
from shoal_server.fleet.desired import LIFETIME_S, compose, half_life, next_generation
from shoal_server.fleet.devices import DeviceState
from shoal_server.fleet.tables import DesiredRow, DeviceRow
from shoal_server.registry.store import version_of_digest

_SQL_VARIABLES = 500

MAX_GENERATION = 2**52
"""Generations beyond are not believed: JSON and databases can't hold them."""


@dataclass(frozen=True)
class SignedDocument:
    """What a device is told.

    Attributes:
        envelope: The signed bytes.
        etag: Changes with every signature.
        issued_at: Seconds since the epoch.
    """

    device: str
    generation: int
    envelope: bytes
    etag: str
    issued_at: float


def assign(session: Session, device_id: str, slot: str, target: SlotTarget | None, *, now: float) -> int:
    """Set what one device's slot should run; see `assign_all`."""
    return assign_all(session, slot, {device_id: target}, now=now)[device_id]


def assigned_slots(session: Session) -> frozenset[str]:
    """Return the slots that any device is assigned to run something in."""
    return frozenset(slot for slots in session.exec(select(DesiredRow.slots)) for slot in slots)


def may_run(session: Session, pairs: Collection[tuple[str, str]]) -> set[tuple[str, str]]:
    """Return the pairs of slot and bundle that devices may be meant to run: assigned slots, bundles of the registry."""
    slots = assigned_slots(session)
    return {
        (slot, digest) for slot, digest in pairs if slot in slots and version_of_digest(session, digest) is not None
    }


def assign_all(session: Session, slot: str, wanted: Mapping[str, SlotTarget | None], *, now: float) -> dict[str, int]:
    """Set what a slot should run on many devices.

    Args:
        session: Of an open write transaction.
        slot: Which.
        wanted: By device; None takes the slot out of the assignment.
        now: Seconds since the epoch.

    Returns:
        By device the generation that says so; the present one where nothing changes.
    """
    names = sorted(wanted)
    counted = countings(session, [one.digest for one in wanted.values() if one is not None and one.digest is not None])
    rows = {row.device: row for row in _locked(session, names)}
    seen: dict[str, int] = {}
    for begin in range(0, len(names), _SQL_VARIABLES):
        some = names[begin : begin + _SQL_VARIABLES]
        reported = select(DeviceRow.id, DeviceRow.generation_reported).where(col(DeviceRow.id).in_(some))
        seen.update(session.exec(reported).all())
    for name in names:
        row = rows.setdefault(name, DesiredRow(device=name, generation=0, changed_at=now))
        target = wanted[name]
        if target is not None:
            target = msgspec.structs.replace(target, counting=counted.get(target.digest or ""))
        _assign(row, slot, target, seen=seen.get(name, 0), now=now)
        session.add(row)
    session.flush()
    return {name: rows[name].generation for name in names}


def adjust_all(
    session: Session,
    slot: str,
    devices: Collection[str],
    change: Callable[[SlotTarget], SlotTarget],
    *,
    now: float,
) -> list[str]:
    """Change what goes beside the model of a slot (its shadow, its sampling) where the slot should run one.

    Args:
        session: Of an open write transaction.
        slot: Which.
        devices: On these.
        change: From the present target to the new one, of the same digest.
        now: Seconds since the epoch.

    Returns:
        The devices whose slot should run a model, ascending; the others have nothing that could be changed.
    """
    reported = dict(session.exec(select(DeviceRow.id, DeviceRow.generation_reported)).all())
    changed: list[str] = []
    for row in _locked(session, sorted(devices)):  # before looking: a rollout may be about to assign another digest
        target = _targets(row).get(slot)
        if target is not None and target.digest is not None:
            _store(row, slot, change(target), seen=reported.get(row.device, 0), now=now)
            session.add(row)
            changed.append(row.device)
    session.flush()
    return changed


def want_credential(session: Session, device_id: str, number: int, *, now: float) -> int:
    """Have a device get itself the credentials of a number; returns the generation that says so."""
    row = _row(session, device_id, now)
    if row.credential != number or not row.generation:
        seen = session.exec(select(DeviceRow.generation_reported).where(DeviceRow.id == device_id)).one()
        row.credential = number
        _grow(row, seen=seen, now=now)
        session.add(row)
        session.flush()
    return row.generation


def name_counting(session: Session, bundle: str, counting: str | None, *, now: float) -> None:
    """Name the document by which a bundle is counted wherever that is assigned.

    Args:
        session: Of an open write transaction.
        bundle: Digest of the bundle.
        counting: Digest of the document; none: the bundle alone says what is counted.
        now: Seconds since the epoch.
    """
    reported = dict(session.exec(select(DeviceRow.id, DeviceRow.generation_reported)).all())
    for row in session.exec(select(DesiredRow).order_by(DesiredRow.device).with_for_update()).all():
        for slot, target in _targets(row).items():
            if target.digest == bundle and target.counting != counting:
                changed = msgspec.structs.replace(target, counting=counting)
                _store(row, slot, changed, seen=reported.get(row.device, 0), now=now)
                session.add(row)
    session.flush()


def _locked(session: Session, names: list[str]) -> Iterator[DesiredRow]:
    for begin in range(0, len(names), _SQL_VARIABLES):
        some = select(DesiredRow).where(col(DesiredRow.device).in_(names[begin : begin + _SQL_VARIABLES]))
        now = {"populate_existing": True}  # as it is now, whatever this session has read before
        yield from session.exec(some.order_by(DesiredRow.device).with_for_update(), execution_options=now)


def _assign(row: DesiredRow, slot: str, target: SlotTarget | None, *, seen: int, now: float) -> None:
    """Set another digest; what goes beside the model stays, but for a shadow that is now the model itself."""
    stored = row.slots.get(slot)
    if target is not None and stored is not None:
        before = _target(stored)
        shadow = target.shadow or before.shadow
        target = msgspec.structs.replace(
            target,
            shadow=None if shadow == target.digest else shadow,
            sampling=target.sampling or before.sampling,
        )
    _store(row, slot, target, seen=seen, now=now)


def _store(row: DesiredRow, slot: str, target: SlotTarget | None, *, seen: int, now: float) -> None:
    slots = {name: stored for name, stored in row.slots.items() if name != slot}
    if target is not None:
        slots[slot] = msgspec.to_builtins(target)
    if slots == row.slots and row.generation > 0:
        return
    row.slots = slots
    _grow(row, seen=seen, now=now)


def _grow(row: DesiredRow, *, seen: int, now: float) -> None:
    """Number a change, above all that the device has seen."""
    row.generation = next_generation(own=row.generation, reported=seen if seen < MAX_GENERATION else 0)
    row.changed_at, row.resign_at = now, 0.0


def targets(session: Session, device_id: str) -> dict[str, SlotTarget]:
    """Return what the device should run, by slot."""
    row = session.get(DesiredRow, device_id)
    return {} if row is None else _targets(row)


def slot_targets(session: Session, slot: str) -> dict[str, SlotTarget]:
    """Return what one slot should run, by device; devices without such a slot are left out."""
    rows = session.exec(select(DesiredRow.device, DesiredRow.slots))
    return {device: _target(slots[slot]) for device, slots in rows if slot in slots}


def generations(session: Session) -> dict[str, int]:
    """Return the newest generation of every device that has one."""
    return dict(session.exec(select(DesiredRow.device, DesiredRow.generation)).all())


def on_generation(session: Session, device_id: str, *, reported: int, now: float) -> None:
    """Continue above what a device has seen, as happens when the server was restored from a backup."""
    own = session.exec(select(DesiredRow.generation).where(DesiredRow.device == device_id)).first()
    if own is None or own >= reported:  # nearly always, and it only grows: a batch of reports holds no row up for that
        return
    row = session.get(DesiredRow, device_id, with_for_update=True)
    if row is not None and row.generation < reported < MAX_GENERATION:
        row.generation = next_generation(own=row.generation, reported=reported)
        row.changed_at, row.resign_at = now, 0.0
        session.add(row)


def document(session: Session, device_id: str, *, signer: Signer, now: float) -> SignedDocument:
    """Return the signed document of the newest generation, signing it when that has to be done."""
    row = _row(session, device_id, now)
    if row.document is None or row.document_generation != row.generation or now >= row.resign_at:
        row.generation = max(row.generation, 1)
        assignment = compose(
            device_id, generation=row.generation, slots=_targets(row), credential=row.credential, now=now
        )
        row.document = sign_assignment(assignment, signer).decode()
        row.document_generation = row.generation
        row.issued_at, row.expires_at = now, now + LIFETIME_S
        row.resign_at = half_life(issued_at=row.issued_at, expires_at=row.expires_at)
        row.published_generation = 0
        session.add(row)
    return _document(row)


def stored_document(session: Session, device_id: str, *, now: float) -> SignedDocument | None:
    """Return the document if it is signed, of the newest generation and not due for another signature."""
    row = session.get(DesiredRow, device_id)
    if row is None or row.document is None or row.document_generation != row.generation or now >= row.resign_at:
        return None
    return _document(row)


def due(session: Session, *, now: float, limit: int) -> list[str]:
    """Return accepted devices whose newest document is not published or has to be signed again, the oldest first."""
    query = (
        select(DesiredRow.device)
        .join(DeviceRow, col(DeviceRow.id) == DesiredRow.device)
        .where(DeviceRow.state == DeviceState.ACCEPTED)
        .where(or_(col(DesiredRow.published_generation) < col(DesiredRow.generation), col(DesiredRow.resign_at) <= now))
        .order_by(col(DesiredRow.changed_at), col(DesiredRow.device))
        .limit(limit)
    )
    return list(session.exec(query))


def after(session: Session, device_id: str, *, limit: int) -> list[str]:
    """Return accepted devices that have an assignment, by id, after one."""
    query = (
        select(DesiredRow.device)
        .join(DeviceRow, col(DeviceRow.id) == DesiredRow.device)
        .where(DeviceRow.state == DeviceState.ACCEPTED)
        .where(col(DesiredRow.device) > device_id)
        .order_by(col(DesiredRow.device))
        .limit(limit)
    )
    return list(session.exec(query))


def lagging(session: Session, *, after: str, published_before: float, limit: int) -> list[str]:
    """Return connected devices that have not told for a while of the newest document that was sent to them, by id.

    Args:
        session: Of a read.
        after: The last device of the part before.
        published_before: Documents that changed since then, seconds since the epoch, are still on their way.
        limit: At most so many.
    """
    query = (
        select(DesiredRow.device)
        .join(DeviceRow, col(DeviceRow.id) == DesiredRow.device)
        .where(DeviceRow.state == DeviceState.ACCEPTED)
        .where(col(DeviceRow.online), col(DesiredRow.device) > after)
        .where(col(DeviceRow.generation_reported) < col(DesiredRow.published_generation))
        .where(col(DesiredRow.changed_at) <= published_before)
        .order_by(col(DesiredRow.device))
        .limit(limit)
    )
    return list(session.exec(query))


def sign_all_again(session: Session) -> None:
    """Have every device's document signed and sent again: devices then look at the signed list, and at its keys."""
    session.exec(update(DesiredRow).values(resign_at=0.0))


def mark_published(session: Session, published: Mapping[str, tuple[int, float]]) -> None:
    """Note which (generation, issued_at) was sent to each device; a newer one that came meanwhile stays to be sent."""
    for device_id, (generation, issued_at) in sorted(published.items()):
        row = session.get(DesiredRow, device_id, with_for_update=True)
        if row is not None and (row.document_generation, row.issued_at) == (generation, issued_at):
            row.published_generation = generation
            session.add(row)


def _row(session: Session, device_id: str, now: float) -> DesiredRow:
    row = session.get(DesiredRow, device_id, with_for_update=True)
    return row if row is not None else DesiredRow(device=device_id, generation=0, changed_at=now)


def _document(row: DesiredRow) -> SignedDocument:
    envelope = (row.document or "").encode()
    digest = sha256_digest(envelope).removeprefix("sha256:")[:24]
    return SignedDocument(row.device, row.generation, envelope, f'"{row.generation}-{digest}"', row.issued_at)


def _targets(row: DesiredRow) -> dict[str, SlotTarget]:
    return {slot: _target(stored) for slot, stored in row.slots.items()}


def _target(stored: object) -> SlotTarget:
    return msgspec.convert(stored, type=SlotTarget)
