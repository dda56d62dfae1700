"""Words for what the scan tells people. Pure."""

from __future__ import annotations

from shoal_server.drift.alarms import Alarm, effect_of
from shoal_server.drift.effects import Gap
from shoal_server.drift.localise import Finding
from shoal_server.drift.monitor_state import FLEET_NAME
from shoal_server.drift.watch import Watch, Yardstick
from shoal_server.statistics.layout import Layout
from shoal_server.statistics.views import View
from shoal_server.timestamps import rfc3339

_MOST_FEATURES = 12


def finding_key(watch: Watch, finding: Finding) -> str:
    """Return what makes two tellings of a finding the same alert."""
    return f"drift:{watch.slot}:{watch.digest}:{finding.scope}:{finding.name}"


def finding_text(watch: Watch, finding: Finding, yardstick: Yardstick) -> tuple[str, str]:
    """Return title and body of a finding's alert: where, what, since when, how much, and the suspected cause."""
    layout, importance = yardstick.layout, yardstick.reference.importance
    effects = {alarm.key: effect_of(watch.state, alarm, layout) for alarm in finding.alarms}

    def matters(alarm: Alarm) -> float:
        return -abs(effects[alarm.key]) * importance.get(alarm.feature, 1.0 if not importance else 0.0)

    ranked = sorted(finding.alarms, key=lambda alarm: (matters(alarm), -abs(effects[alarm.key]), alarm.feature))
    where = "the fleet" if finding.name == FLEET_NAME else finding.name
    first = ranked[0]
    since = min(alarm.onset for alarm in ranked)
    streams = "1 stream" if len(ranked) == 1 else f"{len(ranked)} streams"
    title = (
        f"{where} drifts in {watch.slot}: {streams}, most {first.feature} "
        f"({effect_text(first.view, effects[first.key])})"
    )
    lines = [
        f"Since {rfc3339(watch.since(since))}. Suspected cause: {cause_text(first.hint, finding.cause)}.",
        "By importance:",
    ]
    lines += [
        f"- {alarm.feature}: {effect_text(alarm.view, effects[alarm.key])} since {rfc3339(watch.since(alarm.onset))}"
        + (f": {alarm.hint}" if alarm.hint else "")
        for alarm in ranked[:_MOST_FEATURES]
    ]
    if len(ranked) > _MOST_FEATURES:
        lines.append(f"- and {len(ranked) - _MOST_FEATURES} more")
    return title, "\n".join(lines)


def cause_text(hint: str, whose: str) -> str:
    """Join what the values suggest with whose change it is; the same words in the API, pages, CLI and alerts.

    >>> cause_text("stuck: nearly all values lie at 3 to 4", "only cam-1 changed: look at its sensor")
    'stuck: nearly all values lie at 3 to 4; only cam-1 changed: look at its sensor'
    """
    return f"{hint}; {whose}" if hint and whose else hint or whose


def gap_text(watch: Watch, gap: Gap, layout: Layout) -> tuple[str, str]:
    """Return title and body of the alert about the difference between fleet and training data."""
    order = sorted((int(at) for at in gap.beyond.nonzero()[0]), key=lambda at: -gap.effect[at])
    title = f"{watch.slot} was trained on other data: {len(order)} streams, most {layout.names[order[0]]}"
    lines = ["The fleet's values differ from the training reference by more than the tolerance, since the start:"]
    lines += [
        f"- {layout.names[at]}: {gap.effect[at]:.2f} sd (PSI {gap.psi[at]:.2f}, by chance {gap.psi_by_chance[at]:.3f})"
        for at in order[:_MOST_FEATURES]
    ]
    return title, "\n".join(lines)


def effect_text(view: View, effect: float) -> str:
    """Write an effect in its unit.

    >>> effect_text(View.LOCATION, 0.5), effect_text(View.MISSING, 0.031), effect_text(View.SHAPE, 1.2)
    ('location +0.50 sd', 'missing +3.1 %', 'shape 1.20')
    """
    if view is View.LOCATION:
        return f"{view} {effect:+.2f} sd"
    if view in {View.MISSING, View.RANGE}:
        return f"{view} {100 * effect:+.1f} %"
    return f"{view} {effect:.2f}"
