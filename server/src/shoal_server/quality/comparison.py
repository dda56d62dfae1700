"""Two bundles of a slot compared on true labels and on what they say, with intervals that hold at every look. Pure."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import numpy as np

from shoal_server.quality.outputs import OutputLayout
from shoal_server.quality.report import Bundles, Gathered
from shoal_server.quality.truth import Truth
from shoal_server.quality.watch import summed
from shoal_server.statistics.arms import Comparison, compare_means, compare_shares
from shoal_server.statistics.calibration import bin_centres
from shoal_server.statistics.proportions import design_effect


def compare(found: Mapping[str, Gathered], a: str, b: str, bundles: Bundles) -> dict[str, Any]:
    """Return the comparison of accuracy (or squared error) on labels, and of the mean confidence and score."""
    nothing = Gathered()
    arms = (found.get(a, nothing), found.get(b, nothing))
    truths = (arms[0].truth(), arms[1].truth())
    answer: dict[str, Any] = {"feedback": _on_labels(truths)}
    for stream in ("confidences", "scores"):
        compared = _on_outputs((a, b), arms, bundles, stream)
        if compared is not None:
            answer[{"confidences": "mean_confidence", "scores": "mean_score"}[stream]] = _json(compared)
    return answer


def _on_labels(truths: tuple[Truth, Truth]) -> dict[str, Any]:
    if any(truth.errors for truth in truths):
        sums = [list(truth.errors.values()) for truth in truths]
        n = tuple(float(sum(one.n for one in side)) for side in sums)
        total = tuple(math.fsum(one.absolute for one in side) for side in sums)
        square = tuple(math.fsum(one.square for one in side) for side in sums)
        found = compare_means((total[0], total[1]), (square[0], square[1]), (n[0], n[1]))
        return {"metric": "mae", **_json(found)}
    right = [float(sum(truth.right.values())) for truth in truths]
    rows = [float(sum(truth.rows.values())) for truth in truths]
    effect = [design_effect([t.right[d] for d in t.rows], list(t.rows.values())) for t in truths]
    found = compare_shares((right[0], right[1]), (rows[0], rows[1]), effect=(effect[0], effect[1]))
    return {"metric": "accuracy", "design_effect": [round(one, 3) for one in effect], **_json(found)}


def _on_outputs(
    digests: tuple[str, str], arms: tuple[Gathered, Gathered], bundles: Bundles, stream: str
) -> Comparison | None:
    sums: list[tuple[float, float, float, float]] = []
    for digest, arm in zip(digests, arms, strict=True):
        reference = bundles.reference(digest) if arm.said else None
        if reference is None:
            return None
        layout = OutputLayout(reference.spec)
        counts = getattr(summed(arm.said, layout), stream)
        if counts is None:
            return None
        centres = bin_centres(len(counts))
        sums.append(
            (
                float(counts @ centres),
                float(counts @ centres**2),
                float(counts.sum()),
                _mean_effect(arm, layout, stream),
            )
        )
    a, b = sums
    return compare_means((a[0], b[0]), (a[1], b[1]), (a[2], b[2]), effect=(a[3], b[3]))


def _mean_effect(arm: Gathered, layout: OutputLayout, stream: str) -> float:
    """Return the design effect of a stream's mean over devices, as `design_effect` of a share."""
    by_device = defaultdict(list)
    for one in arm.said:
        by_device[one.device].append(one)
    counts = np.array([getattr(summed(hours, layout), stream) for hours in by_device.values()], float)
    rows, totals = counts.sum(axis=1), counts @ bin_centres(counts.shape[1])
    if len(rows) < 2 or not rows.sum():
        return 1.0
    mean = totals.sum() / rows.sum()
    spread = float((counts.sum(axis=0) * (bin_centres(counts.shape[1]) - mean) ** 2).sum())
    residual = totals - mean * rows
    return max(1.0, len(rows) / (len(rows) - 1) * float(residual @ residual) / spread) if spread else 1.0


def _json(found: Comparison) -> dict[str, Any]:
    return {
        name: (round(value, 6) if math.isfinite(value) else None) if isinstance(value, float) else value
        for name, value in asdict(found).items()
    }
