"""Evidence and effect of one stream of one scope over time, as stored by the scan. Read-only."""

from __future__ import annotations

from typing import Any

import numpy as np
from sqlmodel import Session

from shoal_server.drift import store
from shoal_server.drift.monitor_state import Scope
from shoal_server.drift.scores import view_of
from shoal_server.drift.tables import MonitorRow
from shoal_server.statistics.layout import Floats
from shoal_server.timestamps import rfc3339


def series(
    session: Session, row: MonitorRow, feature: str, *, scope: Scope, name: str, since: float = 0.0
) -> dict[str, Any]:
    """Return the stored evidence of a stream by view, the oldest first: what `report.plots.series_svg` draws.

    Returns:
        ``{at: [RFC 3339], views: {view: [evidence]}, effect: [of the location]}``; evidence is log R over log
        threshold, 1 and more is an alarm. Nothing is stored of single devices.
    """
    at = row.features.index(feature)
    found = [one for one in store.scores(session, row.slot, row.digest, scope=scope, name=name) if one.at >= since]
    evidence = [_of_stream(one.evidence, len(row.features))[at] for one in found]
    views: dict[str, list[float]] = {}
    for component in range(evidence[0].size if evidence else 0):
        view = view_of(component, categorical=row.categorical[at])
        values = [round(float(one[component]), 4) for one in evidence]
        known = views.get(view.value)
        views[view.value] = values if known is None else [max(pair) for pair in zip(known, values, strict=True)]
    return {
        "at": [rfc3339(one.at) for one in found],
        "views": views,
        "effect": [round(float(_of_stream(one.effect, len(row.features))[at, 0]), 4) for one in found],
    }


def _of_stream(raw: bytes, features: int) -> Floats:
    return np.frombuffer(raw, "<f4").reshape(features, -1).astype(np.float64)
