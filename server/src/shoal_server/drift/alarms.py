"""Alarms: which streams are in drift, since when, and how that ends.

Owns the life of an alarm. Pure. An alarm latches when R reaches its level's threshold and ends when the R of its
component is below 1; when a person acknowledges it before, it stays silent until then, and can come again only after.
One that another scope's change explains ends with that one, see `localise.settled`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import TypeAlias

import numpy as np

from shoal_server.drift.baselines import threshold
from shoal_server.drift.monitor_state import Field, MonitorState, Scope, Streams
from shoal_server.drift.rules import Rules
from shoal_server.drift.scores import COMPONENTS, CONTRASTS, MISSING, OUTSIDE, view_of
from shoal_server.statistics.layout import Flags, Floats, Layout
from shoal_server.statistics.views import View


class AlarmState(StrEnum):
    """Where an alarm is in its life."""

    LATCHED = "latched"  # nobody has seen to it
    ACKNOWLEDGED = "acknowledged"  # somebody knows; the evidence is still there
    EXPLAINED = "explained"  # the change of another scope explains it


@dataclass(frozen=True, kw_only=True)
class Alarm:
    """One stream in drift.

    Attributes:
        scope: Level of the stream.
        name: Of the cohort or device; `fleet` for the fleet.
        feature: Name of the stream that is counted.
        component: Which of its six scores has the most evidence.
        view: What that looks at.
        onset: Bucket since which the evidence has grown.
        raised: Bucket in which it became an alarm.
        state: Where it is in its life.
        hint: What its values suggest as the cause, in words; empty: nothing.
    """

    scope: Scope
    name: str
    feature: str
    component: int
    view: View
    onset: int
    raised: int
    state: AlarmState = AlarmState.LATCHED
    hint: str = ""

    @property
    def key(self) -> AlarmKey:
        """What is unique among the open alarms of a bundle in a slot."""
        return (self.scope, self.name, self.feature)


_PLAINEST = (0, MISSING, OUTSIDE, 1, 2, 3)

AlarmKey: TypeAlias = tuple[Scope, str, str]
Alarms: TypeAlias = Mapping[AlarmKey, Alarm]


def latch(state: MonitorState, alarms: Alarms, *, index: int, layout: Layout, rules: Rules) -> dict[AlarmKey, Alarm]:
    """Return the open alarms after a bucket: those still there and the new ones.

    Args:
        state: After `monitor.observe` of the bucket.
        alarms: Open before it.
        index: Of the bucket.
        layout: Of the bundle's streams.
        rules: Settings.
    """
    open_now = {key: alarm for key, alarm in alarms.items() if _lasts(state, alarm, layout)}
    for scope in Scope:
        streams = state.level(scope)
        crossed = _crossed(state, scope, rules) & (streams.latest == index)[:, None, None]
        for at, feature in np.argwhere(crossed.any(axis=-1)):
            alarm = _alarm(streams, scope, int(at), int(feature), raised=index, layout=layout)
            open_now.setdefault(alarm.key, alarm)
    return open_now


def still_crossed(state: MonitorState, alarm: Alarm, layout: Layout, rules: Rules) -> bool:
    """Tell whether an alarm's evidence is still at its threshold, so that it does not only latch."""
    at = state.level(alarm.scope).get(alarm.name)
    if at is None or alarm.feature not in layout.names:
        return False
    return bool(_crossed(state, alarm.scope, rules)[at, layout.names.index(alarm.feature)].any())


def effect_of(state: MonitorState, alarm: Alarm, layout: Layout) -> float:
    """Return how large the change is, averaged since its onset.

    See `effect_in` for the unit.
    """
    return effect_in(alarm.view, alarm.component, change_of(state, alarm, layout))


def effect_in(view: View, component: int, change: Floats) -> float:
    """Return the size of a change in the unit of a view.

    In standard deviations (nearly) and signed for location, as a root of summed squares for shape and the mix of
    categories, as a signed difference of shares for missing and range.

    Args:
        view: What has changed.
        component: Which component shows it best.
        change: By component, shape (6,).
    """
    if view in {View.SHAPE, View.CELLS}:
        return float(np.sqrt((change[:CONTRASTS] ** 2).sum()))
    return float(change[component])


def change_of(state: MonitorState, alarm: Alarm, layout: Layout) -> Floats:
    """Return the mean change of the alarm's feature in its scope, by component, shape (6,)."""
    streams = state.level(alarm.scope)
    at = streams.get(alarm.name)
    if at is None or alarm.feature not in layout.names:
        return np.zeros(COMPONENTS)
    return np.asarray(streams.values[at, Field.CHANGE, layout.names.index(alarm.feature)])


def _crossed(state: MonitorState, scope: Scope, rules: Rules) -> Flags:
    """Tell which scores have reached their threshold, shape (S, F, 6)."""
    r = state.level(scope).values[:, Field.R]
    limit = threshold(state, scope, rules)
    if scope is Scope.FLEET:
        return np.asarray((r >= rules.mean_time_to_false_alarm) & (r.sum(axis=(1, 2), keepdims=True) >= limit))
    return np.asarray(r >= limit)


def _alarm(streams: Streams, scope: Scope, at: int, feature: int, *, raised: int, layout: Layout) -> Alarm:
    component = telling(streams.values[at, Field.R, feature])
    return Alarm(
        scope=scope,
        name=streams.names[at],
        feature=layout.names[feature],
        component=component,
        view=view_of(component, categorical=bool(layout.categorical[feature])),
        onset=int(streams.values[at, Field.ONSET, feature, component]),
        raised=raised,
    )


def telling(r: Floats) -> int:
    """Return the component to name: the plainest of those with at least half of the strongest's evidence (in logs).

    A large change shows in all of them, up to the clip; which one is ahead by chance says nothing.

    Args:
        r: Evidence of a feature's components, shape (6,).
    """
    evidence = np.log(np.maximum(r, 1.0))
    return next(component for component in _PLAINEST if evidence[component] >= evidence.max() / 2)


def _lasts(state: MonitorState, alarm: Alarm, layout: Layout) -> bool:
    at = state.level(alarm.scope).get(alarm.name)
    if at is None or alarm.feature not in layout.names:
        return False
    r = state.level(alarm.scope).values[at, Field.R, layout.names.index(alarm.feature), alarm.component]
    return bool(r >= 1)
