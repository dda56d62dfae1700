"""How accurate the canary devices are: by their confidences, and by the true labels that came back.

Owns which rows count and how devices weigh: none more than twice the median one, so that no single device decides.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from sqlmodel import Session

from shoal_protocol.profile.reference import Reference
from shoal_server.quality import estimates
from shoal_server.quality.outputs import OutputLayout
from shoal_server.quality.truth import Truth
from shoal_server.rollouts.control import Question
from shoal_server.rollouts.gates import Level
from shoal_server.statistics.proportions import Z_95, Z_ONE_SIDED_95
from shoal_server.telemetry.labels import label_cells, label_errors
from shoal_server.telemetry.rollup import HOUR_MS
from shoal_server.telemetry.store import StoredWindow
from shoal_server.telemetry.windows import stack

_ONE_SIDED = 0.9
"""A two-sided interval at 90 % has one-sided bounds of 95 %."""

_CAP = 2.0
_END_MS = 2**52


def estimated_level(windows: Sequence[StoredWindow], reference: Reference | None) -> Level:
    """Return the accuracy that the confidences promise, or why there is none."""
    if reference is None:
        return Level(value=math.nan, detail="can't tell: no reference in the bundle")
    counted = stack((window for window in windows if window.n), reference.spec)
    layout = OutputLayout(reference.spec)
    devices = sorted(set(counted.devices))
    place = {device: at for at, device in enumerate(devices)}
    rows = np.zeros(len(devices))
    cells = np.zeros((len(devices), len(layout.cells)))
    at = [place[device] for device in counted.devices]
    np.add.at(rows, at, counted.n)
    np.add.at(cells, at, counted.cells[:, layout.cells])
    if not rows.sum():
        return Level(value=math.nan, detail="no predictions of the bundle yet")
    weight = np.minimum(1.0, _CAP * np.median(rows) / rows)
    said = layout.read(round(float(weight @ rows)), np.rint(weight @ cells).astype(np.int64))
    try:
        found = estimates.accuracy(reference, said)
    except estimates.NoEstimateError as none:
        return Level(value=math.nan, detail=none.reason)
    reach = Z_ONE_SIDED_95 / Z_95
    return Level(
        value=found.value,
        low=found.value - reach * (found.value - found.low),
        high=found.value + reach * (found.high - found.value),
        n=int(rows.sum()),
        devices=len(devices),
        detail="estimated from confidences, supposing that only the mix of inputs changed",
    )


def feedback_level(session: Session, asked: Question) -> Level:
    """Return the accuracy by the true labels of what the canary devices predicted since the stage was opened."""
    canary = frozenset(asked.canary)
    start_ms = int(asked.since * 1000) // HOUR_MS * HOUR_MS
    rows = label_cells(session, slot=asked.slot, start_ms=start_ms, end_ms=_END_MS, digest=asked.digest)
    errors = label_errors(session, slot=asked.slot, start_ms=start_ms, end_ms=_END_MS, digest=asked.digest)
    truth = Truth.of(
        ((device, true, said, cell, n) for _, device, _, true, said, cell, n in rows if device in canary),
        ((device, sums) for _, device, _, sums in errors if device in canary),
    )
    if truth.errors:
        return Level(value=math.nan, detail="can't tell: a regression has errors, not an accuracy")
    if not truth.n:
        return Level(value=math.nan, detail="no true label of the bundle's predictions has come back yet")
    found = truth.accuracy(confidence=_ONE_SIDED, cap=_CAP)
    return Level(
        value=found.value, low=found.low, high=found.high, n=found.n, devices=found.devices, detail="by true labels"
    )
