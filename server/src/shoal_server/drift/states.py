"""The present state of drift as pages and programs see it: one row a stream and scope. Read-only.

Owns the words `drift`, `none`, `too_few` and `learning`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from sqlmodel import Session

from shoal_server.drift import store
from shoal_server.drift.alarms import AlarmState, effect_in
from shoal_server.drift.baselines import shortest_baseline, threshold_of
from shoal_server.drift.monitor_state import Field, Scope, Streams
from shoal_server.drift.notices import cause_text, explanation, what_matters, where_text
from shoal_server.drift.scores import view_of
from shoal_server.drift.tables import AlarmRow, MonitorRow
from shoal_server.drift.watch import Role
from shoal_server.statistics.views import View
from shoal_server.timestamps import rfc3339

STALE_BUCKETS = 5
"""A bundle or scope that was not heard of for so many buckets has no present state."""


@dataclass(frozen=True, kw_only=True)
class DriftState:
    """One stream of one scope.

    Attributes:
        slot, digest: What runs.
        scope: `fleet`, `cohort` or `device`.
        name: Of the cohort or device; `fleet` for the fleet.
        feature: The stream that is counted.
        title: Its name for people: a joint feature's says which features load most. Empty: the same.
        verdict: `drift`, `none`, `too_few` or `learning`.
        view: What has changed, or would be the first to.
        effect: Change from the scope's own baseline, in the view's unit (`alarms.effect_of`).
        r: Evidence now.
        evidence: log r over log threshold: 1 and more is an alarm.
        since_at: Since when the evidence has grown, seconds since the epoch.
        cause: In words, of a drift.
        role: Of an open alarm among the others; None: no alarm.
        acknowledged: Whether somebody knows of it.
        windows: Of the baseline so far.
        baseline_windows: Of a whole one.
        place: Of the feature in the bundle.
    """

    slot: str
    digest: str
    scope: Scope
    name: str
    feature: str
    verdict: str
    view: View | None = None
    effect: float = 0.0
    r: float = 0.0
    evidence: float = 0.0
    since_at: float | None = None
    cause: str = ""
    role: Role | None = None
    acknowledged: bool = False
    windows: int = 0
    baseline_windows: int = 0
    place: int = 0
    title: str = ""

    @property
    def explanation(self) -> str:
        """What people are told of this state, in a sentence or two."""
        where = where_text(self.name)
        if self.verdict == "drift" and self.view is not None:
            return explanation(
                self.title or self.feature,
                where=where,
                since_at=self.since_at,
                view=self.view,
                effect=self.effect,
                cause=self.cause,
                is_cause=self.role in {Role.CAUSE, None},
            )
        quiet = {
            "none": "no drift.",
            "learning": f"learning its baseline, {self.windows} of {self.baseline_windows} windows.",
        }.get(self.verdict, "too few devices or rows to say.")
        return f"{self.title or self.feature} at {where}: {quiet}"


def current(session: Session, slot: str | None = None, *, scope: Scope | None = None) -> list[DriftState]:
    """Return the present states, by slot, digest, scope, name and feature; see `current_from`."""
    return list(current_from(session, slot, scope=scope))


def current_from(
    session: Session, slot: str | None = None, *, scope: Scope | None = None, after: Sequence[str] = ()
) -> Iterator[DriftState]:
    """Yield the present states one after the other; what nobody asks for is neither read nor computed.

    Args:
        session: Of any transaction.
        slot: Only of this; None: all.
        scope: Only of this level; None: all.
        after: Begin with the level and name of this slot, digest, scope and name; those before are left out.
    """
    order = list(Scope)
    begin = (*after[:2], order.index(Scope(after[2])), after[3]) if after else ()
    for row in sorted(present(store.monitors(session, slot=slot)), key=lambda row: (row.slot, row.digest)):
        if (row.slot, row.digest) < begin[:2]:
            continue
        alarms = {(a.scope, a.scope_name, a.feature): a for a in store.alarm_rows(session, row.slot, row.digest)}
        for level in order if scope is None else (scope,):
            here = (row.slot, row.digest, order.index(level))
            if here < begin[:3]:
                continue
            first = begin[3] if here == begin[:3] else ""
            yield from _states(row, store.streams_of(session, row, level), level, alarms, first=str(first))


def focus(states: Sequence[DriftState]) -> DriftState | None:
    """Return the state of one feature that tells most of it: a cause before what follows, else the fleet's."""
    drifting = [state for state in states if state.verdict == "drift"]
    if drifting:
        return min(drifting, key=lambda one: (one.role is not Role.CAUSE, -abs(one.effect)))
    return next((one for one in states if one.scope is Scope.FLEET), states[0] if states else None)


def state_json(state: DriftState, importance: Mapping[str, float]) -> dict[str, Any]:
    """Return what people and programs see of a state.

    Args:
        state: Which one.
        importance: Of the bundle's features, by which ``matters`` weighs the effect.
    """
    return {
        "slot": state.slot,
        "digest": state.digest,
        "scope": state.scope.value,
        "name": state.name,
        "feature": state.feature,
        "title": state.title or state.feature,
        "verdict": state.verdict,
        "view": None if state.view is None else state.view.value,
        "effect": round(state.effect, 6),
        "matters": round(-what_matters(importance, state.feature, state.effect)[0], 6),
        "r": float(f"{state.r:.6g}"),
        "evidence": round(state.evidence, 4),
        "since": rfc3339(state.since_at),
        "cause": state.cause or None,
        "explanation": state.explanation,
        "role": None if state.role is None else state.role.value,
        "acknowledged": state.acknowledged,
        "windows": state.windows,
        "baseline_windows": state.baseline_windows,
    }


def present(rows: Iterable[MonitorRow]) -> list[MonitorRow]:
    """Return the bundles that are in use: heard of in the last buckets of their slot."""
    rows = list(rows)
    newest: dict[str, float] = {}
    for row in rows:
        newest[row.slot] = max(newest.get(row.slot, 0.0), _end_ms(row))
    return [row for row in rows if _end_ms(row) >= newest[row.slot] - STALE_BUCKETS * row.bucket_ms]


def _end_ms(row: MonitorRow) -> int:
    return (row.watermark + 1) * row.bucket_ms


def _states(
    row: MonitorRow,
    streams: Streams,
    scope: Scope,
    alarms: dict[tuple[str, str, str], AlarmRow],
    *,
    first: str,
) -> Iterator[DriftState]:
    rules = store.rules_of(row)
    limit, whole = threshold_of(streams, scope, rules), shortest_baseline(scope, rules)
    titles = row.titles if len(row.titles) == len(row.features) else row.features
    if scope is Scope.FLEET and not streams.names:
        for place, feature in enumerate(row.features):
            yield DriftState(
                slot=row.slot,
                digest=row.digest,
                scope=scope,
                name="fleet",
                feature=feature,
                verdict="too_few",
                place=place,
                title=titles[place],
            )
    order = sorted((at for at, name in enumerate(streams.names) if name >= first), key=lambda at: streams.names[at])
    for at in order:
        name, windows = streams.names[at], int(streams.windows[at])
        stale = streams.latest[at] < row.watermark - STALE_BUCKETS
        quiet = "too_few" if stale else "learning" if windows < whole else "none"
        r = streams.values[at, Field.R]
        evidence = store.evidence(r.max(axis=-1), limit)
        strongest = np.abs(streams.values[at, Field.Z]).argmax(axis=-1) if r.max() < 1 else r.argmax(axis=-1)
        for place, feature in enumerate(row.features):
            alarm = alarms.get((scope.value, name, feature))
            component = int(strongest[place]) if alarm is None else alarm.component
            view = view_of(component, categorical=row.categorical[place])
            contrast = alarm is not None and alarm.role == Role.CONTRAST
            yield DriftState(
                slot=row.slot,
                digest=row.digest,
                scope=scope,
                name=name,
                feature=feature,
                verdict=quiet if alarm is None or contrast else "drift",
                view=view,
                effect=effect_in(view, component, streams.values[at, Field.CHANGE, place]),
                r=float(r[place].max()),
                evidence=float(evidence[place]),
                since_at=None if alarm is None else alarm.onset * row.bucket_ms / 1000,
                cause="" if alarm is None else cause_text(alarm.hint, alarm.cause),
                role=None if alarm is None else Role(alarm.role),
                acknowledged=alarm is not None and alarm.state == AlarmState.ACKNOWLEDGED,
                windows=windows,
                baseline_windows=whole,
                place=place,
                title=titles[place],
            )
