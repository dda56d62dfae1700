"""Drift as a matrix of features and scopes: what the API, the dashboard's map and reports show. Pure."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from shoal_server.drift.monitor_state import Scope
from shoal_server.drift.states import DriftState

MAX_DEVICES = 200
"""Devices of a heat-map: those with the most evidence."""


def heatmap_of(states: Sequence[DriftState], *, slot: str) -> dict[str, Any]:
    """Return states as a matrix, rows are features: features, titles, scopes, evidence, effect, view and verdict.

    Columns are the fleet, the cohorts, then the devices with the most evidence; a cell without a state is none.
    """
    titles = {state.feature: state.title or state.feature for state in states}
    features = list(titles)
    most: dict[tuple[str, str, str], float] = {}
    for state in states:
        key = (state.digest, state.scope.value, state.name)
        most[key] = max(most.get(key, 0.0), state.evidence)
    order = [scope.value for scope in Scope]
    devices = sorted((key for key in most if key[1] == Scope.DEVICE), key=lambda key: (-most[key], key))[:MAX_DEVICES]
    columns = sorted((key for key in most if key[1] != Scope.DEVICE), key=lambda key: (order.index(key[1]), key[2]))
    columns += sorted(devices, key=lambda key: (key[2], key[0]))
    cells = {((state.digest, state.scope.value, state.name), state.feature): state for state in states}

    def matrix(value: Callable[[DriftState], Any]) -> list[list[Any]]:
        found = ((cells.get((column, feature)) for column in columns) for feature in features)
        return [[None if state is None else value(state) for state in row] for row in found]

    return {
        "slot": slot,
        "features": features,
        "titles": list(titles.values()),
        "scopes": [{"scope": scope, "name": name, "digest": digest} for digest, scope, name in columns],
        "evidence": matrix(lambda state: round(state.evidence, 3)),
        "effect": matrix(lambda state: round(state.effect, 4)),
        "view": matrix(lambda state: None if state.view is None else state.view.value),
        "verdict": matrix(lambda state: state.verdict),
    }
