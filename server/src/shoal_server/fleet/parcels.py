"""Parcels for devices without a network: their assignment, and all that belongs to it, as one tar.

Owns what is in a parcel and its order; leaves its form to `shoal_protocol.parcel` and all verifying to the device.
"""

from __future__ import annotations

import tarfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import msgspec
from sqlmodel import Session

from shoal_protocol.bundle.manifest import parse_manifest
from shoal_protocol.mqtt.messages import Ack
from shoal_protocol.parcel import ABOUT, DESIRED, RECEIPT, TRUST, About, blob_member
from shoal_protocol.trust.assignment import SlotTarget
from shoal_protocol.trust.receipt import sign_receipt
from shoal_server.errors import ConflictError
from shoal_server.fleet import assignments, store
from shoal_server.fleet.desired import LIFETIME_S
from shoal_server.fleet.devices import Device, DeviceState
from shoal_server.fleet.tables import DesiredRow
from shoal_server.services import Services
from shoal_server.storage.blobs import BlobStore
from shoal_server.telemetry.ledger import Ledger
from shoal_server.telemetry.store import device_ledgers

_MODE = 0o644


@dataclass(frozen=True)
class Parcel:
    """What goes to one device.

    Attributes:
        about: For people.
        desired: The signed assignment.
        documents: Signed documents by the name of their file.
        receipt: Signed: which of the device's messages have come; none: none has.
        digests: Of the bundles.
    """

    about: About
    desired: bytes
    documents: Mapping[str, bytes]
    digests: tuple[str, ...]
    receipt: bytes | None = None


def pack_parcel(session: Session, program: Services, device_id: str, *, now: float) -> Parcel:
    """Put together what a device should run now, signed anew so that it is believed as long as possible.

    Args:
        session: Of an open write transaction.
        program: For the signer.
        device_id: Whose.
        now: Seconds since the epoch.

    Raises:
        NotFoundError: There is no such device.
        ConflictError: It is not accepted, or nothing is assigned to it.
    """
    device = store.device(session, device_id)
    if device.state is not DeviceState.ACCEPTED:
        raise ConflictError(f"the device {device_id} is {device.state.value}: it may get nothing")
    wanted = assignments.targets(session, device_id)
    row = session.get(DesiredRow, device_id, with_for_update=True)
    if row is None or not wanted:
        hint = "a rollout whose cohort holds it assigns it one: shoalctl rollout create"
        raise ConflictError(f"nothing is assigned to the device {device_id}, so there is nothing to carry", hint=hint)
    row.resign_at = 0.0
    session.add(row)
    session.flush()
    document = assignments.document(session, device_id, signer=program.trust.assignment_signer, now=now)
    about = About(
        device=device_id,
        generation=document.generation,
        made_at=int(now * 1000),
        expires=int((now + LIFETIME_S) * 1000),
        slots={slot: target.name or target.digest or "nothing" for slot, target in wanted.items()},
    )
    return Parcel(about, document.envelope, {}, _digests(wanted), _receipt(session, program, device))


def parcel_bytes(parcel: Parcel, blobs: BlobStore) -> Iterator[bytes]:
    """Write a parcel piece by piece; files of bundles come out of the store as they are sent.

    Raises:
        NotFoundError: A file of a bundle is gone.
    """
    made_at = parcel.about.made_at // 1000
    small = {ABOUT: msgspec.json.format(msgspec.json.encode(parcel.about)), DESIRED: parcel.desired}
    if parcel.receipt is not None:
        small[RECEIPT] = parcel.receipt
    small |= {f"{TRUST}{name}": raw for name, raw in sorted(parcel.documents.items())}
    for name, raw in small.items():
        yield _member(name, len(raw), made_at) + _padded(raw)
    for digest, size in _blobs(parcel.digests, blobs).items():
        yield _member(blob_member(digest), size, made_at)
        yield from blobs.pieces(digest)
        yield b"\0" * (-size % tarfile.BLOCKSIZE)
    yield b"\0" * tarfile.BLOCKSIZE * 2


def _receipt(session: Session, program: Services, device: Device) -> bytes | None:
    """Return what tells the device which messages of its present spool are committed."""
    if not device.epoch:
        return None
    ledger = device_ledgers(session, device.id).get(device.epoch, Ledger())
    ack = Ack(epoch=device.epoch, through=ledger.through, ranges=ledger.ranges)
    return sign_receipt(device.id, ack, program.trust.assignment_signer)


def _digests(wanted: Mapping[str, SlotTarget]) -> tuple[str, ...]:
    found = [digest for target in wanted.values() for digest in (target.digest, target.shadow) if digest is not None]
    return tuple(dict.fromkeys(found))


def _blobs(digests: tuple[str, ...], blobs: BlobStore) -> dict[str, int]:
    """Return digest and size of every manifest and file, each once."""
    found: dict[str, int] = {}
    for digest in digests:
        with blobs.open(digest) as file:
            raw = file.read()
        found[digest] = len(raw)
        found |= {blob.digest: blob.size for blob in parse_manifest(raw).blobs()}
    return found


def _member(name: str, size: int, made_at: int) -> bytes:
    member = tarfile.TarInfo(name)
    member.size, member.mtime, member.mode = size, made_at, _MODE
    return member.tobuf(tarfile.USTAR_FORMAT if size < 8**11 else tarfile.GNU_FORMAT)


def _padded(raw: bytes) -> bytes:
    return raw + b"\0" * (-len(raw) % tarfile.BLOCKSIZE)
