"""The HTML report on a fleet's drift, written from the document that `/api/v1/drift/report` answers. Pure.

Owns order and layout; sentences come with the document, drawings from `plots`. Quality, where it is known, comes as
names and figures in words.
"""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from typing import Any

from shoal_server.report.page import facts, legend, page, paragraphs, table, tag
from shoal_server.report.plots import distribution_svg, raised_in, series_svg
from shoal_server.statistics.views import View
from shoal_server.statistics.words import effect_text, size_text

_MOST_CARDS = 60
_WORDS = {"drift": "drift", "none": "no drift", "learning": "learning", "too_few": "too few to say"}
_MOST_COLUMNS = 24
_MOST_ROWS = 30
_MOST_OPEN = 12
_LEARNT = "first windows"
_REFERENCES = {"validation": "validation data", "sample": "sample", _LEARNT: "fleet's first windows"}

_WORDS_EXPLAINED = """<details><summary>What the words mean</summary><dl>
<dt>stream</dt><dd>What is counted by itself: a feature, an answer, a confidence, or several
features together (joint).</dd>
<dt>drift</dt><dd>Evidence over many windows that values changed against this fleet's own beginning;
not one odd window.</dd>
<dt>evidence</dt><dd>1 is what an alarm needs; how rarely that comes by chance stands under Settings.</dd>
<dt>sd</dt><dd>A standard deviation of the reference. 0.2 is small, 0.5 medium, 1 large.</dd>
<dt>location, shape, cells, range, missing</dt><dd>What changed most plainly: the values as a
whole; their spread and tails; their mix; values outside of the range or in new categories; missing ones.</dd>
<dt>fleet against reference</dt><dd>How far the fleet's values are from the training data, whether they
changed or not.</dd>
<dt>PSI</dt><dd>Population stability index, beside what chance alone reaches with so many rows.</dd>
</dl></details>"""

Document = Mapping[str, Any]
QualityFacts = Sequence[tuple[str, Mapping[str, str]]]


def fleet_report(document: Document, quality: QualityFacts = ()) -> str:
    """Return the whole page.

    Args:
        document: The report of the API.
        quality: For each bundle its name, and how right it is in names and figures.
    """
    slot = document["slot"]
    of = f" in {document['cohort']}" if document["cohort"] else ""
    body = [
        f"<header><h1>Drift in {html.escape(slot)}{html.escape(of)}</h1>",
        f'<p class="soft">{_time(document["since"])} to {_time(document["generated_at"])} UTC</p></header>',
    ]
    if not document["bundles"]:
        body.append(
            paragraphs([f"Nothing is watched in slot {slot}: no device has sent windows of such a bundle."], "lead")
        )
    told = [_bundle(bundle, several=len(document["bundles"]) > 1) for bundle in document["bundles"]]
    body += [head + _quality(quality) * (at == 0) + more for at, (head, more) in enumerate(told)]
    body += [_quality(quality) * (not told), _alerts(document["alerts"]), _WORDS_EXPLAINED]
    return page(f"Drift in {slot}{of}", "".join(body))


def _bundle(bundle: Document, *, several: bool) -> tuple[str, str]:
    """Return the summary, and all that follows from it."""
    features = bundle["features"]
    loud = [one for one in features if one["verdict"] == "drift"]
    quiet = [one for one in features if one["verdict"] != "drift"]
    settings, volumes = bundle["settings"], bundle["volumes"]
    name = f"<h2>{html.escape(bundle['name'])}</h2>" if several else ""
    what = f"{bundle['name']}, {volumes['devices']} devices, windows of {_seconds(settings['window_s'])}"
    head = f'<p>{tag(bundle["verdict"], _WORDS[bundle["verdict"]])} <span class="soft">{html.escape(what)}</span></p>'
    steps = [*dict.fromkeys(one["next_step"] for one in bundle["findings"])]
    summary = f"{head}{paragraphs(bundle['summary'], 'lead')}{paragraphs(steps)}"
    more = len(loud) - _MOST_OPEN
    told = [
        _heatmap(bundle["heatmap"], [one["name"] for one in features]),
        "<h2>Features</h2>",
        legend("reference: the fleet's first rows" if _is_learnt(settings) else "reference: the training data", "live"),
        "".join(_card(one) for one in loud[:_MOST_OPEN]),
        _folded(f"{more} more that drift", loud[_MOST_OPEN:]) if more > 0 else "",
    ]
    if quiet:
        told.append(_folded(f"{len(quiet)} without drift", quiet, is_open=not loud and len(quiet) <= _MOST_OPEN))
    return f'{name}<section class="panel">{summary}</section>', "".join(told) + _volumes(volumes) + _settings(settings)


def _folded(title: str, features: Sequence[Document], *, is_open: bool = False) -> str:
    cards = "".join(_card(one) for one in features[:_MOST_CARDS])
    more = len(features) - _MOST_CARDS
    end = paragraphs([f"{more} more are in the JSON only."], "soft") if more > 0 else ""
    return f"<details{' open' if is_open else ''}><summary>{title}</summary>{cards}{end}</details>"


def _is_learnt(settings: Document) -> bool:
    """Tell whether what features are compared with is the fleet's own beginning: no data of the training is known."""
    return bool(settings["reference_data"] == _LEARNT)


def _card(one: Document) -> str:
    state = one["state"] or {}
    gap = one["gap"]
    drifts = one["verdict"] == "drift"
    told = facts(
        [
            ("what changed", one["effect_text"] if drifts else ""),
            ("evidence", f"{state['evidence']:.2f} (1 is an alarm)" if state else ""),
            ("importance", one["importance_text"]),
            (
                "fleet against reference",
                f"{gap['effect']:.2f} sd" + (", beyond the tolerance" if gap["verdict"] == "drift" else ""),
            ),
            ("its PSI", f"{gap['psi']:.3f} (by chance up to {gap['psi_by_chance']:.3f})"),
            ("live", f"{one['live_rows']:,} rows at {one['live_where']}{_span(one['live_span_s'])}"),
        ]
    )
    head = f"<header><h3>{html.escape(one['title'])}</h3>{tag(one['verdict'], _WORDS[one['verdict']])}</header>"
    text = f'<p class="cause">{html.escape(state["explanation"])}</p>' if drifts else ""
    elsewhere = ""
    if one["elsewhere"]:
        items = "".join(f"<li>{html.escape(text)}</li>" for text in one["elsewhere"])
        elsewhere = f'<p class="small soft">Elsewhere:</p><ul class="small">{items}</ul>'
    plot = distribution_svg(one["distribution"], caption=f"Distribution of {one['title']}: reference and live")
    return f"<article><div>{head}{text}{told}{elsewhere}</div><div>{plot}{_series(one)}</div></article>"


def _series(one: Document) -> str:
    series = one["series"]
    if not series["at"]:
        return ""
    since = (one["state"] or {}).get("since")
    drawn = series_svg(
        series, caption=f"Evidence of drift in {one['title']} over time", raised=raised_in(series, since)
    )
    views = "".join(f'<i class="view-{html.escape(view)}"></i>{html.escape(view)}' for view in series["views"])
    return f'{drawn}<p class="legend small soft">{views}</p>'


def _heatmap(heat: Document, order: Sequence[str]) -> str:
    """Show what drifts where, in the order of what matters: devices without drift are left out."""
    columns = [
        at
        for at, scope in enumerate(heat["scopes"])
        if scope["scope"] != "device" or any(row[at] == "drift" for row in heat["verdict"])
    ]
    columns.sort(
        key=lambda at: (heat["scopes"][at]["scope"] != "fleet", all(row[at] != "drift" for row in heat["verdict"]))
    )
    columns = columns[:_MOST_COLUMNS]
    place = {name: at for at, name in enumerate(heat["features"])}
    rows = [place[name] for name in order if name in place]
    rows = [at for at in rows if any(heat["verdict"][at][x] == "drift" for x in columns)]
    if not rows:
        return ""
    left = len(rows) - _MOST_ROWS
    more = paragraphs([f"{left} more features drift: see below, and the JSON."], "small soft") if left > 0 else ""
    head = "".join(f'<th scope="col">{html.escape(heat["scopes"][at]["name"])}</th>' for at in columns)
    body = "".join(
        f'<tr><th scope="row">{html.escape(heat["titles"][y])}</th>{"".join(_heat(heat, y, x) for x in columns)}</tr>'
        for y in rows[:_MOST_ROWS]
    )
    hidden = sum(scope["scope"] == "device" for scope in heat["scopes"]) - sum(
        heat["scopes"][at]["scope"] == "device" for at in columns
    )
    left_out = f"; {hidden} devices without drift have no column" if hidden else ""
    return (
        "<h2>Where</h2>"
        '<p class="small soft">How large the change is where there is drift: sd of the reference, a signed share of '
        f"rows, or a distance of shapes; · is no drift{left_out}.</p>"
        f'<div class="panel scroll"><table class="heat"><thead><tr><th scope="col">feature</th>{head}</tr></thead>'
        f"<tbody>{body}</tbody></table>{more}</div>"
    )


def _heat(heat: Document, y: int, x: int) -> str:
    verdict, view, effect = heat["verdict"][y][x], heat["view"][y][x], heat["effect"][y][x]
    if verdict != "drift" or view is None:
        sign = {"none": "·", "learning": "…", None: ""}.get(verdict, "?")
        return f'<td class="soft" title="{html.escape(_WORDS.get(verdict or "", "not watched"))}">{sign}</td>'
    size = abs(effect)
    look = 3 if size >= 2 else 2 if size >= 0.5 else 1
    told = effect_text(View(view), effect)
    return f'<td class="h{look}" title="{told}">{size_text(View(view), effect)}</td>'


def _volumes(volumes: Document) -> str:
    pairs = [
        ("windows", f"{volumes['windows']:,}"),
        ("predictions", f"{volumes['predictions']:,}"),
        ("failed predictions", f"{volumes['errors']:,}"),
        ("too late for the statistics", f"{volumes['late_windows']:,} windows"),
        ("unreadable", f"{volumes['damaged_windows']:,} windows"),
        ("lost by devices, all slots", f"{volumes['lost_windows']:,} windows"),
    ]
    return f'<h2>Data</h2><section class="panel">{facts(pairs)}</section>'


def _settings(settings: Document) -> str:
    pairs = [
        ("window", _seconds(settings["window_s"])),
        ("baseline", f"{settings['baseline_windows']} windows"),
        ("season", settings["season"]),
        ("false alarms", settings["promise"]),
        ("least devices for the fleet", str(settings["min_devices"])),
        ("least rows of a window", str(settings["min_rows"])),
        (
            "reference",
            f"{settings['reference_rows']:,} rows of the {_REFERENCES.get(settings['reference_data'], 'sample')}",
        ),
    ]
    return f'<h2>Settings</h2><section class="panel">{facts(pairs)}</section>'


def _alerts(alerts: Sequence[Document]) -> str:
    if not alerts:
        return ""
    rows = [(f"{_time(one['raised_at'])} UTC", one["state"], one["title"]) for one in alerts]
    return f'<h2>Alerts</h2><section class="panel">{table(("raised", "state", "what"), rows)}</section>'


def _quality(quality: QualityFacts) -> str:
    told = "".join(
        f'<section class="panel"><h3>{html.escape(name)}</h3>{facts(list(figures.items()))}</section>'
        for name, figures in quality
    )
    return f"<h2>Quality</h2>{told}" if told else ""


def _time(text: str | None) -> str:
    """Write RFC 3339 for people: to the second, without the T."""
    return "" if text is None else html.escape(text[:19].replace("T", " "))


def _seconds(seconds: float) -> str:
    for length, unit in ((86_400, "day"), (3600, "hour"), (60, "minute")):
        if seconds >= length and seconds % length == 0:
            number = int(seconds // length)
            return f"{number} {unit}{'s' if number != 1 else ''}"
    return f"{seconds:g} s"


def _span(seconds: float | None) -> str:
    return ", fading over about 20 windows" if seconds is None else f", over the last {seconds / 60:.0f} minutes"
