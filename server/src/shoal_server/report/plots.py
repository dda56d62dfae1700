"""Drawings as SVG text: two distributions of one stream, and evidence over time. Pure.

Owns geometry and escaping; colours are the page's: shapes carry the classes `reference`, `live`, `axis`, `limit`,
`hit`, `raised` and `view-…`. Pages of the dashboard and reports in files draw by these functions alone.

A numeric stream is drawn as density over its own axis, so that cells of unequal width look as the values lie; what is
missing, below or above the range stands beside it as bars of shares. Categories are pairs of horizontal bars.
"""

from __future__ import annotations

import html
import math
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from typing import Any

from shoal_server.statistics.words import percent

WIDTH, HEIGHT = 640.0, 200.0
_BASE, _TOP = HEIGHT - 24.0, 16.0
_BESIDE = 66.0
_MOST_BARS = 12
_FROM_SHARE = 0.0005
_BESIDE_FROM, _BESIDE_FULL = 0.006, 0.2
_CLIP = 1.6
_NAME_WIDTH = 150.0
_LEFT = 48.0

_Cell = Mapping[str, Any]


def distribution_svg(drawn: Mapping[str, Any], *, caption: str) -> str:
    """Draw a stream's reference and live distribution.

    Args:
        drawn: As `statistics.cells.distribution` returns it.
        caption: What is drawn, for those who can't see it.
    """
    inside = _bars(drawn["cells"]) if drawn["kind"] == "categorical" else _densities(drawn)
    return _svg(inside, caption)


def series_svg(series: Mapping[str, Any], *, caption: str, raised: Sequence[tuple[int, str]] = ()) -> str:
    """Draw evidence over time, a line a view: 1 is what an alarm needs.

    Args:
        series: ``{at: [RFC 3339, …], views: {view: [evidence, …]}}``, the oldest first.
        caption: What is drawn.
        raised: Places in the series at which an alarm came, each with its title.
    """
    times, views = series["at"], series["views"]
    if not times:
        return ""
    step = (WIDTH - _LEFT - 6) / max(len(times) - 1, 1)
    most = max(1.3, *(max(values, default=0.0) for values in views.values()), 0.0)

    def place(at: int, value: float) -> tuple[float, float]:
        return _LEFT + step * at, _BASE - (_BASE - _TOP) * min(max(value, 0.0), most) / most

    limit = place(0, 1.0)[1]
    parts = [
        f'<line class="axis" x1="{_LEFT:g}" x2="{WIDTH:g}" y1="{_BASE:g}" y2="{_BASE:g}"/>',
        f'<line class="limit" x1="{_LEFT:g}" x2="{WIDTH:g}" y1="{limit:.1f}" y2="{limit:.1f}"/>',
        f'<text x="{_LEFT - 6:g}" y="{limit + 4:.1f}" text-anchor="end">alarm</text>',
        f'<text x="{_LEFT - 6:g}" y="{_BASE + 4:g}" text-anchor="end">0</text>',
    ]
    for view, values in views.items():
        points = " ".join("{:.1f},{:.1f}".format(*place(at, value)) for at, value in enumerate(values))
        title = f"<title>{html.escape(view)}: {values[-1]:.2f} of what an alarm needs now</title>"
        parts.append(f'<polyline class="view-{html.escape(view)}" points="{points}">{title}</polyline>')
    for at, title in raised:
        x, y = place(at, max(values[at] for values in views.values()))
        parts.append(
            f'<circle class="raised" cx="{x:.1f}" cy="{y:.1f}" r="4.5"><title>{html.escape(title)}</title></circle>'
        )
    parts.append(_times(times))
    return _svg("".join(parts), caption)


def raised_in(series: Mapping[str, Any], since: str | None) -> list[tuple[int, str]]:
    """Return the place in a series since which the evidence has grown without a break, as a point to draw.

    Args:
        series: As `series_svg` takes it.
        since: RFC 3339; None or before the series: nothing.
    """
    if since is None or not series["at"] or since < series["at"][0]:
        return []
    place = next((at for at, time in enumerate(series["at"]) if time >= since), None)
    return [] if place is None else [(place, f"since {since}")]


def _svg(inside: str, caption: str) -> str:
    label = html.escape(caption, quote=True)
    return f'<svg class="chart" viewBox="0 0 {WIDTH:g} {HEIGHT:g}" role="img" aria-label="{label}">{inside}</svg>'


def _times(times: Sequence[str]) -> str:
    """Write first, middle and last time, without the seconds, and without the day where it is the first one's."""
    first, *later = (times[0], times[len(times) // 2], times[-1])
    told = [first[:16].replace("T", " ")]
    told += [text[11:16] if text[:10] == first[:10] else text[:16].replace("T", " ") for text in later]
    places = ((_LEFT, "start"), (_LEFT + (WIDTH - _LEFT - 6) / 2, "middle"), (WIDTH, "end"))
    shown = list(zip(told, places, strict=True)) if len(times) > 2 else [(told[0], places[0])]
    return "".join(
        f'<text x="{x:g}" y="{HEIGHT - 6:g}" text-anchor="{anchor}">{text}</text>' for text, (x, anchor) in shown
    )


def _densities(drawn: Mapping[str, Any]) -> str:
    cells: Sequence[_Cell] = drawn["cells"]
    inner = [cell for cell in cells if cell["low"] is not None and cell["high"] is not None]
    sides = [cell for cell in cells if cell not in inner and max(cell["reference"], cell["live"]) >= _BESIDE_FROM]
    before = [cell for cell in sides if cell["low"] is None]
    after = [cell for cell in sides if cell["low"] is not None]
    left, right = _BESIDE * len(before), WIDTH - _BESIDE * len(after)
    parts = [f'<line class="axis" x1="0" x2="{WIDTH:g}" y1="{_BASE:g}" y2="{_BASE:g}"/>']
    if inner:
        parts.append(
            _steps(_trimmed(inner), left + (8 if before else 0), right - (8 if after else 0), drawn.get("scale"))
        )
    most = max((max(cell["reference"], cell["live"]) for cell in sides), default=0.0)
    most = max(most, _BESIDE_FULL)  # a percent stays small
    for at, cell in enumerate(before):
        parts.append(_beside(cell, _BESIDE * at, most))
    for at, cell in enumerate(after):
        parts.append(_beside(cell, right + _BESIDE * at, most))
    return "".join(parts)


def _trimmed(inner: Sequence[_Cell]) -> Sequence[_Cell]:
    """Leave out the empty cells at both ends."""
    full = [at for at, cell in enumerate(inner) if max(cell["reference"], cell["live"]) >= _FROM_SHARE]
    return inner[full[0] : full[-1] + 1] if full else inner


def _steps(inner: Sequence[_Cell], left: float, right: float, scale: float | None) -> str:
    """Draw both densities as steps; a cell far above all others, such as a pile of zeros, is clipped and told."""

    def warped(value: float) -> float:
        return math.asinh(value / scale) if scale else value

    low, high = warped(inner[0]["low"]), warped(inner[-1]["high"])
    edges = [(warped(cell["low"]) - low) / (high - low) for cell in inner] + [1.0]
    widths = [max(b - a, 1e-9) for a, b in pairwise(edges)]
    heights = {
        side: [cell[side] / width for cell, width in zip(inner, widths, strict=True)] for side in ("reference", "live")
    }
    top = _clipped_top([max(pair) for pair in zip(*heights.values(), strict=True)])
    x = [left + (right - left) * edge for edge in edges]
    parts = [_path(x, [min(height / top, 1.0) for height in heights[side]], side) for side in ("reference", "live")]
    for at, cell in enumerate(inner):
        wide = max(x[at + 1] - x[at], 1.0)
        title = f"<title>{html.escape(str(cell['label']))}: {_shares(cell)}</title>"
        parts.append(f'<rect class="hit" x="{x[at]:.1f}" y="0" width="{wide:.1f}" height="{_BASE:g}">{title}</rect>')
    piles = [at for at in range(len(inner)) if max(heights["reference"][at], heights["live"][at]) > top]
    written: list[tuple[float, str]] = []
    for at in sorted(piles, key=lambda at: -max(inner[at]["reference"], inner[at]["live"]))[:2]:
        told = f"{inner[at]['label']}: {percent(inner[at]['reference'])} → {percent(inner[at]['live'])}"
        middle = (x[at] + x[at + 1]) / 2
        if all(abs(middle - x_before) > 4 * (len(told) + len(before)) for x_before, before in written):
            written.append((middle, told))
    parts += [_text(middle, 10.0, told) for middle, told in written]
    axis = _powers if scale else _ticks
    return "".join(parts) + axis(
        inner[0]["low"], inner[-1]["high"], lambda v: left + (right - left) * (warped(v) - low) / (high - low)
    )


def _clipped_top(heights: Sequence[float]) -> float:
    """Return the height that fills the frame: a few cells far above the others don't flatten them."""
    order = sorted(heights, reverse=True)
    usual = order[min(len(order) - 1, 1 + len(order) // 16)]
    return (order[0] if order[0] <= 2.5 * usual or usual <= 0 else _CLIP * usual) or 1.0


def _path(x: Sequence[float], heights: Sequence[float], side: str) -> str:
    steps = "".join(
        f"V{_BASE - (_BASE - _TOP) * height:.1f}H{end:.1f}" for height, end in zip(heights, x[1:], strict=True)
    )
    return f'<path class="{side}" d="M{x[0]:.1f} {_BASE:g}{steps}V{_BASE:g}Z"/>'


def _ticks(low: float, high: float, place: Callable[[float], float]) -> str:
    """Write round numbers under an axis, as many as have room."""
    step = 10.0 ** math.floor(math.log10((high - low) / 4))
    step *= next((by for by in (1, 2, 5) if (high - low) / (step * by) <= 5), 10)
    found, last = [], -1e9
    for at in range(math.ceil(low / step), math.floor(high / step) + 1):
        value = at * step
        x = place(value)
        if x - last >= 60:
            found.append(_tick(x, value))
            last = x
    return "".join(found)


def _powers(low: float, high: float, place: Callable[[float], float]) -> str:
    """Write zero and powers of ten under an asinh axis."""
    powers = [10.0**power for power in range(-12, 13)]
    found, last = [], -1e9
    for value in (*(-power for power in reversed(powers)), 0.0, *powers):
        if low <= value <= high and place(value) - last >= 44:
            last = place(value)
            found.append(_tick(last, value))
    return "".join(found)


def _tick(x: float, value: float) -> str:
    line = f'<line class="axis" x1="{x:.1f}" x2="{x:.1f}" y1="{_BASE:g}" y2="{_BASE + 4:g}"/>'
    return line + _text(x, _BASE + 17, _number(value))


def _beside(cell: _Cell, x: float, most: float) -> str:
    """Draw a pair of bars for a cell outside of the axis; their labels tell the shares."""
    tall = [(_BASE - _TOP - 24) * cell[side] / most for side in ("reference", "live")]
    title = f"<title>{html.escape(str(cell['label']))}: {_shares(cell)}</title>"
    bars = "".join(
        f'<rect class="{side}" x="{x + 14 + 18 * at:.1f}" y="{_BASE - height:.1f}" width="16" height="{height:.1f}"/>'
        for at, (side, height) in enumerate(zip(("reference", "live"), tall, strict=True))
    )
    told = _text(
        x + 31, _BASE - max(tall) - 6, f"{percent(cell['reference'])}→{percent(cell['live'])}".replace(" %", "") + " %"
    )
    word = str(cell["label"]).split()[0] if cell["low"] is None else "above"
    return f"<g>{title}{bars}{told}{_text(x + 31, _BASE + 17, word)}</g>"


def _bars(cells: Sequence[_Cell]) -> str:
    """Draw a pair of bars for each category that matters most, and say how many are left out."""
    present = [cell for cell in cells if max(cell["reference"], cell["live"]) > 0]
    if not present:
        return _text(WIDTH / 2, HEIGHT / 2, "nothing was counted")
    chosen = sorted(present, key=_weight)[: _MOST_BARS if len(present) <= _MOST_BARS else _MOST_BARS - 1]
    shown = [cell for cell in present if cell in chosen]
    lines = len(shown) + (len(present) > len(shown))
    room = HEIGHT / max(lines, 4)
    most = max(max(cell["reference"], cell["live"]) for cell in shown)
    drawn = "".join(
        _pair(cell, y=room * (at + 0.5), thick=min(9.0, room * 0.36), most=most) for at, cell in enumerate(shown)
    )
    if len(present) > len(shown):
        drawn += _text(
            _NAME_WIDTH + 10, room * (lines - 0.5) + 4, f"and {len(present) - len(shown)} more", anchor="start"
        )
    return drawn


def _weight(cell: _Cell) -> float:
    """Order categories by how much they changed, then by how common they are."""
    before, now = float(cell["reference"]), float(cell["live"])
    return -(4 * abs(now - before) + max(before, now))


def _pair(cell: _Cell, *, y: float, thick: float, most: float) -> str:
    long = [(WIDTH - _NAME_WIDTH - 130) * cell[side] / most for side in ("reference", "live")]
    name = str(cell["label"])
    shown = html.escape(name if len(name) <= 22 else name[:21] + "…")
    told = f"{percent(cell['reference'])} → {percent(cell['live'])}"
    start = _NAME_WIDTH + 10
    return (
        f"<g><title>{html.escape(name)}: {_shares(cell)}</title>"
        f'<text x="{_NAME_WIDTH:g}" y="{y + 4:.1f}" text-anchor="end">{shown}</text>'
        f'<rect class="reference" x="{start:g}" y="{y - thick:.1f}" width="{long[0]:.1f}" height="{thick:.1f}"/>'
        f'<rect class="live" x="{start:g}" y="{y:.1f}" width="{long[1]:.1f}" height="{thick:.1f}"/>'
        f'<text x="{start + 8 + max(long):.1f}" y="{y + 4:.1f}">{told}</text></g>'
    )


def _shares(cell: _Cell) -> str:
    return f"reference {percent(cell['reference'])}, live {percent(cell['live'])}"


def _text(x: float, y: float, text: str, *, anchor: str = "") -> str:
    """Write a text that stays inside the frame."""
    half = 3.2 * len(text)
    anchor = anchor or ("start" if x < half else "end" if x > WIDTH - half else "middle")
    x = {"start": max(x, 2.0), "end": min(x, WIDTH - 2)}.get(anchor, x)
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{html.escape(text)}</text>'


def _number(value: float) -> str:
    return f"{value:.6g}" if abs(value) < 1e6 else f"{value:.3g}"
