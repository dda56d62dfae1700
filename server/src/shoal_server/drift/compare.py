"""Whether a new bundle's predictions have moved further than they should: the measure of a rollout's output gate.

Owns the difference in differences on the output streams. Pure. Leaves minima of devices and predictions, soak and what
follows to the rollouts' gates.

    excess = (canary now - canary before) - (control now - control before) - expected
    expected = the same differences between the references of the bundles that ran there

since a better model rightly shifts its outputs, and a shift of the whole world reaches the control too. Every device is
compared with its own past (drawn towards the group's where that is short), devices are trimmed, and the variance is the
one *between devices*: neither one device nor many predictions of few devices decide.

Sources: difference in differences, Card and Krueger 1994 (AER 84), with devices as clusters, Donald and Lang 2007
(Rev. Econ. Stat. 89); moderated variances, Smyth 2004 (SAGMB 3); Bonferroni over the functionals compared.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

import numpy as np
from scipy import special

from shoal_protocol.profile.profile import Counts, ProfileSpec
from shoal_protocol.profile.reference import Reference
from shoal_server.drift.functionals import Functional, functionals
from shoal_server.drift.pooling import TRIM, capped, trimmed_mean
from shoal_server.statistics.layout import Floats
from shoal_server.statistics.views import View

LEVEL = 0.95
MIN_ROWS = 10
"""A device with fewer predictions says nothing."""

MIN_PAST_ROWS = 50
"""A group with fewer earlier predictions has no past to compare with; levels are compared instead."""

_PAST_ROWS = 20.0
_PRIOR_DEVICES = 10
_PRIOR_ALONE = 4


class Windows(Protocol):
    """What is read of stacked windows (`telemetry.WindowArrays`)."""

    @property
    def devices(self) -> Sequence[str]:
        """Device of each of the W windows."""

    @property
    def cells(self) -> Counts:
        """Counts, shape (W, size of the spec)."""


@dataclass(frozen=True)
class Sample:
    """Windows of some devices that all ran one bundle.

    Attributes:
        windows: Counted on the spec of the reference.
        reference: Of that bundle.
    """

    windows: Windows
    reference: Reference


class Answer(StrEnum):
    """What the numbers say about the tolerance."""

    PASS = "pass"  # noqa: S105 - the estimate is within the tolerance
    FAIL = "fail"  # even the bound nearest to passing is beyond it
    INCONCLUSIVE = "inconclusive"  # beyond it, but not proven; or nothing to compare


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """How far the predictions moved beyond what was expected, where they moved furthest.

    Attributes:
        verdict: About the tolerance alone; devices and predictions have their own minima elsewhere.
        value: Size of the excess, from 0 to 1; NaN: nothing could be compared.
        bound_low, bound_high: One-sided 95 % bounds of the size, simultaneous over all that is compared; None: a single
            canary device has no variance.
        tolerance: Largest excess that may pass.
        n: Predictions of the canary devices.
        devices: Canary devices with evidence.
        control_devices: Devices they were compared with.
        stream: Where the excess is largest; empty: nothing could be compared.
        view: What about it.
        sentence: For people.
        compared: Streams that were compared.
        left_out: Output streams whose grids differ between the bundles.
    """

    verdict: Answer
    value: float
    bound_low: float | None
    bound_high: float | None
    tolerance: float
    n: int
    devices: int
    control_devices: int
    stream: str
    view: View | None
    sentence: str
    compared: tuple[str, ...]
    left_out: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class _Group:
    """Changes of one group's devices; D devices, M functionals.

    Attributes:
        change: From before to now, shape (D, M); levels where there is no past.
        now: Level now, trimmed, shape (M,).
        rows: Predictions of each device now.
        variance: Of a device's change if its rows were independent, shape (D, M).
    """

    change: Floats
    now: Floats
    rows: Floats
    variance: Floats

    @property
    def devices(self) -> int:
        return len(self.rows)

    @property
    def counted(self) -> int:
        """Devices that a trimmed mean is worth."""
        return self.devices - (max(1, int(TRIM * self.devices)) if self.devices >= 3 else 0)

    def centre(self) -> Floats:
        return trimmed_mean(self.change, capped(self.rows))

    def between(self) -> Floats:
        """Variance between devices, never below that of independent rows."""
        floor = self.variance.mean(axis=0)
        if self.devices < 2:
            return np.asarray(floor)
        return np.asarray(np.maximum(self.change.var(axis=0, ddof=1), floor))


def compare_outputs(
    *,
    canary: Sample,
    control: Sample | None = None,
    canary_before: Sample | None = None,
    control_before: Sample | None = None,
    tolerance: float,
) -> Comparison:
    """Compare the canary devices' predictions with the control's.

    Args:
        canary: Windows of the new bundle, since each device's activation.
        control: Concurrent windows of comparable devices; None: the canary's own past, or else its reference, is what
            there is to compare with.
        canary_before: Earlier windows of the canary devices, before the new bundle.
        control_before: Earlier windows of the control devices, of the same span of time.
        tolerance: Largest excess that passes: a share of rows, or of ranks.
    """
    canary_before, control_before = _pasts(canary_before, control, control_before)
    samples = [s for s in (canary, canary_before, control, control_before) if s is not None]
    shared, left_out = _shared_streams([sample.reference.spec for sample in samples])
    problem = "" if shared else f"no output stream is counted alike in both bundles: {', '.join(left_out) or 'none'}"
    measure = _Measure(shared, samples)
    now = None if problem else measure.group(canary, canary_before)
    others = None if problem or control is None else measure.group(control, control_before)
    if now is None:
        problem = problem or f"no device has {MIN_ROWS} predictions of the new bundle yet"
    elif control is not None and others is None:
        problem = f"no control device has {MIN_ROWS} predictions yet"
    if problem or now is None:
        return _nothing(problem, tolerance, shared, left_out)
    expected = measure.expected(canary, canary_before, control, control_before)
    variance = measure.reference_variance()
    excess = now.centre() - (0 if others is None else others.centre()) - expected
    reach = _reach(now, others, variance)
    where = _worst(np.abs(excess), reach, tolerance)
    return _told(
        measure,
        now,
        others,
        excess=float(excess[where]),
        reach=reach,
        where=where,
        tolerance=tolerance,
        left_out=left_out,
    )


class _Measure:
    """The functionals of the shared streams, and what samples and references say of them."""

    def __init__(self, shared: Sequence[str], samples: Sequence[Sample]) -> None:
        self.shared = tuple(shared)
        self._references = [sample.reference for sample in samples]
        spec = samples[0].reference.spec
        streams = [spec.streams[spec.index[name]] for name in shared]
        shares = [
            np.mean([_share(ref.profile.cells[ref.spec.slice(name)]) for ref in self._references], axis=0)
            for name in shared
        ]
        self.names, self._values = functionals(streams, shares)

    def group(self, now: Sample, before: Sample | None) -> _Group | None:
        """Return the changes of a sample's devices, None when none has enough rows."""
        if not now.windows.devices:
            return None
        names, rows, levels, spread = self._levels(now)
        kept = rows >= MIN_ROWS
        if not kept.any():
            return None
        names = [name for name, keep in zip(names, kept, strict=True) if keep]
        rows, levels, spread = rows[kept], levels[kept], spread[kept]
        change, variance = levels, spread / rows[:, None]
        if before is not None:
            past, past_rows = self._past(before, names)
            change, variance = levels - past, variance + spread / past_rows[:, None]
        return _Group(change, trimmed_mean(levels, capped(rows)), rows, variance)

    def expected(
        self, canary: Sample, canary_before: Sample | None, control: Sample | None, control_before: Sample | None
    ) -> Floats:
        """Return the excess that the references of the bundles explain, shape (M,)."""
        signs = ((canary, 1), (canary_before, -1), (control, -1), (control_before, 1))
        return np.asarray(
            sum(sign * self._of_reference(sample.reference) for sample, sign in signs if sample is not None)
        )

    def reference_variance(self) -> Floats:
        """Return the variance of `expected`, from the rows that each different reference has."""
        different = {id(ref): ref for ref in self._references}.values()
        total = np.zeros(len(self.names))
        for ref in different:
            share = self._of_reference(ref)
            total += np.maximum(self._squares(ref) - share * share, 0.0) / max(ref.profile.n, 1)
        one_cancels = len(different) == 1 and len(self._references) > 1
        return np.zeros(len(self.names)) if one_cancels else total

    def _levels(self, sample: Sample) -> tuple[list[str], Floats, Floats, Floats]:
        """Return devices, their rows, the means of the functionals and the variances of one row's values."""
        windows, spec = sample.windows, sample.reference.spec
        names, place = np.unique(np.asarray(windows.devices, dtype=object).astype(str), return_inverse=True)
        first = spec.slice(self.shared[0])
        counted = windows.cells[:, first].sum(axis=1, dtype=np.float64)
        rows = np.bincount(place, weights=counted, minlength=len(names)).astype(np.float64)
        means, squares = [], []
        for name, values in zip(self.shared, self._values, strict=True):
            cells = np.zeros((len(names), values.shape[1]))
            np.add.at(cells, place, windows.cells[:, spec.slice(name)])
            share = cells / np.maximum(rows, 1)[:, None]
            means.append(share @ values.T)
            squares.append(share @ (values * values).T)
        levels, square = np.concatenate(means, axis=1), np.concatenate(squares, axis=1)
        typical = np.maximum(square - levels * levels, 0.0).mean(axis=0) + 1e-6
        return [str(name) for name in names], rows, levels, np.broadcast_to(typical, levels.shape)

    def _past(self, before: Sample, names: Sequence[str]) -> tuple[Floats, Floats]:
        """Return the past level of each named device, drawn towards the group's, and the rows that it rests on."""
        known, rows, levels, _ = self._levels(before)
        if not known or not rows.sum():
            return np.tile(self._of_reference(before.reference), (len(names), 1)), np.full(len(names), _PAST_ROWS)
        middle = trimmed_mean(levels, capped(np.maximum(rows, 1)))
        index = {name: at for at, name in enumerate(known)}
        own = np.array([rows[index[name]] if name in index else 0.0 for name in names])
        mine = np.array([levels[index[name]] if name in index else middle for name in names])
        weight = (own / (own + _PAST_ROWS))[:, None]
        return weight * mine + (1 - weight) * middle, own + _PAST_ROWS

    def _of_reference(self, reference: Reference) -> Floats:
        parts = (
            values @ _share(reference.profile.cells[reference.spec.slice(name)])
            for name, values in zip(self.shared, self._values, strict=True)
        )
        return np.concatenate(list(parts))

    def _squares(self, reference: Reference) -> Floats:
        parts = (
            (values * values) @ _share(reference.profile.cells[reference.spec.slice(name)])
            for name, values in zip(self.shared, self._values, strict=True)
        )
        return np.concatenate(list(parts))


def _pasts(
    canary_before: Sample | None, control: Sample | None, control_before: Sample | None
) -> tuple[Sample | None, Sample | None]:
    """Return the pasts to compare with: both groups', or neither's; the canary's alone where there is no control."""
    canary_before, control_before = (
        None if past is None or _rows(past) < MIN_PAST_ROWS else past for past in (canary_before, control_before)
    )
    if control is None:
        return canary_before, None
    return (None, None) if canary_before is None or control_before is None else (canary_before, control_before)


def _rows(sample: Sample) -> float:
    first = sample.reference.spec.slice(sample.reference.spec.streams[0].name)
    return float(sample.windows.cells[:, first].sum(dtype=np.float64))


def _shared_streams(specs: Sequence[ProfileSpec]) -> tuple[list[str], tuple[str, ...]]:
    """Return the output streams that all specs count alike, and the others of the first."""
    outputs = {stream.name: stream.grid_hash for stream in specs[0].streams if stream.kind == "output"}
    others = [{stream.name: stream.grid_hash for stream in spec.streams} for spec in specs[1:]]
    shared = [name for name, grid in outputs.items() if all(known.get(name) == grid for known in others)]
    return shared, tuple(name for name in outputs if name not in shared)


def _reach(now: _Group, others: _Group | None, reference_variance: Floats) -> Floats | None:
    """Return half the width of the simultaneous one-sided bounds, shape (M,); None for a single canary device."""
    if now.devices < 2:
        return None
    control = others is not None and others.devices >= 3
    prior = others.between() if control and others is not None else now.variance.mean(axis=0)
    weight = min(others.devices - 1, _PRIOR_DEVICES) if control and others is not None else _PRIOR_ALONE
    own = now.devices - 1
    between = (own * now.between() + weight * prior) / (own + weight)
    between = np.maximum(between, now.variance.mean(axis=0))
    variance = between / now.counted + reference_variance
    if others is not None:
        variance = variance + others.between() / others.counted
    quantile = special.stdtrit(own + weight, 1 - (1 - LEVEL) / (2 * variance.size))
    return np.asarray(quantile * np.sqrt(variance))


def _worst(size: Floats, reach: Floats | None, tolerance: float) -> int:
    """Return the functional that decides: the largest proven excess, else the largest."""
    if reach is not None and (size - reach > tolerance).any():
        return int(np.argmax(size - reach))
    return int(np.argmax(size))


def _told(
    measure: _Measure,
    now: _Group,
    others: _Group | None,
    *,
    excess: float,
    reach: Floats | None,
    where: int,
    tolerance: float,
    left_out: tuple[str, ...],
) -> Comparison:
    functional: Functional = measure.names[where]
    size = abs(excess)
    low = None if reach is None else max(0.0, size - float(reach[where]))
    high = None if reach is None else size + float(reach[where])
    verdict = Answer.PASS if size <= tolerance else Answer.INCONCLUSIVE
    if low is not None and low > tolerance:
        verdict = Answer.FAIL
    n = int(now.rows.sum())
    against = "its own past or reference" if others is None else f"{others.devices} control devices"
    sentence = (
        f"{functional.what} is {size:.2f} {'higher' if excess > 0 else 'lower'} than expected "
        f"(now {now.now[where]:.2f}; {now.devices} devices, {n} predictions, against {against})"
    )
    return Comparison(
        verdict=verdict,
        value=size,
        bound_low=low,
        bound_high=high,
        tolerance=tolerance,
        n=n,
        devices=now.devices,
        control_devices=0 if others is None else others.devices,
        stream=functional.stream,
        view=functional.view,
        sentence=sentence,
        compared=measure.shared,
        left_out=left_out,
    )


def _nothing(problem: str, tolerance: float, shared: Sequence[str], left_out: tuple[str, ...]) -> Comparison:
    return Comparison(
        verdict=Answer.INCONCLUSIVE,
        value=math.nan,
        bound_low=None,
        bound_high=None,
        tolerance=tolerance,
        n=0,
        devices=0,
        control_devices=0,
        stream="",
        view=None,
        sentence=problem,
        compared=tuple(shared),
        left_out=left_out,
    )


def _share(cells: Counts) -> Floats:
    return np.asarray(cells / max(int(cells.sum()), 1))
