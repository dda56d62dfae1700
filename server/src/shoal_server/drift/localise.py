"""Whose change it is: one device's, one cohort's, or the world's.

Owns the attribution of concurrent alarms. Pure. Drift of everybody reaches cohorts and devices too, and drift of a site
moves the fleet's mean; one finding explains them all:

    the fleet changed, and nearly all cohorts with it -> the world changed
    a cohort changed, more than those it overlaps     -> its site, hardware or version
    a device changed, and nothing above explains it   -> a bad sensor

Who has changed far less than a cohort that is a cause has not changed for itself: the fleet's mean went with that
cohort, and it stands out against the mean.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from shoal_server.drift.alarms import Alarm, AlarmKey, Alarms, AlarmState
from shoal_server.drift.monitor_state import Scope
from shoal_server.statistics.layout import Flags

SHARE_OF_CHANGE = 0.5
"""A scope whose own change is less than this share of another's does not share its cause."""

_FEW = 0.25


def changed_alike(fleet: float, cohorts: Sequence[float]) -> bool:
    """Tell whether nearly all cohorts have changed with the fleet, and none more than twice as far.

    The mean of a fleet also moves when one of its sites does; then that one has changed far more, and most of the
    others not at all.

    Args:
        fleet: Change of the fleet.
        cohorts: Changes of the cohorts; a quarter of them may be exceptions.

    >>> changed_alike(0.3, [0.3, 0.2, 0.4]), changed_alike(0.3, [0.5, 0.1, 0.0]), changed_alike(0.1, [0.5, 0.1, 0.1])
    (True, False, False)
    """
    along = sorted(change if fleet >= 0 else -change for change in cohorts)
    if not along:
        return True
    none_far_more = abs(fleet) >= SHARE_OF_CHANGE * max(-along[0], along[-1])
    return none_far_more and along[int(_FEW * (len(along) - 1))] >= SHARE_OF_CHANGE * abs(fleet)


@dataclass(frozen=True)
class _Parts:
    own: list[Alarm]
    follows: list[Alarm]
    contrast: list[Alarm]


@dataclass(frozen=True, kw_only=True)
class Finding:
    """A cause, and the alarms that it explains.

    Attributes:
        scope: Where the change is.
        name: Of the cohort or device.
        cause: In words.
        alarms: Of this very scope, strongest first.
        follows: Alarms of other scopes that follow from it.
        contrast: Alarms of scopes that have not changed themselves: they only stand out against those that have.
    """

    scope: Scope
    name: str
    cause: str
    alarms: tuple[Alarm, ...]
    follows: tuple[Alarm, ...] = ()
    contrast: tuple[Alarm, ...] = ()


def localise(
    alarms: Alarms,
    *,
    cohorts: Mapping[str, frozenset[str]],
    change: Callable[[Alarm, int], float],
    alike: Callable[[Alarm], bool],
    compared: bool = True,
) -> list[Finding]:
    """Attribute the open alarms.

    Args:
        alarms: All that are open.
        cohorts: Devices of each cohort.
        change: Own change of an alarm's scope and feature in one of its six components, signed or not.
        alike: Whether nearly all cohorts have changed as the fleet has, in the component of a fleet's alarm.
        compared: Whether there are enough devices to compare one with the others.

    Returns:
        One finding per scope that is a cause, the widest scope first.
    """
    by_feature: dict[str, list[Alarm]] = {}
    for alarm in alarms.values():
        by_feature.setdefault(alarm.feature, []).append(alarm)
    causes: dict[tuple[Scope, str], _Parts] = {}
    for together in by_feature.values():
        for cause, follows, contrast in _attribute(together, cohorts, change, alike):
            parts = causes.setdefault((cause.scope, cause.name), _Parts([], [], []))
            parts.own.append(cause)
            parts.follows.extend(follows)
            parts.contrast.extend(contrast)
    order = list(Scope)
    return [
        Finding(
            scope=scope,
            name=name,
            cause=suspected_cause(scope, name, compared=compared),
            alarms=tuple(sorted(parts.own, key=lambda alarm: -abs(change(alarm, alarm.component)))),
            follows=tuple(parts.follows),
            contrast=tuple(parts.contrast),
        )
        for (scope, name), parts in sorted(causes.items(), key=lambda item: (order.index(item[0][0]), item[0][1]))
    ]


def settled(findings: Iterable[Finding]) -> dict[AlarmKey, Alarm]:
    """Return the alarms that stay: those that another one explained end with it, for its change was their evidence.

    Site and devices do not recover in the same window, and what the fleet's mean owes to a site outlasts its alarm;
    without this each would be blamed in the end. What is there for itself gathers new evidence.

    Args:
        findings: Of all open alarms.
    """
    kept: dict[AlarmKey, Alarm] = {}
    for finding in findings:
        explained = (*finding.follows, *finding.contrast)
        for cause in finding.alarms:
            others = [alarm for alarm in explained if alarm.feature == cause.feature]
            if all(alarm.state is AlarmState.EXPLAINED for alarm in (cause, *others)):
                continue
            kept[cause.key] = _in_state(cause, AlarmState.EXPLAINED, AlarmState.LATCHED)
            kept.update((alarm.key, _in_state(alarm, AlarmState.LATCHED, AlarmState.EXPLAINED)) for alarm in others)
    return kept


def _in_state(alarm: Alarm, before: AlarmState, after: AlarmState) -> Alarm:
    return replace(alarm, state=after) if alarm.state is before else alarm


def excluded_by(
    findings: Iterable[Finding],
    *,
    devices: Sequence[str],
    features: Sequence[str],
    cohorts: Mapping[str, frozenset[str]],
) -> Flags:
    """Tell which devices are known to differ in which features, so that they don't count as the fleet's bulk.

    Returns:
        Shape (D, F).
    """
    excluded = np.zeros((len(devices), len(features)), dtype=np.bool_)
    column = {name: at for at, name in enumerate(features)}
    for finding in findings:
        if finding.scope is Scope.FLEET:
            continue
        members = cohorts.get(finding.name, frozenset()) if finding.scope is Scope.COHORT else {finding.name}
        rows = [at for at, name in enumerate(devices) if name in members]
        columns = [column[alarm.feature] for alarm in finding.alarms if alarm.feature in column]
        excluded[np.ix_(rows, columns)] = True
    return excluded


def suspected_cause(scope: Scope, name: str, *, compared: bool = True) -> str:
    """Say in words what a change of this scope alone suggests.

    >>> suspected_cause(Scope.COHORT, "site=bern")
    'only site=bern changed: look at what its devices share, such as place, light or supply'
    """
    if scope is Scope.FLEET:
        return "the whole fleet changed alike: the world changed, or something that all devices share"
    if scope is Scope.DEVICE and not compared:
        return f"{name} changed: its sensor or what it looks at, too few devices run this to tell by the others"
    if scope is Scope.DEVICE:
        return f"only {name} changed: look at its sensor"
    key = name.partition("=")[0]
    shared = {
        "site": "look at what its devices share, such as place, light or supply",
        "arch": "look at the hardware",
        "agent": "look at this version of the agent",
    }.get(key, "look at what its devices share")
    return f"only {name} changed: {shared}"


def telling_component(alarms: Iterable[Alarm]) -> int:
    """Return the component in which most alarms of one feature are: the one to compare changes in."""
    return Counter(alarm.component for alarm in alarms).most_common(1)[0][0]


def _attribute(
    alarms: list[Alarm],
    cohorts: Mapping[str, frozenset[str]],
    change: Callable[[Alarm, int], float],
    alike: Callable[[Alarm], bool],
) -> Iterable[tuple[Alarm, list[Alarm], list[Alarm]]]:
    """Yield the causes among one feature's alarms, each with what follows from it and what stands out against it."""
    component = telling_component(alarms)
    size = {alarm.key: abs(change(alarm, component)) for alarm in alarms}
    left = sorted(alarms, key=lambda alarm: (-size[alarm.key], alarm.name))
    fleet = [alarm for alarm in left if alarm.scope is Scope.FLEET]
    groups = [alarm for alarm in left if alarm.scope is Scope.COHORT]
    devices = [alarm for alarm in left if alarm.scope is Scope.DEVICE]
    if not groups:
        yield from ([(fleet[0], devices, [])] if fleet else [(device, [], []) for device in devices])
        return
    if fleet and alike(fleet[0]):
        yield fleet[0], groups + devices, []
        return
    least = SHARE_OF_CHANGE * size[groups[0].key]
    weak = [alarm for alarm in groups if size[alarm.key] < least]
    groups = [alarm for alarm in groups if alarm not in weak]
    home = frozenset[str]().union(*(cohorts.get(alarm.name, frozenset()) for alarm in groups))
    weak += [alarm for alarm in devices if alarm.name not in home and size[alarm.key] < least]
    devices = [alarm for alarm in devices if alarm not in weak]
    while groups:
        cause, *rest = groups
        members = cohorts.get(cause.name, frozenset())
        overlapping = [alarm for alarm in rest if members & cohorts.get(alarm.name, frozenset())]
        inside = [alarm for alarm in devices if alarm.name in members]
        yield cause, fleet + overlapping + inside, weak
        fleet, weak = [], []
        groups = [alarm for alarm in rest if alarm not in overlapping]
        devices = [alarm for alarm in devices if alarm not in inside]
    for alarm in devices:
        yield alarm, [], []
