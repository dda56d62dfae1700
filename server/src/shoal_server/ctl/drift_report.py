"""The HTML report of `shoalctl drift test`: one file that needs nothing else, readable in light and dark.

Owns its look: a verdict, then a card a feature in the order of what matters, with the distributions of both samples.
Everything that comes from the files is escaped.
"""

from __future__ import annotations

import html
from collections import Counter
from collections.abc import Sequence
from string import Template
from typing import Any

import numpy as np
import numpy.typing as npt

from shoal_server.ctl.drift_text import answer, effect_text, p_text
from shoal_server.ctl.sample_files import Pair
from shoal_server.statistics.samples import Comparison, FeatureResult, Verdict, is_categorical

_BINS = 40
_MOST_BARS = 12
_WIDTH, _HEIGHT = 560, 150

_PAGE = Template("""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>Drift: $current against $reference</title><style>
:root { color-scheme: light dark; --ink: #1c2530; --soft: #5d6b7a; --line: #dfe5eb; --paper: #f6f8fa; --card: #fff;
  --a: #7b8ea3; --b: #e2711d; --drift: #c2311c; --none: #217a4b; --too_few: #9a6b00; }
@media (prefers-color-scheme: dark) { :root { --ink: #e5ebf1; --soft: #9aa8b6; --line: #2c3742; --paper: #12181f;
  --card: #1a222b; --a: #8fa3b8; --b: #ff9a4d; --drift: #ff7a66; --none: #5bc48c; --too_few: #e0b04a; } }
* { box-sizing: border-box } body { margin: 0; background: var(--paper); color: var(--ink);
  font: 15px/1.5 system-ui, sans-serif } main { max-width: 1080px; margin: 0 auto; padding: 32px 20px 64px }
h1 { font-size: 26px; margin: 0 0 4px } h2 { font-size: 18px; margin: 0; overflow-wrap: anywhere }
p { margin: 4px 0 } .soft { color: var(--soft) } .small { font-size: 13px }
.drift { color: var(--drift) } .none { color: var(--none) } .too_few { color: var(--too_few) }
.legend i { display: inline-block; width: 12px; height: 12px; border-radius: 3px; margin: 0 5px 0 14px;
  vertical-align: -1px } .legend i.a { background: var(--a); margin-left: 0 } .legend i.b { background: var(--b) }
article { background: var(--card); border: 1px solid var(--line); border-radius: 10px; padding: 16px 20px;
  margin: 14px 0; display: grid; grid-template-columns: minmax(0, 5fr) minmax(0, 7fr); gap: 8px 28px;
  break-inside: avoid }
article header { display: flex; gap: 10px; align-items: baseline; flex-wrap: wrap }
.tag { font-size: 12px; font-weight: 600; border: 1px solid currentColor; border-radius: 99px; padding: 0 9px }
.cause { font-weight: 600; margin: 6px 0 10px; overflow-wrap: anywhere }
dl { display: grid; grid-template-columns: max-content 1fr; gap: 2px 14px; margin: 0; font-size: 13px }
dt { color: var(--soft) } dd { margin: 0; font-variant-numeric: tabular-nums }
svg { width: 100%; height: auto; display: block } svg text { font: 11px system-ui, sans-serif; fill: var(--soft) }
svg .a { fill: var(--a); fill-opacity: .45 } svg .b { fill: var(--b); fill-opacity: .25; stroke: var(--b);
  stroke-width: 1.6 } svg rect.b { fill-opacity: .9; stroke: none } svg rect.a { fill-opacity: .8 }
svg line { stroke: var(--line) } details { margin-top: 24px } summary { cursor: pointer; font-weight: 600 }
@media (max-width: 760px) { article { grid-template-columns: minmax(0, 1fr) } }
</style></head><body><main>
<h1 class="$verdict">$answer</h1>
<p>$current ($rows_b rows) against the reference $reference ($rows_a rows), $features features.</p>
<p class="soft small">Equal samples are called different with probability $alpha over all features together. PSI and JS
are effect sizes: beside each stands what chance alone exceeds as rarely, for so many rows.</p>
<p class="legend small soft"><i class="a"></i>reference<i class="b"></i>current</p>
$notes
$cards
$quiet
</main></body></html>
""")

_CARD = Template("""<article><div><header><h2>$name</h2><span class="tag $verdict">$word</span></header>
<p class="cause">$cause</p><dl>
<dt>what changed</dt><dd>$effect</dd><dt>p</dt><dd>$p</dd>
<dt>PSI</dt><dd>$psi <span class="soft">(by chance up to $psi_threshold)</span></dd>
<dt>JS</dt><dd>$js <span class="soft">(by chance up to $js_threshold)</span></dd>
<dt>missing</dt><dd>$missing</dd></dl></div>$plot</article>""")


def html_report(found: Comparison, pair: Pair, *, files: tuple[str, str], rows: tuple[int, int], alpha: float) -> str:
    """Return the whole page.

    Args:
        found: The answer.
        pair: The samples that it is about.
        files: Names of the reference and of the current file.
        rows: Their numbers of rows.
        alpha: Probability of a false "drift".
    """
    loud = [one for one in found.features if one.verdict is not Verdict.NONE]
    quiet = [one for one in found.features if one.verdict is Verdict.NONE]
    rest = "".join(_card(one, pair) for one in quiet)
    if loud and quiet:
        rest = f"<details><summary>{len(quiet)} without drift</summary>{rest}</details>"
    return _PAGE.substitute(
        verdict=found.verdict,
        answer=html.escape(answer(found)),
        reference=html.escape(files[0]),
        current=html.escape(files[1]),
        rows_a=f"{rows[0]:,}",
        rows_b=f"{rows[1]:,}",
        features=len(found.features),
        alpha=f"{alpha:g}",
        notes="".join(f'<p class="small soft">Note: {html.escape(note)}</p>' for note in pair.notes),
        cards="".join(_card(one, pair) for one in loud),
        quiet=rest,
    )


def _card(one: FeatureResult, pair: Pair) -> str:
    word = {Verdict.DRIFT: "drift", Verdict.NONE: "no drift", Verdict.TOO_FEW: "too few rows"}[one.verdict]
    return _CARD.substitute(
        name=html.escape(one.name),
        verdict=one.verdict,
        word=word,
        cause=html.escape(one.cause),
        effect=html.escape(effect_text(one)),
        p=p_text(one.p),
        psi=f"{one.psi:.3f}",
        psi_threshold=f"{one.psi_threshold:.3f}",
        js=f"{one.js:.4f}",
        js_threshold=f"{one.js_threshold:.4f}",
        missing=f"{100 * one.missing_reference:.3g} % → {100 * one.missing_current:.3g} %",
        plot=_plot(pair.reference[one.name], pair.current[one.name], one.name),
    )


def _plot(a: npt.NDArray[Any], b: npt.NDArray[Any], name: str) -> str:
    inside = _bars(a, b) if is_categorical(a) else _areas(a, b)
    label = html.escape(f"Distribution of {name} in both files", quote=True)
    return f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT + 20}" role="img" aria-label="{label}">{inside}</svg>'


def _areas(a: npt.NDArray[Any], b: npt.NDArray[Any]) -> str:
    """Draw two histograms over the range of both, without the outermost half percent of each."""
    sides = [column[np.isfinite(column)] for column in (a, b)]
    ends = np.concatenate([np.quantile(side, [0.005, 0.995]) for side in sides if side.size] or [np.array([0.0, 1.0])])
    low, high = float(ends.min()), float(ends.max())
    if high <= low:
        low, high = low - 0.5, high + 0.5
    edges = np.linspace(low, high, _BINS + 1)
    shares = [np.histogram(np.clip(side, low, high), edges)[0] / max(side.size, 1) for side in sides]
    top = max(float(share.max()) for share in shares) or 1.0
    drawn = "".join(_steps(share / top, css) for share, css in zip(shares, "ab", strict=True))
    ticks = "".join(
        f'<text x="{_WIDTH * part:.0f}" y="{_HEIGHT + 15}" text-anchor="{anchor}">{low + (high - low) * part:.4g}'
        "</text>"
        for part, anchor in ((0.0, "start"), (0.5, "middle"), (1.0, "end"))
    )
    base = f'<line x1="0" x2="{_WIDTH}" y1="{_HEIGHT}" y2="{_HEIGHT}"/>'
    return f'{base}{drawn}{ticks}<text x="{_WIDTH}" y="11" text-anchor="end">up to {100 * top:.3g} % of values</text>'


def _steps(heights: npt.NDArray[np.float64], css: str) -> str:
    width = _WIDTH / len(heights)
    y = [_HEIGHT - (_HEIGHT - 18) * float(height) for height in heights]
    path = "".join(f"V{at:.1f}H{width * (i + 1):.1f}" for i, at in enumerate(y))
    return f'<path class="{css}" d="M0 {_HEIGHT}{path}V{_HEIGHT}Z"/>'


def _bars(a: npt.NDArray[Any], b: npt.NDArray[Any]) -> str:
    """Draw a pair of bars for each of the categories that differ most."""
    counts = [Counter(column[column != ""].tolist()) for column in (a, b)]
    totals = [max(count.total(), 1) for count in counts]
    names = sorted(set(counts[0]) | set(counts[1]), key=lambda name: -max(_shares(name, counts, totals)))[:_MOST_BARS]
    if not names:
        return f'<text x="0" y="{_HEIGHT / 2:.0f}">every value is missing</text>'
    top = max(max(_shares(name, counts, totals)) for name in names)
    slot = (_HEIGHT + 20) / len(names)
    thick = min(9.0, slot * 0.36)
    return "".join(
        _pair_of_bars(name, _shares(name, counts, totals), top, y=slot * (at + 0.5), thick=thick)
        for at, name in enumerate(names)
    )


def _pair_of_bars(name: str, shares: Sequence[float], top: float, *, y: float, thick: float) -> str:
    long = [(_WIDTH - 250) * share / top for share in shares]
    told = f"{100 * shares[0]:.2g} → {100 * shares[1]:.2g} %"
    shown = html.escape(name if len(name) <= 20 else name[:19] + "…")
    return (
        f'<text x="130" y="{y + 4:.1f}" text-anchor="end">{shown}</text>'
        f'<rect class="a" x="140" y="{y - thick:.1f}" width="{long[0]:.1f}" height="{thick:.1f}"/>'
        f'<rect class="b" x="140" y="{y:.1f}" width="{long[1]:.1f}" height="{thick:.1f}"/>'
        f'<text x="{148 + max(long):.1f}" y="{y + 4:.1f}">{told}</text>'
    )


def _shares(name: str, counts: Sequence[Counter[str]], totals: Sequence[int]) -> tuple[float, float]:
    return counts[0][name] / totals[0], counts[1][name] / totals[1]
