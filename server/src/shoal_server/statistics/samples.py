"""Two samples of raw rows compared column by column: `shoalctl drift test` without its files.

Owns the way from columns to counts and to one of three answers a feature and overall. Leaves the tests to `views`, the
suspected causes to `causes`, reading files and printing to shoalctl.

Numbers are counted on a grid whose range and scale are fitted on the reference; the coarse cells are cut where both
samples together have their quantiles and atoms. Cells cut at the reference's own chance peaks would fire on equal data:
at a nominal 5 % in more than half of all cases, 250 rows against 4,000. For the same reason categories get their cells
from both samples: rare ones that the reference happens not to hold would all count as "other".
A category that the reference lacks is judged by itself: all its k rows lie in the current sample with probability
(m / (n + m)) ** k, times the number of categories (a union bound). Overall the level is alpha: Bonferroni over the
features, whose p-values hold Bonferroni over their views. Under 200 effective rows only what is plain at any number of
rows is called drift, see `few_rows`.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any, TypeAlias

import msgspec
import numpy as np
import numpy.typing as npt

from shoal_protocol.profile.grid import Grid, coarse_cells, fit_categorical, fit_numeric
from shoal_protocol.profile.profile import ProfileSpec, Stream, summarise
from shoal_server.statistics.causes import UNLIKE_AGING, suspected_cause
from shoal_server.statistics.divergence import by_chance, jensen_shannon, psi
from shoal_server.statistics.few_rows import LEAST_ROWS, plain_p
from shoal_server.statistics.layout import Floats, Layout
from shoal_server.statistics.same_mix import EqualMix
from shoal_server.statistics.views import MIN_EFFECTIVE_ROWS, VIEWS, View, Views, corrected, five_views, shared_out

Column: TypeAlias = npt.NDArray[Any]
"""One column: float64 with NaN for missing, or texts of dtype object with "" for missing."""

Columns: TypeAlias = Mapping[str, Column]

_PLAINEST = (View.LOCATION, View.MISSING, View.RANGE, View.SHAPE, View.CELLS)
_TINY = 1e-300
_DEPENDENT = 4.0
_AGING = 3
"""So many features with a gain each are sensors that age."""


class Verdict(StrEnum):
    """The three answers."""

    DRIFT = "drift"  # the samples differ by more than chance
    NONE = "none"  # enough rows were seen, and they do not
    TOO_FEW = "too_few"  # there are not enough rows to say


@dataclass(frozen=True, kw_only=True)
class FeatureResult:
    """What the two samples say about one feature.

    Attributes:
        name: Of the column.
        kind: ``numeric``, ``categorical``, or ``joint`` for several columns together.
        verdict: One of the three answers.
        view: Which of the five says it most plainly.
        p: Bonferroni over views and features; with 150 rows or more, drift exactly when it is below alpha.
        effect: Size of the change: see `effect_unit`.
        effect_unit: ``sd`` of the reference, signed (location); ``contrast``, root of the summed squares of four
            orthonormal contrasts (shape); ``share`` of rows, signed for missing and range (others: total variation).
        psi: Population stability index.
        psi_threshold: What it exceeds with probability alpha on equal data of so many rows.
        js: Jensen-Shannon divergence in nats.
        js_threshold: The same of JS.
        cause: Suspected cause in words; empty without drift.
        views: P-value of each view, not corrected.
        rows_reference: Effective rows.
        rows_current: Effective rows.
        missing_reference: Share of missing values, 0 to 1.
        missing_current: The same of the current sample.
        p_given: The same as `p` when the reference is given the current mix of another column; None: not asked.
        explained: Whether that other mix is all that changed.
    """

    name: str
    kind: str
    verdict: Verdict
    view: View
    p: float
    effect: float
    effect_unit: str
    psi: float
    psi_threshold: float
    js: float
    js_threshold: float
    cause: str
    views: dict[str, float]
    rows_reference: float
    rows_current: float
    missing_reference: float
    missing_current: float
    p_given: float | None = None
    explained: bool = False


@dataclass(frozen=True)
class Comparison:
    """The answer over all features, which stand in the order of what matters: drift first, by evidence and effect."""

    verdict: Verdict
    features: tuple[FeatureResult, ...]


def compare(
    reference: Columns, current: Columns, *, alpha: float = 0.01, time_ordered: bool = False, given: str = ""
) -> Comparison:
    """Compare two samples.

    Args:
        reference: Columns of equal length n.
        current: The same columns, of length m; a column has the same kind in both.
        alpha: Probability of saying "drift" of equal samples, over all features together.
        time_ordered: Rows follow each other in time: rows that resemble their neighbours count as fewer.
        given: A column whose mix may be all that changed: drift of the others is also looked for at an equal mix.
    """
    evidence = _Evidence.of(reference, current, time_ordered=time_ordered, given=given)
    found = [_judge(evidence, at, reference[name], current[name], alpha) for at, name in enumerate(reference)]
    if sum(one.cause.startswith("gain:") for one in found) >= _AGING:
        found = [_of_aging(evidence, one, reference, current) for one in found]
    return Comparison(overall([one.verdict for one in found]), tuple(sorted(found, key=_matters)))


def overall(verdicts: list[Verdict]) -> Verdict:
    """Return the answer over all features: silence about one of them is no "none".

    >>> str(overall([Verdict.NONE, Verdict.TOO_FEW]))
    'too_few'
    """
    return next((one for one in (Verdict.DRIFT, Verdict.TOO_FEW) if one in verdicts), Verdict.NONE)


def is_categorical(column: Column) -> bool:
    """Tell whether a column holds texts."""
    return column.dtype.kind == "O"


def missing_share(column: Column) -> float:
    """Return the share of missing values, 0 to 1."""
    return float(np.mean(column == "" if is_categorical(column) else np.isnan(column)))


def design_effect(column: Column) -> float:
    """Variance of means of neighbouring rows over that of independent rows, at least 1 (batch means).

    Batches of about root n rows of the mid-ranks; missing values stand at the middle.
    """
    if is_categorical(column):
        counts = Counter(column.tolist())
        values = np.array([counts[value] for value in column.tolist()], dtype=np.float64)
    else:
        filled = np.nan_to_num(column, nan=float(np.nanmedian(column)) if np.isfinite(column).any() else 0.0)
        _, place, sizes = np.unique(filled, return_inverse=True, return_counts=True)
        values = (np.cumsum(sizes) - sizes / 2)[place]  # equal values have equal ranks, wherever they stand
    length = math.isqrt(values.size)
    variance = float(values.var())
    if length < 8 or variance == 0:
        return 1.0
    means = values[: length * (values.size // length)].reshape(-1, length).mean(axis=1)
    return max(1.0, length * float(means.var(ddof=1)) / variance)


def dependence_notes(reference: Columns, current: Columns) -> list[str]:
    """Return a warning about features whose rows resemble their neighbours, as in rows that follow in time."""
    found = [name for name in reference if max(map(design_effect, (reference[name], current[name]))) > _DEPENDENT]
    if not found:
        return []
    more = f" and {len(found) - 3} more" if len(found) > 3 else ""
    return [
        (
            f"neighbouring rows of {', '.join(found[:3])}{more} resemble each other, but the test takes them as "
            "independent: in the order of time it says drift too often, unless --time-ordered counts them as fewer."
        )
    ]


def new_category_p(reference: Column, current: Column, *, effect: float = 1.0) -> float:
    """P-value of the most frequent category that the reference lacks.

    Args:
        reference: Texts.
        current: Texts.
        effect: Design effect of the current rows.

    Returns:
        Number of categories times (m / (n + m)) ** k for its k rows, at most 1: a union bound.
    """
    known = set(reference.tolist())
    fresh = Counter(value for value in current.tolist() if value and value not in known)
    if not fresh:
        return 1.0
    rows = max(fresh.values()) / effect
    share = current.size / (reference.size + current.size)
    return float(min(1.0, len(known | set(fresh)) * share**rows))


@dataclass(frozen=True, eq=False)
class _Evidence:
    """The tests of all features at once; arrays are over features."""

    layout: Layout
    cells: tuple[Floats, Floats]
    views: Views
    rows: tuple[Floats, Floats]
    present: tuple[Floats, Floats]
    effects: tuple[Floats, Floats]
    psi: Floats
    js: Floats
    equal_mix: EqualMix | None

    @classmethod
    def of(cls, reference: Columns, current: Columns, *, time_ordered: bool, given: str) -> _Evidence:
        a, b = _centred(reference, current)
        spec = ProfileSpec(tuple(_stream(name, a[name], b[name]) for name in reference))
        layout = Layout.of(spec)
        sides = [summarise(spec, columns).cells.astype(np.float64) for columns in (a, b)]
        effects = [
            np.array([design_effect(column) if time_ordered else 1.0 for column in side.values()]) for side in (a, b)
        ]
        present = [np.where(layout.missing, 0.0, cells) for cells in sides]
        views = five_views(layout, sides[0], sides[1], reference_effect=effects[0], current_effect=effects[1])
        return cls(
            layout,
            (sides[0], sides[1]),
            views,
            (layout.sums(sides[0]) / effects[0], layout.sums(sides[1]) / effects[1]),
            (layout.sums(present[0]) / effects[0], layout.sums(present[1]) / effects[1]),
            (effects[0], effects[1]),
            psi(layout, sides[0], sides[1]),
            jensen_shannon(layout, sides[0], sides[1]),
            EqualMix.of(spec, a, b, column=given, before=views) if given else None,
        )

    def p(self, at: int, before: Column, now: Column) -> Floats:
        """Return the p-value of each view of a feature, shape (5,)."""
        p: Floats = np.array(self.views.p[at])
        values = min(side[at] for side in self.present)
        if values < LEAST_ROWS or values < MIN_EFFECTIVE_ROWS <= min(side[at] for side in self.rows):
            p[np.array(VIEWS) != View.MISSING] = 1.0  # the others look at too few values
        elif self.layout.categorical[at]:
            fresh = new_category_p(before, now, effect=float(self.effects[1][at]))
            beyond = VIEWS.index(View.RANGE)
            p[beyond] = min(1.0, 2 * min(fresh, float(p[beyond])))
        return p

    def share(self, at: int) -> Floats:
        """Return what each view gets of a feature's level; new categories are looked for whatever the grid counts."""
        able = self.views.share[at] > 0
        able[VIEWS.index(View.RANGE)] |= self.layout.categorical[at]
        return np.asarray(shared_out(self.layout.categorical[[at]], able[None])[0])

    def before(self, column: Column, name: str) -> Column:
        """Return the reference's rows of a column, at the current mix where one was asked for."""
        mix = self.equal_mix
        return column if mix is None or mix.column == name else column[mix.rows]

    def total_variation(self, at: int) -> float:
        """Return the share of rows that lie in other cells than before, missing values aside."""
        start = int(self.layout.starts[at])
        inside = slice(start + 1, start + int(self.layout.lengths[at]))
        shares = [side[inside] / max(float(side[inside].sum()), 1.0) for side in self.cells]
        return float(np.abs(shares[1] - shares[0]).sum() / 2)


def _judge(evidence: _Evidence, at: int, before: Column, now: Column, alpha: float) -> FeatureResult:
    p = evidence.p(at, before, now)
    rows, present = ([float(side[at]) for side in sides] for sides in (evidence.rows, evidence.present))
    overall_p = min(1.0, float(corrected(p, evidence.share(at))) * evidence.layout.streams)
    if LEAST_ROWS <= min(rows) < MIN_EFFECTIVE_ROWS:
        effects = (float(evidence.effects[0][at]), float(evidence.effects[1][at]))
        overall_p = min(1.0, plain_p(before, now, effects=effects) * evidence.layout.streams)
    verdict = _verdict(drifts=overall_p < alpha, rows=min(rows), present=min(present))
    view = _plainest(p, categorical=is_categorical(now))
    effect, unit = _effect(view, before, now, evidence, at)
    by_luck = float(_psi_by_chance(evidence, at, alpha))
    mix = evidence.equal_mix if evidence.equal_mix and evidence.equal_mix.column != evidence.layout.names[at] else None
    explained = mix is not None and verdict is Verdict.DRIFT and bool(mix.p[at] >= alpha and mix.shrunk[at])
    cause = ""
    if explained and mix is not None:
        cause = f"mix of {mix.column}: at an equal mix of it this is no drift"
    elif verdict is Verdict.DRIFT:
        cause = suspected_cause(view, evidence.before(before, evidence.layout.names[at]), now)
    return FeatureResult(
        name=evidence.layout.names[at],
        kind="categorical" if evidence.layout.categorical[at] else "numeric",
        verdict=verdict,
        view=view,
        p=overall_p,
        effect=effect,
        effect_unit=unit,
        psi=float(evidence.psi[at]),
        psi_threshold=by_luck,
        js=float(evidence.js[at]),
        js_threshold=by_luck / 8,
        cause=cause,
        views={str(one): float(value) for one, value in zip(VIEWS, p, strict=True)},
        rows_reference=rows[0],
        rows_current=rows[1],
        missing_reference=missing_share(before),
        missing_current=missing_share(now),
        p_given=None if mix is None else float(mix.p[at]),
        explained=explained,
    )


def _of_aging(evidence: _Evidence, one: FeatureResult, reference: Columns, current: Columns) -> FeatureResult:
    """Where sensors age, each by a gain of its own, some come near the factor between two units by chance."""
    if not one.cause.startswith("unit change"):
        return one
    before = evidence.before(reference[one.name], one.name)
    return replace(one, cause=suspected_cause(one.view, before, current[one.name], units=UNLIKE_AGING))


def _psi_by_chance(evidence: _Evidence, at: int, alpha: float) -> float:
    """Return what a feature's PSI exceeds with probability alpha on equal data."""
    return float(by_chance(evidence.layout, evidence.present[0], evidence.present[1], alpha=alpha)[at])


def _verdict(*, drifts: bool, rows: float, present: float) -> Verdict:
    if drifts and rows >= LEAST_ROWS:
        return Verdict.DRIFT
    if rows < MIN_EFFECTIVE_ROWS:
        return Verdict.TOO_FEW
    return Verdict.NONE if present >= MIN_EFFECTIVE_ROWS else Verdict.TOO_FEW


def _plainest(p: Floats, *, categorical: bool) -> View:
    """Return the plainest view of those with at least half of the strongest's evidence (in logs).

    A large change shows in all of them; which one is ahead says little.
    """
    strength = {view: -math.log(max(float(value), _TINY)) for view, value in zip(VIEWS, p, strict=True)}
    strongest = max(strength.values())
    order = [view for view in _PLAINEST if not (categorical and view in {View.LOCATION, View.SHAPE})]
    return next(view for view in order if strength[view] >= strongest / 2)


def _effect(view: View, before: Column, now: Column, evidence: _Evidence, at: int) -> tuple[float, str]:
    contrasts = evidence.views.effect[at]
    if view is View.MISSING:
        return missing_share(now) - missing_share(before), "share"
    if view is View.RANGE:
        return _outside_share(before, now, evidence, at), "share"
    if view is View.CELLS:
        return evidence.total_variation(at), "share"
    if view is View.SHAPE:
        return float(np.sqrt((contrasts**2).sum())), "contrast"
    a, b = (column[np.isfinite(column)] for column in (before, now))
    spread = float(a.std()) if a.size else 0.0
    moved = (float(b.mean()) - float(a.mean())) / spread if spread and b.size else float(contrasts[0])
    return (moved if moved * contrasts[0] >= 0 else float(contrasts[0])), "sd"  # outliers may drag a mean the other way


def _outside_share(before: Column, now: Column, evidence: _Evidence, at: int) -> float:
    if is_categorical(now):
        known = set(before.tolist()) | {""}
        present = [value for value in now.tolist() if value]
        return sum(value not in known for value in present) / max(len(present), 1)
    layout = evidence.layout
    shares = [
        float(layout.sums(cells * layout.outside)[at] / max(layout.sums(cells * ~layout.missing)[at], 1.0))
        for cells in evidence.cells
    ]
    return shares[1] - shares[0]


def _centred(reference: Columns, current: Columns) -> tuple[dict[str, Column], dict[str, Column]]:
    """Move columns far from zero near to it: grids count in float32, which a clock's seconds would not fit."""
    a, b = dict(reference), dict(current)
    for name, column in reference.items():
        finite = column[np.isfinite(column)] if not is_categorical(column) else np.empty(0)
        if finite.size and abs(middle := float(np.median(finite))) > 1e3 * float(finite.std()) > 0:
            a[name], b[name] = column - middle, current[name] - middle
    return a, b


def _stream(name: str, before: Column, now: Column) -> Stream:
    if is_categorical(before):
        grid: Grid = fit_categorical(np.concatenate([before, now]))
    else:
        fitted = fit_numeric(before)
        both = sum(np.bincount(fitted.cells_of(side), minlength=fitted.cells) for side in (before, now))
        grid = msgspec.structs.replace(fitted, coarse=coarse_cells(np.asarray(both)))
    return Stream(name, "input", grid, name)


def _matters(one: FeatureResult) -> tuple[int, float, float]:
    order = (Verdict.DRIFT, Verdict.TOO_FEW, Verdict.NONE).index(one.verdict)
    return order, max(one.p, _TINY), -one.psi
