"""The drift of a slot in full, for an analyst: summary, features, map, volumes, alarms and settings, as one document.

Owns which facts belong together; every sentence is one that the API, pages and alerts use too (`notices`, `states`).
Leaves drawing to `report.fleet`. Read-only.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlmodel import Session

from shoal_protocol.profile.learning import LEARNT, is_learnt
from shoal_protocol.profile.reference import Reference
from shoal_server.alerts import store as alerts
from shoal_server.drift import store
from shoal_server.drift.heatmap import heatmap_of
from shoal_server.drift.history import series
from shoal_server.drift.live import Live, live_of
from shoal_server.drift.monitor_state import FLEET_NAME, Scope
from shoal_server.drift.notices import importance_text, next_step, what_matters, where_text
from shoal_server.drift.season import Season
from shoal_server.drift.sensitivity import in_words
from shoal_server.drift.states import DriftState, current, focus, present, state_json
from shoal_server.drift.tables import MonitorRow
from shoal_server.drift.watch import Role, Yardstick, gap_to_training
from shoal_server.drift.watched import promise_of
from shoal_server.statistics.cells import distribution
from shoal_server.statistics.words import effect_text
from shoal_server.telemetry import rollup
from shoal_server.telemetry.store import lost_windows
from shoal_server.timestamps import rfc3339

_MOST_STATES = 40
_MOST_ALERTS = 200
_HOUR_S = 3600.0


@dataclass(frozen=True, kw_only=True)
class Question:
    """What a report is of.

    Attributes:
        slot: Whose bundles.
        digests: Only these; None: all that are in use there.
        cohort: The scope to look at, such as ``site=bern``; None: the fleet, and wherever a change is.
        since: From when series, volumes and alarms are told, seconds since the epoch.
        now: Seconds since the epoch.
    """

    slot: str
    since: float
    now: float
    digests: frozenset[str] | None = None
    cohort: str | None = None


def report_of(
    session: Session, asked: Question, references: Callable[[str], Reference | None], names: Mapping[str, str]
) -> dict[str, Any]:
    """Return the report.

    Args:
        session: Of any transaction.
        asked: What it is of.
        references: Bundle digest -> its reference.
        names: Bundle digest -> what people call it.
    """
    rows = [
        row
        for row in present(store.monitors(session, slot=asked.slot))
        if asked.digests is None or row.digest in asked.digests
    ]
    found = current(session, asked.slot)
    bundles = []
    for row in rows:
        reference = references(row.digest)
        if reference is not None:
            states = [state for state in found if state.digest == row.digest]
            bundles.append(_Bundle(session, asked, row, reference, states).document(names.get(row.digest, "")))
    return {
        "format_version": 1,
        "slot": asked.slot,
        "cohort": asked.cohort,
        "generated_at": rfc3339(asked.now),
        "since": rfc3339(asked.since),
        "bundles": bundles,
        "alerts": _alerts(session, asked),
    }


class _Bundle:
    """One bundle of the report."""

    def __init__(
        self,
        session: Session,
        asked: Question,
        row: MonitorRow,
        reference: Reference,
        states: Sequence[DriftState],
    ) -> None:
        self._session, self._asked, self._row, self._reference = session, asked, row, reference
        self._states = [state for state in states if asked.cohort is None or state.name == asked.cohort]
        self._all = states
        self._live: dict[tuple[Scope, str], Live] = {}
        self._gap = gap_to_training(store.state_of(session, row), store.live_counts(row), Yardstick.of(reference))

    def document(self, name: str) -> dict[str, Any]:
        row = self._row
        features = sorted(row.features, key=self._rank)
        return {
            "name": name or row.digest[:19],
            "digest": row.digest,
            "verdict": self._verdict(),
            "summary": self._summary(),
            "findings": self._findings(),
            "features": [self._feature(feature) for feature in features],
            "heatmap": heatmap_of(self._all, slot=row.slot),
            "volumes": self._volumes(),
            "settings": self._settings(),
        }

    def _verdict(self) -> str:
        verdicts = {state.verdict for state in self._states}
        for verdict in ("drift", "learning", "none"):
            if verdict in verdicts:
                return verdict
        return "too_few"

    def _causes(self) -> dict[tuple[Scope, str], list[DriftState]]:
        """Return the drifts that are causes of their own, by scope, what matters most first."""
        causes: dict[tuple[Scope, str], list[DriftState]] = {}
        for state in self._states:
            if state.verdict == "drift" and (state.role is Role.CAUSE or self._asked.cohort is not None):
                causes.setdefault((state.scope, state.name), []).append(state)
        return {key: sorted(states, key=self._matters) for key, states in causes.items()}

    def _findings(self) -> list[dict[str, Any]]:
        return [
            {
                "scope": scope.value,
                "name": name,
                "where": where_text(name),
                "since": rfc3339(min((one.since_at for one in states if one.since_at is not None), default=None)),
                "features": [one.feature for one in states],
                "titles": [one.title or one.feature for one in states],
                "next_step": next_step(scope, slot=self._row.slot),
                "explanations": [one.explanation for one in states[:_MOST_STATES]],
            }
            for (scope, name), states in self._causes().items()
        ]

    def _summary(self) -> list[str]:
        """Say in sentences what an analyst wants to know first."""
        row = self._row
        causes = self._causes()
        told = []
        for states in causes.values():
            first = states[0]
            more = f" {len(states) - 1} more of its {len(row.features)} streams drift too." if len(states) > 1 else ""
            told.append(f"{first.explanation} {self._importance(first.feature)}".rstrip() + more)
        if not causes:
            learning = next((state for state in self._states if state.verdict == "learning"), None)
            streams = f"{len(row.features)} streams of {row.devices} devices"
            told.append(
                f"The baseline is being learnt, {learning.windows} of {learning.baseline_windows} windows: no change "
                "can be told yet."
                if learning is not None
                else f"No drift in {streams}: they agree with their baselines, as far as the evidence goes."
                if self._verdict() == "none"
                else "There are too few devices or rows to say."
            )
        known = not is_learnt(self._reference)  # else nothing is known of training data
        beyond = [name for at, name in enumerate(row.features) if known and self._gap.beyond[at]]
        if beyond:
            worst = max(beyond, key=lambda name: self._gap.effect[row.features.index(name)])
            size = float(self._gap.effect[row.features.index(worst)])
            told.append(
                f"Apart from change, the fleet differs from the training data in {len(beyond)} of {len(row.features)} "
                f"streams, most in {self._title(worst)} ({size:.2f} sd)."
            )
        return told

    def _title(self, feature: str) -> str:
        return self._reference.spec.streams[self._reference.spec.index[feature]].title

    def _importance(self, feature: str) -> str:
        return importance_text(self._reference.importance, feature, metric=self._reference.metric)

    def _matters(self, state: DriftState) -> tuple[float, float]:
        return what_matters(self._reference.importance, state.feature, state.effect)

    def _rank(self, feature: str) -> tuple[int, float, float, int]:
        state = self._focus(feature)
        drifts = state is not None and state.verdict == "drift"
        own = state is not None and (state.role is Role.CAUSE)
        matters = self._matters(state) if state is not None and drifts else (0.0, 0.0)
        return (0 if own else 1 if drifts else 2), *matters, self._row.features.index(feature)

    def _focus(self, feature: str) -> DriftState | None:
        """Return the state that a feature's card tells of."""
        return focus([state for state in self._states if state.feature == feature])

    def _feature(self, feature: str) -> dict[str, Any]:
        state = self._focus(feature)
        scope, name = (Scope.FLEET, FLEET_NAME) if state is None else (state.scope, state.name)
        live = self._counts(scope, name, None if state is None else state.since_at)
        spec, at = self._reference.spec, self._row.features.index(feature)
        where = spec.slice(feature)
        grid = spec.streams[spec.index[feature]].grid
        elsewhere = [one for one in self._all if one.feature == feature and one.verdict == "drift" and one is not state]
        return {
            "name": feature,
            "title": spec.streams[spec.index[feature]].title,
            "kind": spec.streams[spec.index[feature]].kind,
            "verdict": "too_few" if state is None else state.verdict,
            "state": None if state is None else state_json(state, self._reference.importance),
            "effect_text": "" if state is None or state.view is None else effect_text(state.view, state.effect),
            "importance": self._reference.importance.get(feature),
            "importance_text": self._importance(feature),
            "elsewhere": [one.explanation for one in sorted(elsewhere, key=self._matters)[:8]],
            "distribution": distribution(grid, self._reference.profile.cells[where], live.counts[where]),
            "live_rows": round(float(live.counts[where].sum())),
            "live_where": where_text(name),
            "live_span_s": live.span_s,
            "reference_rows": self._reference.profile.n,
            "gap": self._gap.json(at, of_training=not is_learnt(self._reference)),
            "series": series(self._session, self._row, feature, scope=scope, name=name, since=self._asked.since),
        }

    def _counts(self, scope: Scope, name: str, since_at: float | None) -> Live:
        """Return live counts of a scope; since the first of its changes, read once for all features."""
        key = (scope, name)
        if key not in self._live:
            self._live[key] = live_of(
                self._session,
                self._row,
                self._reference,
                scope=scope,
                name=name,
                since_at=since_at,
            )
        return self._live[key]

    def _volumes(self) -> dict[str, Any]:
        row, asked = self._row, self._asked
        hours = rollup.hours(
            self._session,
            slot=row.slot,
            start_ms=int((asked.since - asked.since % _HOUR_S) * 1000),
            end_ms=int(asked.now * 1000) + 1,
        )
        mine = [hour for hour in hours if hour.digest == row.digest]
        return {
            "devices": row.devices,
            "windows": sum(hour.windows for hour in mine),
            "predictions": sum(hour.n for hour in mine),
            "errors": sum(hour.errors for hour in mine),
            "late_windows": row.late,
            "damaged_windows": row.damaged,
            "lost_windows": lost_windows(self._session),
            "hours": [
                {
                    "at": rfc3339(hour.hour_ms / 1000),
                    "windows": hour.windows,
                    "predictions": hour.n,
                    "errors": hour.errors,
                }
                for hour in mine
            ],
        }

    def _settings(self) -> dict[str, Any]:
        row = self._row
        rules = store.rules_of(row)
        return {
            "window_s": row.bucket_ms / 1000,
            "baseline_windows": rules.baseline_windows,
            "season": Season(row.season).value,
            "mean_time_to_false_alarm_windows": rules.mean_time_to_false_alarm,
            "false_alarms": in_words(rules.mean_time_to_false_alarm, row.bucket_ms),
            "promise": promise_of(row),
            "min_devices": rules.min_devices,
            "min_rows": rules.min_rows,
            "reference_data": LEARNT
            if is_learnt(self._reference)
            else "validation"
            if self._reference.validation
            else "sample",
            "reference_rows": self._reference.profile.n,
        }


def _alerts(session: Session, asked: Question) -> list[dict[str, Any]]:
    found = alerts.alerts(session, kind="drift", subject=f"slot:{asked.slot}", limit=_MOST_ALERTS)
    return [
        {
            "key": alert.key,
            "title": alert.title,
            "body": alert.body,
            "state": alert.state,
            "raised_at": rfc3339(alert.raised_at),
            "resolved_at": rfc3339(alert.resolved_at),
        }
        for alert in found
        if alert.resolved_at is None or alert.resolved_at >= asked.since
    ]
