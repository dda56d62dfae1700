"""What is watched, and how carefully: windows, baseline and promise about false alarms of each bundle in use.

Read-only. The promise is told in the same words in the API, by shoalctl, on pages and in reports.
"""

from __future__ import annotations

from typing import Any

from sqlmodel import Session

from shoal_server.drift import store
from shoal_server.drift.sensitivity import promise
from shoal_server.drift.states import present
from shoal_server.drift.tables import MonitorRow


def watched(session: Session, slot: str | None = None) -> list[dict[str, Any]]:
    """Return each bundle in use by slot and digest, as HTTP tells it."""
    rows = sorted(present(store.monitors(session, slot=slot)), key=lambda row: (row.slot, row.digest))
    return [_document(row) for row in rows]


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
