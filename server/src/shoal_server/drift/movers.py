"""Which cohorts moved, when the first to alarm are others: those that stayed, or the devices of the one that moved.

Owns finding the cohorts whose own change explains alarms that are not theirs. Pure. A cohort is compared with the
fleet, and the fleet's mean follows a cohort that moves until that is known to differ. So one third of a change shows,
turned round, in everybody who stayed, and they may reach their threshold a window or two before the one that moved, or,
where most have moved, alone. An alarm of a cohort says that cohorts differ; which of them changed is told by the change
of each from its own baseline. Likewise most devices of one site are no coincidence of bad sensors.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

import numpy as np

from shoal_server.drift.alarms import Alarm, AlarmKey, Alarms, telling
from shoal_server.drift.localise import SHARE_OF_CHANGE, telling_component
from shoal_server.drift.monitor_state import Field, MonitorState, Scope
from shoal_server.drift.scores import view_of
from shoal_server.statistics.layout import Floats, Layout

MOVED = 4.0
"""Least own change of a cohort, in standard deviations of its windows, that takes the blame of another's alarm."""


def with_movers(
    state: MonitorState,
    alarms: Alarms,
    *,
    before: Alarms,
    index: int,
    layout: Layout,
    cohorts: Mapping[str, frozenset[str]],
    alike: Callable[[Alarm], bool],
) -> dict[AlarmKey, Alarm]:
    """Return the open alarms, and one for each cohort that moved where only others or its devices have alarmed.

    Args:
        state: After `monitor.observe` of the bucket.
        alarms: Open after it, by the evidence of each.
        before: Open before it; one that was blamed for others' already stays the same alarm.
        index: Of the bucket.
        layout: Of the bundle's streams.
        cohorts: Devices of each cohort.
        alike: Whether nearly all cohorts have changed as the fleet has, in the component of a fleet's alarm.
    """
    blamed = dict(alarms)
    by_feature: dict[str, list[Alarm]] = {}
    for alarm in alarms.values():
        by_feature.setdefault(alarm.feature, []).append(alarm)
    for feature, together in sorted(by_feature.items()):
        if any(alarm.scope is Scope.FLEET and alike(alarm) for alarm in together):
            continue
        for name, asked in _movers(state, together, layout=layout, cohorts=cohorts):
            at, streams = layout.names.index(feature), state.cohorts
            evidence = streams.values[streams.get(name), Field.R, at]
            component = telling(evidence) if evidence.max() > 1 else asked
            mover = Alarm(
                scope=Scope.COHORT,
                name=name,
                feature=feature,
                component=component,
                view=view_of(component, categorical=bool(layout.categorical[at])),
                onset=int(streams.values[streams.get(name), Field.ONSET, at, component]),
                raised=index,
            )
            blamed[mover.key] = before.get(mover.key, mover)
    return blamed


def _movers(
    state: MonitorState, together: list[Alarm], *, layout: Layout, cohorts: Mapping[str, frozenset[str]]
) -> Iterable[tuple[str, int]]:
    """Yield the cohorts that moved, where none that is alarmed in a feature has moved half as far; disjoint ones.

    Whether they moved is asked in the component in which most of the feature's alarms are.
    """
    streams = state.cohorts
    alarmed = {alarm.name for alarm in together if alarm.scope is Scope.COHORT}
    devices = {alarm.name for alarm in together if alarm.scope is Scope.DEVICE}
    wide = len(devices) < len(together)
    known = np.array([name in alarmed for name in streams.names], dtype=np.bool_)
    asked = np.array(
        [wide or _mostly(cohorts.get(name, frozenset()), devices) for name in streams.names], dtype=np.bool_
    )
    if not asked.any():
        return
    component, feature = telling_component(together), layout.names.index(together[0].feature)
    size = np.abs(streams.values[:, Field.CHANGE, feature, component])
    heard = streams.latest >= streams.latest.max()
    moved = asked & heard & ~known & (size >= MOVED * _spread(state, feature, component))
    least = SHARE_OF_CHANGE * size[known | moved].max(initial=0.0)
    if (known & (size >= least)).any():
        return
    taken: list[frozenset[str]] = []
    for at in sorted(np.flatnonzero(moved & (size >= least)).tolist(), key=lambda at: (-size[at], streams.names[at])):
        members = cohorts.get(streams.names[at], frozenset())
        if not any(members & others for others in taken):
            taken.append(members)
            yield streams.names[at], component


def _mostly(members: frozenset[str], devices: set[str]) -> bool:
    """Tell whether most of a cohort's devices are among those that have alarmed."""
    return 2 * len(members & devices) > len(members)


def _spread(state: MonitorState, feature: int, component: int) -> Floats:
    """Return the standard deviation of each cohort's own scores over its baseline, shape (S,)."""
    m2 = state.cohorts.values[:, Field.M2, feature, component]
    return np.asarray(np.sqrt(m2 / np.maximum(state.cohorts.windows - 1, 1)))
