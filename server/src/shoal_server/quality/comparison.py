"""Two bundles of a slot compared in the hours in which both ran: labels, estimated accuracy, and what they say. Pure.

Owns what is compared and in which hours: what only one of them saw, such as a night, is no difference of bundles. The
intervals are `statistics.arms`': they hold at every look, for devices that were drawn at random.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from shoal_server.quality import estimates, store
from shoal_server.quality.outputs import OutputLayout, Outputs
from shoal_server.quality.report import Bundles, Gathered
from shoal_server.quality.watch import summed
from shoal_server.statistics.arms import ALPHA, Arm, Comparison
from shoal_server.statistics.arms import compare as compare_arms
from shoal_server.statistics.calibration import bin_centres, smoothed_shares
from shoal_server.statistics.proportions import Z_95

MOST_CLASSES = 40
"""Classes whose shares are compared; of models with more none is."""

Floats = npt.NDArray[np.float64]
Part: TypeAlias = tuple[str, int, float, float, float]
"""(device, hour, rows, sum of values, sum of their squares)."""


@dataclass(frozen=True, eq=False)
class _Said:
    """What one bundle said: counts of its output streams by device and hour, R of them."""

    rows: Sequence[store.SaidHour]
    cells: npt.NDArray[np.int64]
    layout: OutputLayout

    def parts(self, columns: npt.NDArray[np.int64], values: Floats, *, n: Floats | None = None) -> list[Part]:
        """Return the sums of a value that each of some cells has.

        Args:
            columns: Places of the cells.
            values: Of a row in each.
            n: Rows by entry; None: those that are in the cells.
        """
        counts = self.cells[:, columns].astype(np.float64)
        rows = counts.sum(axis=1) if n is None else n
        total, square = counts @ values, counts @ (values * values)
        keys = ((one.device, one.hour_ms) for one in self.rows)
        return [(*key, *sums) for key, sums in zip(keys, np.stack([rows, total, square], axis=1).tolist(), strict=True)]


def compare(found: Mapping[str, Gathered], a: str, b: str, bundles: Bundles) -> dict[str, Any]:
    """Return all that can be compared of two bundles.

    Args:
        found: What came of each bundle, by digest.
        a: Digest of one.
        b: Digest of the other.
        bundles: What they say of themselves.

    Returns:
        ``feedback`` (accuracy, or mean absolute error), ``estimated_accuracy``, ``mean_confidence``, ``mean_score`` and
        ``answers`` (the share of each class); what neither labels nor outputs tell is left out, but for ``feedback``.
    """
    nothing = Gathered()
    arms = (found.get(a, nothing), found.get(b, nothing))
    answer: dict[str, Any] = {"feedback": _on_labels(arms)}
    said = [_said(digest, arm, bundles) for digest, arm in zip((a, b), arms, strict=True)]
    if said[0] is not None and said[1] is not None:
        both = (said[0], said[1])
        answer |= _on_estimates((a, b), both, bundles) | _on_means(both)
        answer["answers"] = _on_answers(both)
    return answer


def _on_labels(arms: tuple[Gathered, Gathered]) -> dict[str, Any]:
    if any(arm.errors for arm in arms):
        errors = [
            [(who, hour, float(one.n), one.absolute, one.square) for hour, who, one in arm.errors] for arm in arms
        ]
        return {"metric": "mae", **_compared(errors[0], errors[1], most=0.0)}
    right = [
        [
            (who, hour, float(n), float(n * (true == said)), float(n * (true == said)))
            for hour, (who, true, said, _, n) in arm.cells
        ]
        for arm in arms
    ]
    return {"metric": "accuracy", **_compared(right[0], right[1])}


def _said(digest: str, arm: Gathered, bundles: Bundles) -> _Said | None:
    reference = bundles.reference(digest) if arm.said else None
    if reference is None:
        return None
    layout = OutputLayout(reference.spec)
    rows = [one for one in arm.said if len(one.cells) == len(layout.cells)]
    return _Said(rows, np.stack([one.cells for one in rows]), layout) if rows else None


def _on_estimates(digests: tuple[str, str], said: tuple[_Said, _Said], bundles: Bundles) -> dict[str, Any]:
    """Compare the expected accuracy: each confidence as right as on the bundle's own labelled rows.

    How uncertain those leave it is shared by all devices of an arm, and no number of predictions mends it.
    """
    parts, yardsticks = [], []
    for digest, one in zip(digests, said, strict=True):
        reference = bundles.reference(digest)
        columns = _columns(one).confidences
        try:
            _, calibration = estimates.calibration_of(reference)
            expected = estimates.accuracy(reference, summed(one.rows, one.layout))
        except estimates.NoEstimateError:
            return {}
        assert columns is not None  # there would be no estimate
        shares = smoothed_shares(calibration.answered.sum(axis=0), calibration.correct.sum(axis=0))
        parts.append(one.parts(columns, shares))
        yardsticks.append((expected.high - expected.low) / (2 * Z_95))
    return {"estimated_accuracy": _compared(parts[0], parts[1], yardsticks=(yardsticks[0], yardsticks[1]))}


def _on_means(said: tuple[_Said, _Said]) -> dict[str, Any]:
    found = {}
    for name, stream in (("mean_confidence", "confidences"), ("mean_score", "scores")):
        columns = [getattr(_columns(one), stream) for one in said]
        if columns[0] is not None and columns[1] is not None:
            parts = [one.parts(at, bin_centres(len(at))) for one, at in zip(said, columns, strict=True)]
            found[name] = _compared(parts[0], parts[1])
    return found


def _on_answers(said: tuple[_Said, _Said]) -> list[dict[str, Any]]:
    """Compare the share of each class, all of them together at alpha."""
    places = [_columns(one).classes for one in said]
    names = [name for name in places[0] if name in places[1]]
    if not 0 < len(names) <= MOST_CLASSES:
        return []
    found = []
    for name in names:
        parts = [
            one.parts(np.array([at[name]]), np.ones(1), n=np.array([float(hour.n) for hour in one.rows]))
            for one, at in zip(said, places, strict=True)
        ]
        found.append({"class": name, **_compared(parts[0], parts[1], alpha=ALPHA / len(names))})
    return found


def _columns(said: _Said) -> Outputs:
    """Return where the cells of each stream lie, in the form of what they hold."""
    return said.layout.read(0, np.arange(len(said.layout.cells)))


def _compared(
    a: Iterable[Part],
    b: Iterable[Part],
    *,
    most: float = 1.0,
    yardsticks: tuple[float, float] = (0.0, 0.0),
    alpha: float = ALPHA,
) -> dict[str, Any]:
    """Compare two arms in the hours in which both have rows."""
    parts = ([one for one in a if one[2]], [one for one in b if one[2]])
    hours = sorted({one[1] for one in parts[0]} & {one[1] for one in parts[1]})
    arms = [_arm(part, hours, most=most, yardstick=of) for part, of in zip(parts, yardsticks, strict=True)]
    found = compare_arms(arms[0], arms[1], alpha=alpha)
    if not hours and parts[0] and parts[1]:
        return {**_json(found), "hours": 0, "reason": "the bundles never ran in the same hour"}
    return {**_json(found), "hours": len(hours)}


def _arm(parts: Sequence[Part], hours: Sequence[int], *, most: float, yardstick: float) -> Arm:
    column = {hour: at for at, hour in enumerate(hours)}
    inside = [one for one in parts if one[1] in column]
    row = {device: at for at, device in enumerate(sorted({one[0] for one in inside}))}
    sums = np.zeros((3, len(row), len(hours)))
    for device, hour, *values in inside:
        sums[:, row[device], column[hour]] += values
    return Arm(sums[0], sums[1], sums[2], most=most, yardstick=yardstick)


def _json(found: Comparison) -> dict[str, Any]:
    return {name: _plain(value) for name, value in asdict(found).items()}


def _plain(value: object) -> object:
    if isinstance(value, tuple):
        return [_plain(one) for one in value]
    return (round(value, 6) if math.isfinite(value) else None) if isinstance(value, float) else value
