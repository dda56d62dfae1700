"""`/api/v1/drift`: the present states, the heat-map, and one feature in full, over HTTP."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from itertools import islice
from typing import Annotated, Any

from fastapi import APIRouter, Query
from fastapi.responses import StreamingResponse
from sqlmodel import Session

from shoal_protocol.errors import CallerError
from shoal_protocol.profile.learning import is_learnt
from shoal_server.access.guard import Program, Viewer
from shoal_server.drift import store
from shoal_server.drift.being_learnt import being_learnt
from shoal_server.drift.heatmap import heatmap_of
from shoal_server.drift.history import series
from shoal_server.drift.live import live_of
from shoal_server.drift.monitor_state import FLEET_NAME, Scope
from shoal_server.drift.notices import importance_text
from shoal_server.drift.recording import Asked, header_of, recording_of
from shoal_server.drift.report import Question, report_of
from shoal_server.drift.states import DriftState, current, current_from, focus, present, state_json
from shoal_server.drift.tables import MonitorRow
from shoal_server.drift.watch import Yardstick, gap_to_training
from shoal_server.drift.watched import promise_of, watched
from shoal_server.errors import NotFoundError
from shoal_server.paging import MAX_LIMIT, decode_cursor, page
from shoal_server.registry.store import resolve, version_of_digest
from shoal_server.services import Services
from shoal_server.statistics.cells import distribution

router = APIRouter(prefix="/api/v1/drift", tags=["drift"])

_REPORT_S = 7 * 86_400.0


@router.get("", operation_id="drift_list")
def list_states(
    program: Program,
    _principal: Viewer,
    *,
    slot: str | None = None,
    scope: Scope | None = None,
    verdict: Annotated[str | None, Query(description="drift, none, too_few or learning")] = None,
    limit: Annotated[int, Query(ge=1, le=MAX_LIMIT)] = 100,
    cursor: str | None = None,
) -> dict[str, Any]:
    """List the present states, one for each stream of each scope."""
    after = decode_cursor(cursor)
    with program.database.read() as session:
        wanted = (
            state
            for state in current_from(session, slot, scope=scope, after=_level(after))
            if (verdict is None or state.verdict == verdict) and (after is None or _place(state) > after)
        )
        found = list(islice(wanted, limit + 1))
    importance = {digest: _importance(program, digest) for digest in {state.digest for state in found}}
    return page(found, limit=limit, position=_place, item=lambda state: state_json(state, importance[state.digest]))


def _importance(program: Services, digest: str) -> Mapping[str, float]:
    try:
        reference = program.reference(digest)
    except NotFoundError:  # its release may be gone
        return {}
    return {} if reference is None else reference.importance


@router.get("/watched", operation_id="drift_watched")
def list_watched(program: Program, _principal: Viewer, *, slot: str | None = None) -> dict[str, Any]:
    """List what is watched: windows, baseline, and how often a quiet fleet may be alarmed at the present setting.

    Beside it, what is not watched yet, since nobody knows what to count of it.
    """
    with program.database.read() as session:
        unlearnt = being_learnt(session, slot, program.reference)
        return {"items": watched(session, slot, program.reference), "being_learnt": [one._asdict() for one in unlearnt]}


@router.get("/heatmap", operation_id="drift_heatmap")
def heatmap(program: Program, _principal: Viewer, *, slot: str, scope: Scope | None = None) -> dict[str, Any]:
    """Return the evidence as a matrix: rows are features, columns scopes; 0 is none, 1 and more is an alarm."""
    with program.database.read() as session:
        return heatmap_of(current(session, slot, scope=scope), slot=slot)


@router.get("/features/{name}", operation_id="drift_feature")
def show_feature(
    name: str,
    program: Program,
    _principal: Viewer,
    *,
    slot: str,
    scope: Annotated[Scope | None, Query(description="Left out: where the largest change is, else the fleet.")] = None,
    scope_name: str | None = None,
) -> dict[str, Any]:
    """Show one feature: reference and live distribution, gap to the training data, states, history of the evidence."""
    with program.database.read() as session:
        row = _monitor(session, slot, name)
        reference = program.reference(row.digest)
        if reference is None:
            raise NotFoundError(f"the bundle {row.digest} has no reference")
        gap = gap_to_training(store.state_of(session, row), store.live_counts(row), Yardstick.of(reference))
        states = [state for state in current(session, slot) if state.feature == name and state.digest == row.digest]
        chosen = focus([one for one in states if scope in (None, one.scope) and scope_name in (None, one.name)])
        level, where = (Scope.FLEET, FLEET_NAME) if chosen is None else (chosen.scope, chosen.name)
        since_at = None if chosen is None else chosen.since_at
        live = live_of(session, row, reference, scope=level, name=where, since_at=since_at)
        at, grid = reference.spec.slice(name), reference.spec.streams[reference.spec.index[name]].grid
        return {
            "slot": slot,
            "digest": row.digest,
            "feature": name,
            "title": reference.spec.streams[reference.spec.index[name]].title,
            "importance": reference.importance.get(name),
            "importance_text": importance_text(reference.importance, name, metric=reference.metric),
            "distribution": distribution(grid, reference.profile.cells[at], live.counts[at]),
            "scope": level.value,
            "name": where,
            "gap": gap.json(row.features.index(name), of_training=not is_learnt(reference)),
            "false_alarms": promise_of(row),
            "states": [
                state_json(state, reference.importance)
                for state in sorted(states, key=lambda state: -state.evidence)[:MAX_LIMIT]
            ],
            "series": series(session, row, name, scope=level, name=where),
        }


@router.get("/report", operation_id="drift_report")
def show_report(
    program: Program,
    _principal: Viewer,
    *,
    slot: str,
    model: Annotated[str | None, Query(description="Only this model or bundle: name, name:1.4.0, name@alias.")] = None,
    cohort: Annotated[str | None, Query(description="Only this cohort, such as site=bern.")] = None,
    since: Annotated[datetime | None, Query(description="From when on; left out: seven days ago.")] = None,
) -> dict[str, Any]:
    """Return everything an analyst asks of a slot's drift: summary, features, map, volumes, alerts, settings."""
    now = program.clock()
    with program.database.read() as session:
        names = _names(session, slot)
        asked = Question(
            slot=slot,
            digests=None if model is None else digests_of(session, model, names),
            cohort=cohort,
            since=now - _REPORT_S if since is None else seconds_of(since),
            now=now,
        )
        return report_of(session, asked, program.reference, names)


@router.get("/windows", operation_id="drift_windows")
def export_windows(
    program: Program,
    _principal: Viewer,
    *,
    slot: str,
    model: Annotated[str | None, Query(description="Only this model or bundle: name, name:1.4.0, name@alias.")] = None,
    since: Annotated[datetime | None, Query(description="From when on; left out: seven days ago.")] = None,
    until: Annotated[datetime | None, Query(description="Before when; left out: now.")] = None,
) -> StreamingResponse:
    """Stream a slot's recorded windows as JSON lines: a header, a line a window, and how many there were."""
    now = program.clock()
    with program.database.read() as session:
        names = _names(session, slot)
        asked = Asked(
            slot=slot,
            start_ms=int(1000 * (now - _REPORT_S if since is None else seconds_of(since))),
            end_ms=int(1000 * (now if until is None else seconds_of(until))),
            now=now,
            digests=None if model is None else digests_of(session, model, names),
        )
        header = header_of(session, asked, program.reference, names)
    lines = recording_of(program.database.read, asked, header)
    return StreamingResponse(lines, media_type="application/x-ndjson", headers={"cache-control": "no-store"})


def _names(session: Session, slot: str) -> dict[str, str]:
    """Return what people call the bundles that are watched in a slot, by digest."""
    known = {row.digest: version_of_digest(session, row.digest) for row in store.monitors(session, slot=slot)}
    return {digest: f"{row.model}:{row.version}" for digest, row in known.items() if row is not None}


def digests_of(session: Session, model: str, names: Mapping[str, str]) -> frozenset[str]:
    """Return which bundles a model's name, a bundle's reference or a digest means.

    Args:
        session: Of any transaction.
        model: What was asked for.
        names: ``model:version`` by digest of those in question.
    """
    if model.startswith("sha256:"):
        return frozenset({model})
    if ":" in model or "@" in model:
        return frozenset({resolve(session, model).digest})
    return frozenset(digest for digest, name in names.items() if name.rpartition(":")[0] == model)


def seconds_of(instant: datetime) -> float:
    """Return seconds since the epoch.

    Raises:
        CallerError: It has no zone.
    """
    if instant.tzinfo is None:
        raise CallerError("expected a time with its zone, such as 2026-12-01T22:00:00Z")
    return instant.timestamp()


def _monitor(session: Session, slot: str, feature: str) -> MonitorRow:
    """Return the bundle of a slot that has the feature and was heard of last."""
    rows = sorted(present(store.monitors(session, slot=slot)), key=lambda row: row.watermark * row.bucket_ms)
    if not rows:
        raise NotFoundError(f"nothing is known yet of slot {slot!r:.80}", hint="shoalctl drift show")
    with_it = [row for row in rows if feature in row.features]
    if not with_it:
        raise NotFoundError(f"slot {slot!r:.80} has no stream {feature!r:.80}")
    return with_it[-1]


def _place(state: DriftState) -> list[Any]:
    """Where a state stands in the list; features in the order of the bundle."""
    order = [scope.value for scope in Scope]
    return [state.slot, state.digest, order.index(state.scope.value), state.name, state.place]


def _level(after: Any) -> list[str]:
    if after is None:
        return []
    kinds = [str, str, int, str, int]
    if not isinstance(after, list) or [type(part) for part in after] != kinds or not 0 <= after[2] < len(Scope):
        raise CallerError("this cursor was not given out by this list", hint="start again without a cursor")
    return [after[0], after[1], list(Scope)[after[2]].value, after[3]]
