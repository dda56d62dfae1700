"""Which bundles devices still need, and which ones a device may fetch.

Owns what counts as needed: what a device should run, and what it says that it has. What a device *says* keeps bundles
from being deleted, and never lets it read any: only what this server assigned to it does.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from sqlmodel import Session, select

from shoal_server.fleet.devices import DeviceState
from shoal_server.fleet.tables import DesiredRow, DeviceRow
from shoal_server.registry.needs import Need

_WANTED = ("digest", "shadow")
_REPORTED = ("active", "previous", "proven", "fallback", "target")


def device_needs(session: Session) -> Iterator[Need]:
    """Go through what devices run, keep to return to, and should run; revoked devices need nothing."""
    revoked = set(session.exec(select(DeviceRow.id).where(DeviceRow.state == DeviceState.REVOKED)))
    for device, slots in session.exec(select(DesiredRow.device, DesiredRow.slots)):
        if device not in revoked:
            yield from (Need(digest, f"device {device} ({kind})") for kind, digest in _wanted(slots))
    for device, reported in session.exec(select(DeviceRow.id, DeviceRow.reported)):
        if device not in revoked:
            yield from (Need(digest, f"device {device} ({kind})") for kind, digest in _said(reported))


def assigned_digests(session: Session, device: str) -> set[str]:
    """Return the bundles that a device's newest assignment names, shadows included."""
    slots = session.exec(select(DesiredRow.slots).where(DesiredRow.device == device)).first()
    return {digest for _, digest in _wanted(slots or {})}


def _wanted(slots: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for target in slots.values():
        yield from (("desired" if key == "digest" else key, target[key]) for key in _WANTED if target.get(key))


def _said(reported: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for report in reported.values():
        yield from ((key, report[key]) for key in _REPORTED if report.get(key))
        shadow = report.get("shadow")
        if shadow and shadow.get("digest"):
            yield "shadow", shadow["digest"]
