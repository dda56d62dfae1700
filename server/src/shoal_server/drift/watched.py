"""What is watched, and how carefully: windows, baseline and promise about false alarms of each bundle in use.

Read-only. The promise is told in the same words in the API, by shoalctl, on pages and in reports.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

from sqlmodel import Session

from shoal_protocol.profile.learning import is_learnt
from shoal_protocol.profile.reference import Reference
from shoal_server.drift import store
from shoal_server.drift.late_store import newest_late
from shoal_server.drift.sensitivity import promise
from shoal_server.drift.states import present
from shoal_server.drift.tables import MonitorRow
from shoal_server.drift.watch import Yardstick, gap_to_training

ReferenceOf: TypeAlias = Callable[[str], Reference | None]
"""Returns a bundle's reference by its digest; none: it has none."""


def watched(session: Session, slot: str | None, reference_of: ReferenceOf) -> list[dict[str, Any]]:
    """Return each bundle in use by slot and digest, as HTTP tells it."""
    rows = sorted(present(store.monitors(session, slot=slot)), key=lambda row: (row.slot, row.digest))
    return [
        {
            **_document(row),
            "beyond_training": beyond_training(session, row, reference_of),
            "late": newest_late(session, row.slot, row.digest),
        }
        for row in rows
    ]


def beyond_training(session: Session, row: MonitorRow, reference_of: ReferenceOf) -> list[dict[str, Any]]:
    """Return the streams in which the fleet differs from the training data by more than the tolerance, most first."""
    reference = reference_of(row.digest)
    if reference is None or is_learnt(reference):
        return []
    gap = gap_to_training(store.state_of(session, row), store.live_counts(row), Yardstick.of(reference))
    found = [
        {"feature": name, "title": stream.title, "effect": round(float(gap.effect[at]), 4)}
        for at, name in enumerate(row.features)
        if gap.beyond[at]
        for stream in [reference.spec.streams[reference.spec.index[name]]]
    ]
    return sorted(found, key=lambda one: -float(one["effect"]))


def promise_of(row: MonitorRow) -> str:
    """Return how often a quiet fleet may be alarmed by this bundle's watch."""
    return promise(row.mean_time_to_false_alarm, row.bucket_ms)


def _document(row: MonitorRow) -> dict[str, Any]:
    rules = store.rules_of(row)
    return {
        "slot": row.slot,
        "digest": row.digest,
        "streams": len(row.features),
        "devices": row.devices,
        "window_s": row.bucket_ms / 1000,
        "season": row.season,
        "baseline_windows": rules.baseline_windows,
        "mean_time_to_false_alarm_windows": row.mean_time_to_false_alarm,
        "false_alarms": promise_of(row),
        "late_windows": row.late,
        "damaged_windows": row.damaged,
    }
