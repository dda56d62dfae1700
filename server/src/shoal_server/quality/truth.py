"""What true labels say of a model: accuracy or error, confusion, calibration, by devices and by segments. Pure."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from shoal_protocol.profile.labels import CONFIDENCE_BINS, ErrorSums
from shoal_server.statistics.calibration import calibration_error_by_chance, expected_calibration_error, reliability
from shoal_server.statistics.confusion import MAX_SHOWN_CLASSES, ClassQuality, class_quality, macro_f1, overall
from shoal_server.statistics.proportions import CONFIDENCE, Estimate, difference, mean, share

Counts = npt.NDArray[np.float64]

MIN_LABELS = 20
"""Labels below which the answer is "too few"."""

Cell: TypeAlias = tuple[str, int, int, int, int]
"""(device, truth, said, bin, n)."""


@dataclass
class Truth:
    """Labels of one model, gathered.

    Attributes:
        right, rows: Right answers and labelled rows by device.
        pairs: Rows by (device, true, predicted class).
        bins: (right, rows) by device and bin of confidence.
        errors: Sums of a regression's errors by device.
    """

    right: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    rows: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    pairs: dict[tuple[str, int, int], int] = field(default_factory=lambda: defaultdict(int))
    bins: dict[tuple[str, int], list[int]] = field(default_factory=lambda: defaultdict(lambda: [0, 0]))
    errors: dict[str, ErrorSums] = field(default_factory=dict)

    @classmethod
    def of(cls, cells: Iterable[Cell], errors: Iterable[tuple[str, ErrorSums]] = ()) -> Truth:
        """Gather cells and sums; of a regression the cells are left out."""
        truth = cls()
        for device, sums in errors:
            old = truth.errors.get(device)
            truth.errors[device] = sums if old is None else old + sums
        for device, true, said, cell, n in cells if not truth.errors else ():
            truth.rows[device] += n
            truth.right[device] += n * (true == said)
            truth.pairs[device, true, said] += n
            truth.bins[device, cell][0] += n * (true == said)
            truth.bins[device, cell][1] += n
        return truth

    @property
    def n(self) -> int:
        """Labelled rows."""
        return sum(self.rows.values()) + sum(sums.n for sums in self.errors.values())

    def accuracy(self, *, confidence: float = CONFIDENCE, cap: float | None = None) -> Estimate:
        """Return the share of right answers over devices."""
        devices = list(self.rows)
        return share([self.right[d] for d in devices], [self.rows[d] for d in devices], confidence=confidence, cap=cap)

    def absolute_error(self, *, confidence: float = CONFIDENCE) -> Estimate:
        """Return the mean absolute error over devices."""
        sums = list(self.errors.values())
        # |e| squared is e squared: the sums of squares of errors serve both means
        parts = ([one.absolute for one in sums], [one.square for one in sums], [one.n for one in sums])
        return mean(*parts, confidence=confidence)

    def main_figure(self, *, confidence: float = CONFIDENCE) -> Estimate:
        """Return what segments are compared by: the accuracy, of a regression the mean absolute error."""
        return (self.absolute_error if self.errors else self.accuracy)(confidence=confidence)

    def squared_error(self, *, confidence: float = CONFIDENCE) -> Estimate:
        """Return the mean squared error over devices; by devices only, since fourth powers are not counted."""
        sums = list(self.errors.values())
        n, square = [one.n for one in sums], [one.square for one in sums]
        return mean(square, [q * q / m for q, m in zip(square, n, strict=True)], n, confidence=confidence)

    def confusion(self, classes: int) -> Counts:
        """Return true against predicted classes; the last column is answers that are none of them."""
        table = np.zeros((classes, classes + 1))
        for (_, true, said), n in self.pairs.items():
            if true < classes:
                table[true, min(said, classes)] += n
        return table

    def class_figures(self, classes: int) -> list[ClassQuality]:
        """Return the quality of each of the first classes, those that are shown."""
        shown = min(classes, MAX_SHOWN_CLASSES)
        counts: list[dict[str, list[int]]] = [defaultdict(lambda: [0, 0, 0]) for _ in range(shown)]
        for (device, true, said), n in self.pairs.items():
            if true < shown:
                counts[true][device][0] += n * (true == said)
                counts[true][device][1] += n
            if true < classes and said < shown:
                counts[said][device][2] += n
        found = (np.array(list(of.values()), np.float64).reshape(-1, 3).T for of in counts)
        return [class_quality(hit, truly, said) for hit, truly, said in found]

    def by_confidence(self) -> tuple[Counts, Counts]:
        """Return rows, and those that were right, by device and bin of confidence, shape (devices, bins)."""
        places = {device: at for at, device in enumerate(self.rows)}
        answered, correct = np.zeros((2, len(places), CONFIDENCE_BINS))
        for (device, cell), (right, rows) in self.bins.items():
            if cell < CONFIDENCE_BINS:
                correct[places[device], cell], answered[places[device], cell] = right, rows
        return answered, correct


def truth_json(truth: Truth, classes: Sequence[str]) -> dict[str, Any]:
    """Return the truth as people and programs see it: ``verdict`` is value, too_few or none (no label came back)."""
    if not truth.n:
        return {"verdict": "none", "reason": "no label has come back", "n": 0}
    if truth.n < MIN_LABELS:
        return {"verdict": "too_few", "reason": f"too few: {truth.n} labels, {MIN_LABELS} are needed", "n": truth.n}
    figures = regression_json(truth) if truth.errors else classification_json(truth, classes)
    return {"verdict": "value", "reason": "", "n": truth.n, **figures}


def classification_json(truth: Truth, classes: Sequence[str]) -> dict[str, Any]:
    """Return accuracy, figures of each class, confusion and calibration."""
    table = truth.confusion(len(classes))
    found: dict[str, Any] = {"accuracy": truth.accuracy().as_json()}
    f1 = macro_f1(table) if classes else math.nan
    if not math.isnan(f1):
        found["macro_f1"] = round(f1, 6)
        found |= {name: round(value, 6) for name, value in overall(table).items()}
    found["classes"] = [
        {
            "name": name,
            "n": int(table[at].sum()),
            "precision": _figure(one.precision),
            "recall": _figure(one.recall),
            "f1": _figure(one.f1),
        }
        for at, (name, one) in enumerate(zip(classes, truth.class_figures(len(classes)), strict=False))
    ]
    if 0 < len(classes) <= MAX_SHOWN_CLASSES:
        found["confusion"] = {"classes": [*classes, "(other)"], "rows": table.astype(int).tolist()}
    answered, correct = truth.by_confidence()
    if answered.any():
        by_bin = answered.sum(axis=0)
        found["ece"] = round(expected_calibration_error(by_bin, correct.sum(axis=0)), 6)
        found["ece_by_chance"] = round(calibration_error_by_chance(by_bin), 6)
        found["reliability"] = [
            {name: round(value, 6) for name, value in row.items()} for row in reliability(answered, correct)
        ]
    return found


def regression_json(truth: Truth) -> dict[str, Any]:
    """Return bias, MAE, RMSE and R2."""
    sums = list(truth.errors.values())
    n = [one.n for one in sums]
    rows = sum(n)
    bias = mean([one.error for one in sums], [one.square for one in sums], n)
    mae = truth.absolute_error()
    mse = truth.squared_error()
    spread = sum(one.truth_square for one in sums) - sum(one.truth for one in sums) ** 2 / rows
    root = (
        Estimate(math.sqrt(mse.value), math.sqrt(max(mse.low, 0.0)), math.sqrt(max(mse.high, 0.0)), mse.n, mse.devices)
        if len(sums) > 1
        else Estimate(math.sqrt(mse.value), 0.0, math.inf, mse.n, mse.devices)
    )
    found: dict[str, Any] = {"bias": _figure(bias), "mae": _figure(mae), "rmse": _figure(root)}
    if spread > 0:
        found["r2"] = round(1 - sum(one.square for one in sums) / spread, 6)
    return found


def segments_json(by_segment: Mapping[str, Truth]) -> dict[str, Any]:
    """Return the accuracy of each segment and how far it lies from all others together.

    Of a regression each segment has its errors instead, and the gap is of the mean absolute error. A gap is ``shown``
    where its interval, at 5 % over all segments together (Bonferroni), leaves zero. With two devices or more a gap is
    about the segment, whichever devices it has; with one it is about that device: nothing else is known.
    """
    level = 1 - (1 - CONFIDENCE) / max(len(by_segment), 1)
    groups, values = [], []
    for name, truth in sorted(by_segment.items()):
        group: dict[str, Any] = {"name": name, "n": truth.n, "devices": len(truth.rows) + len(truth.errors)}
        if truth.errors and truth.n >= MIN_LABELS:
            group |= regression_json(truth)
        rest = [other for segment, other in by_segment.items() if segment != name]
        if truth.n >= MIN_LABELS:
            own = truth.main_figure(confidence=level)
            values.append(own.value)
            if truth.rows:
                group["accuracy"] = truth.accuracy().as_json()
            others = _joined(rest).main_figure(confidence=level)
            if others.n >= MIN_LABELS:
                gap, low, high = difference(others, own)
                group["gap"] = {"value": round(gap, 6), "low": round(low, 6), "high": round(high, 6)}
                group["shown"] = low > 0 or high < 0
        groups.append(group)
    return {"groups": groups, "gap": round(max(values) - min(values), 6) if len(values) > 1 else None}


def _joined(truths: Iterable[Truth]) -> Truth:
    joined = Truth()
    for truth in truths:
        for device, n in truth.rows.items():
            joined.rows[device] += n
            joined.right[device] += truth.right[device]
        joined.errors |= truth.errors
    return joined


def _figure(estimate: Estimate) -> dict[str, Any] | None:
    """Return a figure, none where there are no rows; what is unbounded has no bound."""
    if math.isnan(estimate.value):
        return None
    return {name: value if math.isfinite(value) else None for name, value in estimate.as_json().items()}
