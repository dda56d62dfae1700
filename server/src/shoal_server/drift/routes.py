"""`/api/v1/drift`: the present states, the heat-map, and one feature in full, over HTTP."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice
from typing import Annotated, Any

import numpy as np
from fastapi import APIRouter, Query
from sqlmodel import Session

from shoal_protocol.errors import CallerError
from shoal_server.access.guard import Program, Viewer
from shoal_server.drift import store
from shoal_server.drift.distributions import distribution
from shoal_server.drift.effects import Gap
from shoal_server.drift.monitor_state import FLEET_NAME, Scope
from shoal_server.drift.states import DriftState, current, current_from, present
from shoal_server.drift.tables import MonitorRow
from shoal_server.drift.watch import Yardstick, gap_to_training
from shoal_server.errors import NotFoundError
from shoal_server.paging import MAX_LIMIT, decode_cursor, page
from shoal_server.timestamps import rfc3339

router = APIRouter(prefix="/api/v1/drift", tags=["drift"])

MAX_DEVICES = 200
"""Devices of a heat-map: those with the most evidence."""


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
    return page(found, limit=limit, position=_place, item=state_json)


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
    scope: Scope = Scope.FLEET,
    scope_name: str = FLEET_NAME,
) -> dict[str, Any]:
    """Show one feature: reference and live distribution, gap to the training data, states, history of the evidence."""
    with program.database.read() as session:
        row = _monitor(session, slot, name)
        reference = program.reference(row.digest)
        if reference is None:
            raise NotFoundError(f"the bundle {row.digest} has no reference")
        gap = gap_to_training(store.state_of(session, row), store.live_counts(row), Yardstick.of(reference))
        states = [state for state in current(session, slot) if state.feature == name and state.digest == row.digest]
        return {
            "slot": slot,
            "digest": row.digest,
            "feature": name,
            "importance": reference.importance.get(name),
            "distribution": distribution(reference, name, store.live_counts(row)),
            "gap": _gap_json(gap, row.features.index(name)),
            "states": [state_json(state) for state in sorted(states, key=lambda state: -state.evidence)[:MAX_LIMIT]],
            "history": history(session, row, name, scope=scope, scope_name=scope_name),
        }


def heatmap_of(states: Sequence[DriftState], *, slot: str) -> dict[str, Any]:
    """Return states as a matrix: ``{slot, features, scopes: [{scope, name, digest}], evidence, effect, verdict}``.

    Columns are the fleet, the cohorts, then the devices with the most evidence; a cell without a state is none.
    """
    features = list(dict.fromkeys(state.feature for state in states))
    most: dict[tuple[str, str, str], float] = {}
    for state in states:
        key = (state.digest, state.scope.value, state.name)
        most[key] = max(most.get(key, 0.0), state.evidence)
    order = [scope.value for scope in Scope]
    devices = sorted((key for key in most if key[1] == Scope.DEVICE), key=lambda key: (-most[key], key))[:MAX_DEVICES]
    columns = sorted((key for key in most if key[1] != Scope.DEVICE), key=lambda key: (order.index(key[1]), key[2]))
    columns += sorted(devices, key=lambda key: (key[2], key[0]))
    at = {(key, feature): (y, x) for x, key in enumerate(columns) for y, feature in enumerate(features)}
    evidence, effect, verdict = ([[None] * len(columns) for _ in features] for _ in range(3))
    for state in states:
        place = at.get(((state.digest, state.scope.value, state.name), state.feature))
        if place is not None:
            y, x = place
            evidence[y][x] = round(state.evidence, 3)  # type: ignore[call-overload]  # a list of none until now
            effect[y][x] = round(state.effect, 4)  # type: ignore[call-overload]  # likewise
            verdict[y][x] = state.verdict  # type: ignore[call-overload]  # likewise
    return {
        "slot": slot,
        "features": features,
        "scopes": [{"scope": scope, "name": name, "digest": digest} for digest, scope, name in columns],
        "evidence": evidence,
        "effect": effect,
        "verdict": verdict,
    }


def history(session: Session, row: MonitorRow, name: str, *, scope: Scope, scope_name: str) -> list[dict[str, Any]]:
    """Return the stored evidence and effect of a feature in a scope, the oldest first."""
    at = row.features.index(name)
    return [
        {
            "at": rfc3339(score.at),
            "evidence": round(float(np.frombuffer(score.evidence, "<f4")[at]), 4),
            "effect": round(float(np.frombuffer(score.effect, "<f4")[at]), 4),
        }
        for score in store.scores(session, row.slot, row.digest, scope=scope, name=scope_name)
    ]


def state_json(state: DriftState) -> dict[str, Any]:
    """Return what people and programs see of a state."""
    return {
        "slot": state.slot,
        "digest": state.digest,
        "scope": state.scope.value,
        "name": state.name,
        "feature": state.feature,
        "verdict": state.verdict,
        "view": None if state.view is None else state.view.value,
        "effect": round(state.effect, 6),
        "r": float(f"{state.r:.6g}"),
        "evidence": round(state.evidence, 4),
        "since": rfc3339(state.since_at),
        "cause": state.cause or None,
        "role": None if state.role is None else state.role.value,
        "acknowledged": state.acknowledged,
        "windows": state.windows,
        "baseline_windows": state.baseline_windows,
    }


def _monitor(session: Session, slot: str, feature: str) -> MonitorRow:
    """Return the bundle of a slot that has the feature and was heard of last."""
    rows = sorted(present(store.monitors(session, slot=slot)), key=lambda row: row.watermark * row.bucket_ms)
    if not rows:
        raise NotFoundError(f"nothing is known yet of slot {slot!r:.80}", hint="shoalctl drift show")
    with_it = [row for row in rows if feature in row.features]
    if not with_it:
        raise NotFoundError(f"slot {slot!r:.80} has no stream {feature!r:.80}")
    return with_it[-1]


def _gap_json(gap: Gap, at: int) -> dict[str, Any]:
    return {
        "effect": round(float(gap.effect[at]), 4),
        "verdict": ("drift" if gap.beyond[at] else "none") if gap.enough[at] else "too_few",
        "p": float(f"{gap.p[at]:.4g}"),
        "psi": round(float(gap.psi[at]), 4),
        "psi_by_chance": round(float(gap.psi_by_chance[at]), 4),
        "js": round(float(gap.js[at]), 4),
        "js_by_chance": round(float(gap.js_by_chance[at]), 4),
    }


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
