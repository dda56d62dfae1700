"""Taking in a parcel: an assignment that came by hand, with all that belongs to it.

Everything is verified as if it came over the network, in the same order and by the same code: the signed documents from
the pinned root, the assignment (for this device, not expired, not older than what was seen), each bundle against the
signed list, each file against its digest. Only then the files stand in the store, and the assignment goes the usual
way; the parcel is not needed any more.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING

from shoal_agent.domain.device import DeviceState
from shoal_agent.domain.disk_room import room_needed
from shoal_agent.domain.fit import DeviceFacts, needed_blobs
from shoal_agent.errors import DiskFullError, ParcelError
from shoal_agent.ports import BlobStore, Parcel
from shoal_agent.updating.work import is_stored
from shoal_protocol.bundle.layout import BUNDLE_JSON
from shoal_protocol.bundle.manifest import Descriptor, Manifest, parse_manifest
from shoal_protocol.canonical import sha256_digest
from shoal_protocol.errors import ContentError, DigestMismatchError, ExpiredError, RollbackError
from shoal_protocol.mqtt.messages import Ack

if TYPE_CHECKING:
    from shoal_agent.adapters.trust_store import TrustStore
    from shoal_agent.updating.assignments import AssignmentIntake
    from shoal_protocol.trust.signed_list import SignedList, TargetEntry

_log = logging.getLogger(__name__)


class Delivery:
    """Takes parcels in for one device; used by the updating thread.

    Args:
        trust: Verifies the signed documents.
        store: Where the bundles go.
        facts: Of the device, which decide which files it needs.
    """

    def __init__(self, trust: TrustStore, store: BlobStore, facts: DeviceFacts) -> None:
        self._trust = trust
        self._store = store
        self._facts = facts

    def unpack(self, parcel: Parcel, intake: AssignmentIntake, state: DeviceState) -> tuple[bytes, Ack | None]:
        """Verify a parcel and store what is in it.

        Returns:
            The assignment's document, to be taken in as always, and which mail the server has, if it tells.

        Args:
            parcel: The file.
            intake: Verifies assignments.
            state: Of the device.

        Raises:
            TrustError: Something in it can't be trusted, is expired, is older than what was seen, or is for another
                device.
            ContentError: It does not parse, or lacks something.
            DiskFullError: There is no room for it.
            OSError: The disk fails.
        """
        try:
            releases = self._trust.refresh(parcel)
            document = parcel.desired()
            assignment = intake.verified(document, state)
            receipt = self._receipt(parcel)
        except RollbackError as error:
            raise RollbackError(
                f"this parcel is older than what this device has seen: {error.message}",
                hint="a device that has reached the server since needs no parcel; else carry a newer one to it",
            ) from error
        except ExpiredError as error:
            hint = "is this device's clock right? Else make the parcel anew: shoalctl device export"
            raise ExpiredError(f"this parcel is not believed any more: {error.message}", hint=hint) from error
        for slot in assignment.slots.values():
            for digest in (slot.digest, slot.shadow):
                if digest is not None and not is_stored(self._store, digest, facts=self._facts):
                    self._bring(parcel, releases, digest)
        return document, receipt

    def _receipt(self, parcel: Parcel) -> Ack | None:
        from shoal_protocol.trust.receipt import PAYLOAD_TYPE, parse_receipt  # noqa: PLC0415 - parcels are rare

        raw = parcel.receipt()
        if raw is None:
            return None
        return parse_receipt(self._trust.opened(raw, PAYLOAD_TYPE, what="receipt"), device=parcel.about.device)

    def _bring(self, parcel: Parcel, releases: SignedList, digest: str) -> None:
        entry = releases.check(digest)
        manifest = self._manifest(parcel, entry)
        info = manifest.files().get(BUNDLE_JSON)
        if info is None:
            raise ContentError(f"the bundle {entry.path} has no {BUNDLE_JSON}")
        self._copy(parcel, [info])
        needed = needed_blobs(manifest, self._store.read, facts=self._facts)
        self._copy(parcel, list({blob.digest: blob for blob in needed}.values()))
        self._store.add_bundle(parcel.manifest(digest))
        _log.info("bundle %s was brought by a parcel", entry.path)

    def _manifest(self, parcel: Parcel, entry: TargetEntry) -> Manifest:
        raw = parcel.manifest(entry.digest)
        if len(raw) != entry.size or sha256_digest(raw) != entry.digest:
            raise DigestMismatchError(f"the parcel's manifest of {entry.path} is not the signed one")
        return parse_manifest(raw)

    def _copy(self, parcel: Parcel, blobs: list[Descriptor]) -> None:
        missing = [blob for blob in blobs if not self._store.has(blob)]
        need, free = room_needed(sum(blob.size for blob in missing)), self._store.free_bytes()
        if need > free:
            raise DiskFullError(f"the parcel needs {need} bytes on the disk, {free} are free")
        for blob in missing:
            part: Path = self._store.part(blob.digest)
            self._store.discard_part(blob.digest)
            parcel.copy_blob(blob, part)
            self._store.adopt(blob)


def check_device(parcel: Parcel, device: str) -> None:
    """Refuse a parcel that says itself that it is for another device, before anything of it is read.

    Raises:
        ParcelError: It is.
    """
    if parcel.about.device != device:
        raise ParcelError(
            f"this parcel is for the device {parcel.about.device!r:.80}, this is {device!r}",
            hint=f"shoalctl device export {device} --output FILE",
        )
