"""Words for what the scan tells people. Pure."""

from __future__ import annotations

from collections.abc import Mapping

from shoal_server.drift.alarms import Alarm, effect_of
from shoal_server.drift.answer_mix import MIX_OF_ANSWERS
from shoal_server.drift.effects import Gap
from shoal_server.drift.localise import Finding
from shoal_server.drift.monitor_state import FLEET_NAME, Scope
from shoal_server.drift.watch import Watch, Yardstick
from shoal_server.statistics.layout import Layout
from shoal_server.statistics.views import View
from shoal_server.statistics.words import effect_text
from shoal_server.timestamps import instant_text

_MOST_FEATURES = 12


def finding_key(watch: Watch, finding: Finding) -> str:
    """Return what makes two tellings of a finding the same alert."""
    return f"drift:{watch.slot}:{watch.digest}:{finding.scope}:{finding.name}"


def gap_key(watch: Watch) -> str:
    """Return the key of the alert about the gap to the training data."""
    return f"drift:{watch.slot}:{watch.digest}:gap"


def finding_text(watch: Watch, finding: Finding, yardstick: Yardstick) -> tuple[str, str]:
    """Return title and body of a finding's alert: where, what, since when, how much, and the suspected cause."""
    layout, importance = yardstick.layout, yardstick.reference.importance
    effects = {alarm.key: effect_of(watch.state, alarm, layout) for alarm in finding.alarms}

    def matters(alarm: Alarm) -> tuple[float, float, str]:
        return (*what_matters(importance, alarm.feature, effects[alarm.key]), alarm.feature)

    ranked = sorted(finding.alarms, key=matters)
    where = where_text(finding.name)
    first = ranked[0]
    since = min(alarm.onset for alarm in ranked)
    streams = "1 stream" if len(ranked) == 1 else f"{len(ranked)} streams"
    title = (
        f"{where} drifts in {watch.slot}: {streams}, most {layout.title(first.feature)} "
        f"({effect_text(first.view, effects[first.key])})"
    )
    lines = [
        f"Since {instant_text(watch.since(since))}. Suspected cause: {cause_text(first.hint, finding.cause)}.",
        "By importance:",
    ]
    lines += [
        "- "
        + explanation(
            layout.title(alarm.feature),
            where=where,
            since_at=watch.since(alarm.onset),
            view=alarm.view,
            effect=effects[alarm.key],
            cause=cause_text(alarm.hint, finding.cause),
        )
        for alarm in ranked[:_MOST_FEATURES]
    ]
    if len(ranked) > _MOST_FEATURES:
        lines.append(f"- and {len(ranked) - _MOST_FEATURES} more")
    lines.append(next_step(finding.scope, slot=watch.slot))
    return title, "\n".join(lines)


def what_matters(importance: Mapping[str, float], feature: str, effect: float) -> tuple[float, float]:
    """Return the order in which drifts are told, least first: by effect times importance, then by effect.

    Args:
        importance: Permutation importance by feature, of the bundle; empty: all are alike.
        feature: Name of the stream.
        effect: How much it changed.
    """
    weight = importance.get(feature, 1.0 if not importance else 0.0)
    return -abs(effect) * max(weight, 0.0), -abs(effect)


def next_step(scope: Scope, *, slot: str) -> str:
    """Say what people can do about a drift, beyond looking where its cause points.

    Args:
        scope: Whose it is.
        slot: In which it is.

    >>> next_step(Scope.DEVICE, slot="quality")
    'What to do: look at the device; until then its answers may be wrong.'
    """
    if scope is Scope.DEVICE:
        return "What to do: look at the device; until then its answers may be wrong."
    return (
        f"What to do: see whether answers got worse (shoalctl quality show {slot}). If they did, train with rows of "
        "now and roll that out; if the change is meant, acknowledge the alert."
    )


def where_text(name: str) -> str:
    """Name a scope."""
    return "the fleet" if name == FLEET_NAME else name


def explanation(
    feature: str,
    *,
    where: str,
    since_at: float | None,
    view: View,
    effect: float,
    cause: str,
    is_cause: bool = True,
) -> str:
    """Explain a drift in full; the same words in the API, on pages, in the CLI, in alerts and in reports.

    Args:
        feature: Title of the stream.
        where: Its scope, see `where_text`.
        since_at: Since when the evidence has grown, seconds since the epoch.
        view: What has changed.
        effect: How much, in the unit of the view.
        cause: See `cause_text`.
        is_cause: Whether the change is this scope's own; else it only shows there, such as a site's in the fleet.

    >>> explanation("temp", where="site=bern", since_at=0.0, view=View.LOCATION, effect=0.5, cause="shift")
    'temp at site=bern drifts since 1970-01-01 00:00 UTC: location +0.50 sd. Suspected cause: shift.'
    """
    since = "" if since_at is None else f" since {instant_text(since_at)}"
    drifts = "drifts" if is_cause else "moved with another scope"
    told = f"{feature} at {where} {drifts}{since}: {effect_text(view, effect)}."
    return f"{told} Suspected cause: {cause}." if cause else told


def importance_text(importance: Mapping[str, float], feature: str, *, metric: str = "") -> str:
    """Say how much a feature matters to the model; empty where the bundle doesn't say.

    Args:
        importance: Permutation importance by feature, of the bundle.
        feature: Name of the stream.
        metric: What the importance is a loss of.

    >>> importance_text({"temp": 0.2, "flow": 0.0}, "temp", metric="accuracy")
    'Shuffling temp costs the model 0.2 of its accuracy: rank 1 of 2 features.'
    """
    if feature not in importance:
        return ""
    rank = 1 + sum(value > importance[feature] for value in importance.values())
    loss = f"costs the model {importance[feature]:.3g} of its {metric or 'quality'}"
    return f"Shuffling {feature} {loss}: rank {rank} of {len(importance)} features."


def cause_text(hint: str, whose: str) -> str:
    """Join what the values suggest with whose change it is; the same words in the API, pages, CLI and alerts.

    >>> cause_text("stuck: nearly all values lie at 3 to 4", "only cam-1 changed: look at its sensor")
    'stuck: nearly all values lie at 3 to 4; only cam-1 changed: look at its sensor'
    >>> cause_text("mix of answers: 'a' went from 3 % to 9 %", "only cam-1 changed: look at its sensor")
    "mix of answers: 'a' went from 3 % to 9 %; only cam-1 changed"
    """
    if hint.startswith(MIX_OF_ANSWERS):
        whose = whose.partition(":")[0]  # no sensor is to blame
    return f"{hint}; {whose}" if hint and whose else hint or whose


def gap_text(watch: Watch, gap: Gap, layout: Layout) -> tuple[str, str]:
    """Return title and body of the alert about the difference between fleet and training data."""
    order = sorted((int(at) for at in gap.beyond.nonzero()[0]), key=lambda at: -gap.effect[at])
    title = f"{watch.slot} was trained on other data: {len(order)} streams, most {layout.titles[order[0]]}"
    lines = ["The fleet's values differ from the training reference by more than the tolerance, since the start:"]
    lines += [
        f"- {layout.titles[at]}: {gap.effect[at]:.2f} sd (PSI {gap.psi[at]:.2f}, by chance {gap.psi_by_chance[at]:.3f})"
        for at in order[:_MOST_FEATURES]
    ]
    return title, "\n".join(lines)
