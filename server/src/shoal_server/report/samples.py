"""The HTML report on two files of rows: a verdict, then a card a feature in the order of what matters. Pure."""

from __future__ import annotations

import html
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from shoal_server.report.page import facts, legend, page, paragraphs, tag
from shoal_server.report.plots import distribution_svg
from shoal_server.statistics.answers import answer, p_text
from shoal_server.statistics.cells import short
from shoal_server.statistics.samples import Comparison, FeatureResult, Verdict, is_categorical
from shoal_server.statistics.views import View
from shoal_server.statistics.words import effect_text, percent

_BINS = 40
_TAIL, _FAR = 0.005, 0.1
_HOW_TO_READ = """<details class="small"><summary>How to read this</summary><dl>
<dt>drift</dt><dd>The two files differ in this feature by more than chance explains. Features stand in the order of what
matters; the sentence in bold is what the values suggest as the cause.</dd>
<dt>what changed</dt><dd>The plainest of five looks: the values as a whole, their spread and tails, their mix, values
outside of the range or in new categories, and missing ones. sd is a standard deviation of the reference.</dd>
<dt>p</dt><dd>How often equal files would look so different, corrected for the number of looks and features.</dd>
<dt>PSI, JS</dt><dd>How large the difference is (population stability index, Jensen-Shannon divergence), and what chance
alone reaches with so many rows. Below that they say nothing, however large they look.</dd>
<dt>joint</dt><dd>Columns that are each distributed as before, and no longer move together as they did.</dd>
</dl></details>"""

Column = npt.NDArray[Any]


@dataclass(frozen=True, kw_only=True)
class Samples:
    """What was compared.

    Attributes:
        reference: Columns by name.
        current: The same columns.
        files: Names of both files.
        rows: Their numbers of rows.
        notes: What people must know of them.
    """

    reference: Mapping[str, Column]
    current: Mapping[str, Column]
    files: tuple[str, str]
    rows: tuple[int, int]
    notes: Sequence[str] = ()


def samples_report(found: Comparison, samples: Samples, *, alpha: float) -> str:
    """Return the whole page.

    Args:
        found: The answer.
        samples: What it is about.
        alpha: Probability of a false "drift".
    """
    loud = [one for one in found.features if one.verdict is not Verdict.NONE]
    quiet = [one for one in found.features if one.verdict is Verdict.NONE]
    before, now = samples.files
    rest = "".join(_card(one, samples) for one in quiet)
    if loud and quiet:
        rest = f"<details><summary>{len(quiet)} without drift</summary>{rest}</details>"
    head = (
        f'<h1 class="{found.verdict}">{html.escape(answer(found))}</h1>'
        f'<p class="lead">{html.escape(now)} ({samples.rows[1]:,} rows) against the reference {html.escape(before)} '
        f"({samples.rows[0]:,} rows), {len(found.features)} features.</p>"
        '<p class="soft small">Equal samples are called different with probability '
        f"{alpha:g} over all features together.</p>{_HOW_TO_READ}"
    )
    body = [head, legend("reference", "current"), paragraphs((f"Note: {note}" for note in samples.notes), "small soft")]
    return page(f"Drift: {now} against {before}", "".join([*body, *(_card(one, samples) for one in loud), rest]))


def _card(one: FeatureResult, samples: Samples) -> str:
    word = {Verdict.DRIFT: "drift", Verdict.NONE: "no drift", Verdict.TOO_FEW: "too few rows"}[one.verdict]
    told = facts(
        [
            ("what changed" if one.verdict is Verdict.DRIFT else "largest change", _change(one)),
            ("p", p_text(one.p)),
            ("PSI", f"{one.psi:.3f} (by chance up to {one.psi_threshold:.3f})"),
            ("JS", f"{one.js:.4f} (by chance up to {one.js_threshold:.4f})"),
            ("missing", f"{percent(one.missing_reference)} → {percent(one.missing_current)}"),
            *_moments(samples.reference[one.name], samples.current[one.name]),
        ]
    )
    drawn = sample_distribution(samples.reference[one.name], samples.current[one.name])
    plot = distribution_svg(drawn, caption=f"Distribution of {one.name} in both files")
    cause = f'<p class="cause">{html.escape(one.cause)}</p>' if one.cause else ""
    head = f"<header><h3>{html.escape(one.name)}</h3>{tag(str(one.verdict), word)}</header>"
    return f"<article><div>{head}{cause}{told}</div><div>{plot}</div></article>"


def _change(one: FeatureResult) -> str:
    """Say what changed for people who don't know the views."""
    told = effect_text(one.view, one.effect, one.effect_unit).removeprefix(f"{one.view} ")
    if one.view is View.LOCATION:
        return f"the values as a whole, by {told} of the reference"
    if one.view is View.RANGE:
        where = "in categories that the reference lacks" if one.kind == "categorical" else "outside of its range"
        return f"{told} {where}"
    if one.view is View.MISSING:
        return f"{told} missing"
    if one.view is View.CELLS:
        return f"the mix: {told} would have to move" if one.effect_unit == "share" else f"the mix ({told})"
    return f"spread, skew or tails ({told}; 0.2 is small, 1 large)"


def _moments(a: Column, b: Column) -> list[tuple[str, str]]:
    """Tell median and the middle half of both samples."""
    if is_categorical(a):
        return []
    told = []
    for column in (a, b):
        finite = column[np.isfinite(column)]
        if not finite.size:
            return []
        low, middle, high = (short(float(q)) for q in np.quantile(finite, [0.25, 0.5, 0.75]))
        told.append(f"{middle} ({low} to {high})")
    return [("median (middle half)", f"{told[0]} → {told[1]}")]


def sample_distribution(a: Column, b: Column) -> dict[str, Any]:
    """Return two samples as shares of cells: what `plots.distribution_svg` draws."""
    return _categories(a, b) if is_categorical(a) else _histograms(a, b)


def _histograms(a: Column, b: Column) -> dict[str, Any]:
    """Count both over the range of both, without the outermost half percent of each, which stands beside it."""
    sides = [column[np.isfinite(column)] for column in (a, b)]
    low, high = _range(*sides)
    if high <= low:
        low, high = low - 0.5, high + 0.5
    edges = _edges(low, high, np.concatenate(sides))
    low, high = float(edges[0]), float(edges[-1])
    totals = [max(column.size, 1) for column in (a, b)]
    inner = [np.histogram(side, edges)[0] / total for side, total in zip(sides, totals, strict=True)]
    missing = [float(np.isnan(column).mean()) for column in (a, b)]
    below = [float((column < low).mean()) for column in (a, b)]
    above = [float((column > high).mean()) for column in (a, b)]
    cells = [_cell("missing", None, None, missing), _cell(f"below {short(low)}", None, low, below)]
    cells += [
        _cell(f"{short(left)} to {short(right)}", left, right, [float(share[at]) for share in inner])
        for at, (left, right) in enumerate(zip(edges[:-1].tolist(), edges[1:].tolist(), strict=True))
    ]
    return {"kind": "numeric", "scale": None, "cells": [*cells, _cell(f"{short(high)} and above", high, None, above)]}


def _range(a: npt.NDArray[np.float64], b: npt.NDArray[np.float64]) -> tuple[float, float]:
    """Return the range that is drawn: of both samples, but not stretched by the few that lie far from the reference."""
    if not a.size or not b.size:
        only = a if a.size else b
        return (float(only.min()), float(only.max())) if only.size else (0.0, 1.0)
    low, high = (float(end) for end in np.quantile(a, [_TAIL, 1 - _TAIL]))
    reach = high - low
    below, inner_below, inner_above, above = (float(end) for end in np.quantile(b, [_TAIL, _FAR, 1 - _FAR, 1 - _TAIL]))
    if below < low - reach and inner_below > low:  # a few lie far away, the others do not
        below = inner_below
    if above > high + reach and inner_above < high:
        above = inner_above
    return min(low, below), max(high, above)


def _edges(low: float, high: float, values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Cut a range into cells; whole numbers of a narrow range get one each, so that no comb appears."""
    span = values[(values >= low) & (values <= high)]
    whole = span.size > 0 and bool((span == np.round(span)).all())
    if whole and high - low < 2 * _BINS:
        return np.arange(np.floor(low) - 0.5, np.ceil(high) + 1.0)
    if whole:
        width = np.ceil((high - low + 1) / _BINS)
        return np.asarray(np.floor(low) - 0.5 + width * np.arange(np.ceil((high - low + 1) / width) + 1))
    return np.linspace(low, high, _BINS + 1)


def _categories(a: Column, b: Column) -> dict[str, Any]:
    counts = [Counter(column.tolist()) for column in (a, b)]
    totals = [max(column.size, 1) for column in (a, b)]

    def shares(name: str) -> list[float]:
        return [count[name] / total for count, total in zip(counts, totals, strict=True)]

    names = sorted(
        (name for name in set(counts[0]) | set(counts[1]) if name), key=lambda name: (-max(shares(name)), name)
    )
    cells = [_cell("missing", None, None, shares(""))]
    return {
        "kind": "categorical",
        "scale": None,
        "cells": cells + [_cell(name, None, None, shares(name)) for name in names],
    }


def _cell(label: str, low: float | None, high: float | None, shares: Sequence[float]) -> dict[str, Any]:
    return {"label": label, "low": low, "high": high, "reference": shares[0], "live": shares[1]}
