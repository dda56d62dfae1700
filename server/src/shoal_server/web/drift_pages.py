"""Pages of drift: the map of features and scopes, and one feature with its reference and its live distribution."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated

from fastapi import APIRouter, Query, Request
from fastapi.responses import HTMLResponse, Response
from markupsafe import Markup

from shoal_protocol.profile.learning import is_learnt
from shoal_server.access.guard import Program, Viewer
from shoal_server.contracts.report import gather
from shoal_server.drift import states, store
from shoal_server.drift.being_learnt import being_learnt
from shoal_server.drift.history import series
from shoal_server.drift.late_store import newest_late
from shoal_server.drift.live import live_of
from shoal_server.drift.monitor_state import Scope
from shoal_server.drift.notices import importance_text, next_step, what_matters
from shoal_server.drift.states import DriftState
from shoal_server.drift.watch import Role
from shoal_server.drift.watched import promise_of
from shoal_server.errors import NotFoundError
from shoal_server.report.plots import distribution_svg, raised_in, series_svg
from shoal_server.statistics.cells import distribution
from shoal_server.statistics.words import effect_text, size_text
from shoal_server.timestamps import rfc3339
from shoal_server.web.bundle_names import names_of
from shoal_server.web.site import PageRoute, address, page, segment

router = APIRouter(prefix="/drift", route_class=PageRoute, include_in_schema=False)
_MOST_SCOPES = 40
_MOST_FEATURES = 400
_MOST_TOLD = 5
_CONTRACT_SPAN_MS = 3_600_000


@dataclass(frozen=True)
class Cell:
    """One feature in one scope.

    Attributes:
        look: Its pattern and colour: the verdict, and of a drift how strong it is.
        sign: The same as a sign or a number.
        title: The same in words.
    """

    look: str
    sign: str
    title: str
    url: str


@dataclass(frozen=True)
class Told:
    """A drift of its own accord: the page that tells more, one sentence, and what people can do."""

    url: str
    sentence: str
    next_step: str


@dataclass(frozen=True)
class Map:
    """All features of one bundle in one slot, by scope.

    Attributes:
        rows: Each feature by its title, with its cells; what drifts comes first.
        hidden: Devices without drift, which have no column.
        told: What drifts of its own accord.
        alone: Whether too few devices were heard to compare them with each other.
    """

    slot: str
    digest: str
    scopes: list[tuple[str, str]]
    rows: list[tuple[str, list[Cell | None]]]
    drifting: int
    learning: str
    hidden: int
    more_features: int
    told: list[Told]
    alone: bool


@router.get("", response_class=HTMLResponse)
def show_map(
    request: Request, program: Program, _principal: Viewer, slot: Annotated[str, Query(max_length=64)] = ""
) -> Response:
    """Show which features drift where."""
    with program.database.read() as session:
        slots = sorted({row.slot for row in states.present(store.monitors(session))})
        chosen = slot if slot in slots or not slots else slots[0]
        found = states.current(session, chosen) if slots else []
        until = round(1000 * program.clock()) + 1
        contracts = [
            one
            for one in gather(session, program.bundles.schema, start_ms=until - _CONTRACT_SPAN_MS, end_ms=until)
            if one.slot == chosen or not slots
        ]
        unlearnt = being_learnt(session, None, program.reference)
        digests = {state.digest for state in found} | {one.digest for one in contracts}
        names = names_of(session, digests | {one.digest for one in unlearnt})
        late = [one for row in store.monitors(session, slot=chosen) for one in newest_late(session, chosen, row.digest)]
        promises = {row.digest: promise_of(row) for row in store.monitors(session, slot=chosen)}
    maps = [_map(list(group), _importance(program, group[0].digest)) for group in _by_digest(found)]
    tabs = [(name, address("/drift", slot=name)) for name in slots]
    return page(
        request,
        "drift.html",
        maps=maps,
        contracts=contracts,
        unlearnt=unlearnt,
        slot=chosen,
        tabs=tabs,
        names=names,
        promises=promises,
        late=late,
    )


@router.get("/{slot}/{feature}", response_class=HTMLResponse)
def show_feature(
    slot: str,
    feature: str,
    request: Request,
    program: Program,
    *,
    _principal: Viewer,
    digest: Annotated[str, Query(max_length=80, description="Left out: the bundle that was heard last.")] = "",
    scope: Scope = Scope.FLEET,
    name: Annotated[str, Query(max_length=300)] = "fleet",
) -> Response:
    """Show one feature: reference and live distribution, since when it drifts, and the suspected cause."""
    with program.database.read() as session:
        monitors = sorted(store.monitors(session, slot=slot), key=lambda row: -row.updated_at)
        row = next((row for row in monitors if row.digest == digest or not digest), None)
        digest = digest if row is None else row.digest
        found = [one for one in states.current(session, slot) if one.digest == digest and one.feature == feature]
        chosen = next((one for one in found if one.scope == scope and one.name == name), None)
        reference = None if row is None else program.reference(digest)
        if row is None or chosen is None or reference is None or feature not in reference.spec.index:
            raise NotFoundError(
                f"nothing is known of {feature!r:.80} at {name!r:.80} in slot {slot!r:.64}",
                hint="it may have fallen silent; the map of drift shows what is watched now",
            )
        live = live_of(session, row, reference, scope=scope, name=name, since_at=chosen.since_at)
        evidence = series(session, row, feature, scope=scope, name=name)
        names = names_of(session, [digest])
    at = reference.spec.slice(feature)
    grid = reference.spec.streams[reference.spec.index[feature]].grid
    shown = distribution(grid, reference.profile.cells[at], live.counts[at])
    return page(
        request,
        "drift_feature.html",
        state=chosen,
        effect=effect_text(chosen.view, chosen.effect) if chosen.view else "",
        chart=Markup(distribution_svg(shown, caption=f"Distribution of {chosen.title}: reference and live")),  # noqa: S704 - it escapes
        is_learnt=is_learnt(reference),
        rows=(reference.profile.n, round(float(live.counts[at].sum()))),
        live_span_s=live.span_s,
        evidence=Markup(  # noqa: S704 - likewise
            series_svg(evidence, caption="Evidence over time", raised=raised_in(evidence, rfc3339(chosen.since_at)))
        ),
        views=list(evidence["views"]),
        others=sorted((one for one in found if one is not chosen and _is_wide(one)), key=_urgency)[:_MOST_SCOPES],
        url_of=_feature_url,
        promise=promise_of(row),
        importance=importance_text(reference.importance, feature, metric=reference.metric),
        names=names,
    )


def _by_digest(found: Iterable[DriftState]) -> list[list[DriftState]]:
    groups: dict[str, list[DriftState]] = defaultdict(list)
    for state in found:
        groups[state.digest].append(state)
    return list(groups.values())


def _importance(program: Program, digest: str) -> Mapping[str, float]:
    reference = program.reference(digest)
    return {} if reference is None else reference.importance


def _map(found: Sequence[DriftState], importance: Mapping[str, float]) -> Map:
    """Lay out the states of one bundle; devices without drift have no column, there may be thousands."""
    drifting = {(state.scope, state.name) for state in found if state.verdict == "drift"}
    scopes = [
        key
        for key in dict.fromkeys((state.scope, state.name) for state in found)
        if key[0] is not Scope.DEVICE or key in drifting
    ]
    shown = sorted(scopes, key=lambda key: (list(Scope).index(key[0]), key not in drifting, key[1]))[:_MOST_SCOPES]
    cells = {(state.feature, state.scope, state.name): state for state in found}
    titles = {state.feature: state.title or state.feature for state in found}
    worst: dict[str, tuple[bool, float, float]] = {}
    for state in found:
        order = _order(state, importance)
        worst[state.feature] = min(worst.get(state.feature, order), order)
    features = sorted(worst, key=lambda feature: worst[feature])  # the bundle's own order where nothing drifts
    rows = []
    for feature in features[:_MOST_FEATURES]:
        states_here = [cells.get((feature, *key)) for key in shown]
        rows.append((titles[feature], [None if state is None else _cell(state) for state in states_here]))
    devices = {state.name for state in found if state.scope is Scope.DEVICE}
    learning = [state for state in found if state.verdict == "learning" and state.scope is Scope.FLEET]
    return Map(
        slot=found[0].slot,
        digest=found[0].digest,
        scopes=[(scope.value, name) for scope, name in shown],
        rows=rows,
        drifting=sum(state.verdict == "drift" and state.role is Role.CAUSE for state in found),
        learning=f"{learning[0].windows} of {learning[0].baseline_windows}" if learning else "",
        hidden=len(devices) - sum(scope is Scope.DEVICE for scope, _name in shown),
        more_features=max(0, len(features) - _MOST_FEATURES),
        told=_told(found, importance),
        alone=all(state.verdict == "too_few" for state in found if state.scope is Scope.FLEET),
    )


def _told(found: Sequence[DriftState], importance: Mapping[str, float]) -> list[Told]:
    """Say of each scope that is a cause what changed most in it, and what people can do."""
    causes: dict[tuple[Scope, str], list[DriftState]] = defaultdict(list)
    for state in found:
        if state.verdict == "drift" and state.role is Role.CAUSE:
            causes[state.scope, state.name].append(state)
    told = []
    for states_here in list(causes.values())[:_MOST_TOLD]:
        first = min(states_here, key=lambda state: _order(state, importance))
        more = f" {len(states_here) - 1} more of its streams drift too." if len(states_here) > 1 else ""
        step = next_step(first.scope, slot=first.slot)
        told.append(Told(_feature_url(first), first.explanation + more, step))
    return told


def _order(state: DriftState, importance: Mapping[str, float]) -> tuple[bool, float, float]:
    if state.verdict != "drift":
        return True, 0.0, 0.0
    return (False, *what_matters(importance, state.feature, state.effect))


def _cell(state: DriftState) -> Cell:
    url, title = _feature_url(state), state.explanation
    if state.verdict == "drift":
        size, told = abs(state.effect), size_text(state.view, state.effect) if state.view else ""
        if state.role is not Role.CAUSE:  # the change of another scope shows here, too
            return Cell("follows", f"↳ {told}", title, url)
        return Cell(f"drift e{3 if size >= 2 else 2 if size >= 0.5 else 1}", f"✕ {told}", title, url)
    sign = {"none": "✓", "learning": "…"}.get(state.verdict, "·")
    return Cell(state.verdict, sign, title, url)


def _feature_url(state: DriftState) -> str:
    path = f"/drift/{segment(state.slot)}/{segment(state.feature)}"
    return address(path, digest=state.digest, scope=state.scope.value, name=state.name)


def _is_wide(state: DriftState) -> bool:
    return state.scope is not Scope.DEVICE or state.verdict == "drift"


def _urgency(state: DriftState) -> tuple[bool, int, str]:
    return (state.verdict != "drift", list(Scope).index(state.scope), state.name)
