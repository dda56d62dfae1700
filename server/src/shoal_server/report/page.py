"""The frame of a report: one HTML file that needs nothing else, in light and dark, on paper and on a phone. Pure.

Owns the look. Everything that is put into it by others is HTML already: they escape. The file loads nothing: its own
content security policy forbids it.
"""

from __future__ import annotations

import html
from collections.abc import Iterable, Sequence
from string import Template

_PAGE = Template("""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<title>$title</title><style>
:root { color-scheme: light dark; --ink: #1c2530; --soft: #5a6775; --line: #dfe5eb; --paper: #f6f8fa; --card: #fff;
  --reference: #7b8ea3; --live: #d2600f; --drift: #c2311c; --none: #217a4b; --too_few: #8a6000; --learning: #2a5da8;
  --shape: #2a5da8; --missing: #7a4fb5; --range: #4d5a66; --heat: 194 49 28 }
@media screen and (prefers-color-scheme: dark) { :root { --ink: #e5ebf1; --soft: #9aa8b6; --line: #2c3742;
  --paper: #12181f; --card: #1a222b; --reference: #8fa3b8; --live: #ff9a4d; --drift: #ff7a66; --none: #5bc48c;
  --too_few: #e0b04a; --learning: #8db8f5; --shape: #8db8f5; --missing: #c6a3f5; --range: #b4c0cb;
  --heat: 255 122 102 } }
* { box-sizing: border-box } body { margin: 0; background: var(--paper); color: var(--ink);
  font: 15px/1.5 system-ui, sans-serif } main { max-width: 1080px; margin: 0 auto; padding: 32px 20px 64px }
h1 { font-size: 26px; margin: 0 0 4px; line-height: 1.25; overflow-wrap: anywhere }
h2 { font-size: 20px; margin: 34px 0 6px } h3 { font-size: 17px; margin: 0; overflow-wrap: anywhere }
p, ul { margin: 5px 0; overflow-wrap: anywhere } ul { padding-left: 20px } .soft { color: var(--soft) }
.small { font-size: 13px } .lead { font-size: 16px }
.drift { color: var(--drift) } .none { color: var(--none) } .too_few { color: var(--too_few) }
.learning { color: var(--learning) }
.legend i { display: inline-block; width: 12px; height: 12px; border-radius: 3px; margin: 0 5px 0 14px;
  vertical-align: -1px } .legend i:first-child { margin-left: 0 }
i.reference { background: var(--reference) } i.live, i.view-location { background: var(--live) }
i.view-shape, i.view-cells { background: var(--shape) } i.view-missing { background: var(--missing) }
i.view-range { background: var(--range) }
article, .panel { background: var(--card); border: 1px solid var(--line); border-radius: 10px; padding: 16px 20px;
  margin: 14px 0; break-inside: avoid }
article { display: grid; grid-template-columns: minmax(0, 5fr) minmax(0, 7fr); gap: 8px 28px }
article header { display: flex; gap: 10px; align-items: baseline; flex-wrap: wrap }
.tag { font-size: 12px; font-weight: 600; border: 1px solid currentColor; border-radius: 99px; padding: 0 9px;
  white-space: nowrap }
.cause { font-weight: 600; margin: 6px 0 10px; overflow-wrap: anywhere }
dl { display: grid; grid-template-columns: max-content minmax(0, 1fr); gap: 2px 14px; margin: 0; font-size: 13px }
dt { color: var(--soft) } dd { margin: 0; font-variant-numeric: tabular-nums; overflow-wrap: anywhere }
svg { width: 100%; height: auto; display: block } svg text { font: 11px system-ui, sans-serif; fill: var(--soft) }
svg path.reference { fill: var(--reference); fill-opacity: .45 }
svg path.live { fill: var(--live); fill-opacity: .22; stroke: var(--live); stroke-width: 1.6 }
svg rect.live { fill: var(--live) } svg rect.reference { fill: var(--reference) }
svg .axis { stroke: var(--line) } svg .hit { fill: transparent }
svg .limit { stroke: var(--drift); stroke-dasharray: 5 4 }
svg polyline { fill: none; stroke-width: 1.8; stroke: var(--live) }
svg .view-shape, svg .view-cells { stroke: var(--shape); stroke-dasharray: 6 2 }
svg .view-missing { stroke: var(--missing); stroke-dasharray: 2 2 }
svg .view-range { stroke: var(--range); stroke-dasharray: 8 2 2 2 }
svg .raised { fill: var(--drift); stroke: var(--card); stroke-width: 1.5 }
.scroll { overflow-x: auto } table { border-collapse: collapse; font-size: 13px; font-variant-numeric: tabular-nums }
th, td { padding: 4px 9px; text-align: left; border-bottom: 1px solid var(--line); vertical-align: top }
thead th { color: var(--soft); font-weight: 500 } tbody th { font-weight: 500 } td.n { text-align: right }
.heat td { text-align: center; min-width: 54px; white-space: nowrap }
.h1 { background: rgb(var(--heat) / 18%) } .h2 { background: rgb(var(--heat) / 38%) }
.h3 { background: rgb(var(--heat) / 60%); font-weight: 600 }
details { margin-top: 20px } summary { cursor: pointer; font-weight: 600 }
@media (max-width: 760px) { main { padding: 20px 12px 40px } article { grid-template-columns: minmax(0, 1fr);
  padding: 14px } h1 { font-size: 22px } svg text { font-size: 15px } }
@media print { body { background: #fff; font-size: 12px } main { padding: 0; max-width: none } h2 { break-after: avoid }
  details::details-content { content-visibility: visible; block-size: auto }
  article { grid-template-columns: minmax(0, 5fr) minmax(0, 7fr) } * { print-color-adjust: exact } }
</style></head><body><main>
$body
</main></body></html>
""")

LEGEND = '<p class="legend small soft"><i class="reference"></i>$reference<i class="live"></i>$live</p>'


def page(title: str, body: str) -> str:
    """Return the whole file.

    Args:
        title: Plain text.
        body: HTML.
    """
    return _PAGE.substitute(title=html.escape(title), body=body)


def legend(reference: str, live: str) -> str:
    """Name the two distributions of a plot."""
    return Template(LEGEND).substitute(reference=html.escape(reference), live=html.escape(live))


def tag(verdict: str, text: str) -> str:
    """Return a verdict as a pill."""
    return f'<span class="tag {html.escape(verdict)}">{html.escape(text)}</span>'


def facts(pairs: Iterable[tuple[str, str]]) -> str:
    """Return a list of names and values, plain texts; pairs without a value are left out."""
    rows = "".join(f"<dt>{html.escape(name)}</dt><dd>{html.escape(value)}</dd>" for name, value in pairs if value)
    return f"<dl>{rows}</dl>"


def table(headers: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table of plain texts, that scrolls by itself where it is too wide."""
    head = "".join(f'<th scope="col">{html.escape(one)}</th>' for one in headers)
    body = "".join(f"<tr>{''.join(f'<td>{html.escape(cell)}</td>' for cell in row)}</tr>" for row in rows)
    return f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def paragraphs(texts: Iterable[str], css: str = "") -> str:
    """Return plain texts as paragraphs."""
    return "".join(f'<p class="{css}">{html.escape(text)}</p>' for text in texts)
