"""What a scope counts now: the fleet's fading counts, or recent windows of a cohort or device. Read-only."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from sqlmodel import Session

from shoal_protocol.profile.reference import Reference
from shoal_server.drift import store
from shoal_server.drift.monitor_state import Scope
from shoal_server.drift.tables import MonitorRow
from shoal_server.fleet import store as fleet
from shoal_server.fleet.devices import Device
from shoal_server.statistics.layout import Floats
from shoal_server.telemetry import store as telemetry
from shoal_server.telemetry.windows import stack

_RECENT_BUCKETS = 20
_MOST_BUCKETS = 100


@dataclass(frozen=True)
class Live:
    """Recent counts.

    Attributes:
        counts: Of all streams, shape (size,).
        span_s: Over how long; None: the fleet's, which fade over about 20 buckets.
    """

    counts: Floats
    span_s: float | None = None


def live_of(
    session: Session,
    row: MonitorRow,
    reference: Reference,
    *,
    scope: Scope,
    name: str,
    since_at: float | None,
) -> Live:
    """Return what a scope counts now on the bundle's grids.

    Args:
        session: Of any transaction.
        row: The bundle in its slot.
        reference: Of the bundle.
        scope: Level.
        name: Of the cohort or device.
        since_at: Since when it drifts, seconds since the epoch; None: the last buckets that were judged.
    """
    if scope is Scope.FLEET:
        return Live(store.live_counts(row))
    bucket_s = row.bucket_ms / 1000
    until = (row.watermark + 1) * bucket_s
    since = max(since_at or until - _RECENT_BUCKETS * bucket_s, until - _MOST_BUCKETS * bucket_s)
    windows = telemetry.windows(
        session,
        slot=row.slot,
        start_ms=int(since * 1000),
        end_ms=int(until * 1000),
        digests=[row.digest],
        devices=[device.id for device in fleet.devices(session) if _belongs(device, scope, name)],
    )
    arrays = stack(windows, reference.spec)
    total = arrays.cells.sum(axis=0) if len(arrays) else np.zeros(reference.spec.size)
    return Live(total.astype(np.float64), until - since)


def _belongs(device: Device, scope: Scope, name: str) -> bool:
    if scope is Scope.DEVICE:
        return device.id == name
    key, _, value = name.partition("=")
    return device.cohort_facts().get(key) == value
