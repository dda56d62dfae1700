"""Bundles of which nobody knows yet what to count: they came without data, and their first rows are still awaited.

Read-only. Leaves the learning itself to `learning`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import NamedTuple

from sqlmodel import Session, func, select

from shoal_protocol.profile.reference import Reference
from shoal_server.drift.tables import SketchRow
from shoal_server.errors import NotFoundError
from shoal_server.fleet import store as fleet
from shoal_server.fleet.counting import assigned_bundles
from shoal_server.fleet.devices import DeviceState


class BeingLearnt(NamedTuple):
    """A bundle whose cells are not fixed yet.

    Attributes:
        slot: Where it runs.
        digest: Of the bundle.
        devices: How many accepted devices run it there.
        told: How many devices told of their first rows.
    """

    slot: str
    digest: str
    devices: int
    told: int


def being_learnt(
    session: Session, slot: str | None, reference_of: Callable[[str], Reference | None]
) -> list[BeingLearnt]:
    """Return each bundle that devices run before its cells are fixed, by slot and digest."""
    unlearnt = {digest for digest in assigned_bundles(session) if _is_unlearnt(digest, reference_of)}
    if not unlearnt:
        return []
    runs: Counter[tuple[str, str]] = Counter()
    for device in fleet.devices(session):
        if device.state is DeviceState.ACCEPTED:
            runs.update((name, report.active) for name, report in device.reported.items() if report.active in unlearnt)
    told = dict(session.exec(select(SketchRow.digest, func.count()).group_by(SketchRow.digest)).all())
    return [
        BeingLearnt(name, digest, devices, min(devices, told.get(digest, 0)))
        for (name, digest), devices in sorted(runs.items())
        if slot is None or name == slot
    ]


def _is_unlearnt(digest: str, reference_of: Callable[[str], Reference | None]) -> bool:
    try:
        return reference_of(digest) is None
    except NotFoundError:
        return False
