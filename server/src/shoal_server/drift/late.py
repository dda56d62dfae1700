"""Windows that came after their time was judged: what a device saw while nobody could hear it, judged for itself. Pure.

A fleet's past is not judged anew when a device comes back after weeks: its alarms were told and acted on. But what the
device saw counts: its late windows go, in their own order and by their own hour, through the same rule as those of a
fleet too small to be one, each compared with the device's own baseline. The evidence is kept apart from that of the
present, so a fault that is over raises no fresh alarm; people are told of it as late.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from shoal_server.drift.alarms import effect_in
from shoal_server.drift.baselines import threshold_of
from shoal_server.drift.monitor import Bucket, observe
from shoal_server.drift.monitor_state import Field, MonitorState, Scope, Streams
from shoal_server.drift.notices import explanation
from shoal_server.drift.rules import Rules
from shoal_server.drift.scores import view_of
from shoal_server.drift.watch import Counts, Watch, Yardstick
from shoal_server.statistics.layout import Layout
from shoal_server.statistics.views import View
from shoal_server.statistics.words import effect_text
from shoal_server.timestamps import instant_text

_ALONE = 10**9
"""More devices than there are: no fleet is made of late windows."""


@dataclass(frozen=True, kw_only=True)
class LateFinding:
    """What the late windows of one device say.

    Attributes:
        device: Whose.
        verdict: ``drift``, ``none`` or ``learning``.
        feature: Stream with the most evidence.
        view: What changed most plainly there.
        effect: How much, in the view's unit.
        evidence: log R over log threshold, of that stream: 1 is an alarm.
        since_at: Since when the evidence grew, by the windows' own time, seconds since the epoch.
    """

    device: str
    verdict: str
    feature: str
    view: View
    effect: float
    evidence: float
    since_at: float


def seeded(late: Streams, devices: Streams, names: Sequence[str], *, rules: Rules) -> None:
    """Give devices whose windows come late for the first time the baseline that they have, if it is whole."""
    for name in names:
        if late.get(name) is not None:
            continue
        at, known = int(late.positions([name])[0]), devices.get(name)
        if known is None or devices.windows[known] < rules.baseline_windows:
            continue
        for mine, theirs in ((late.windows, devices.windows), (late.rows, devices.rows)):
            mine[at] = theirs[known]
        late.values[at] = devices.values[known]
        late.values[at, [Field.R, Field.Z, Field.ONSET, Field.SEEN, Field.CHANGE]] = 0
        for part in ("mean", "gram", "cross"):
            getattr(late.harmonics, part)[at] = getattr(devices.harmonics, part)[known]


def judge_late(
    late: Streams, buckets: Mapping[int, Counts], *, watch: Watch, yardstick: Yardstick, rules: Rules
) -> Streams:
    """Carry late windows through.

    Args:
        late: What is remembered of the devices, see `seeded`.
        buckets: What came, by bucket.
        watch: Of the bundle.
        yardstick: Of the bundle.
        rules: Of the watch.
    """
    alone = replace(rules, min_devices=_ALONE)
    features = yardstick.layout.streams
    state = MonitorState(Streams(features), Streams(features), late)
    for index, counts in sorted(buckets.items()):
        bucket = Bucket(
            index=index,
            devices=counts.devices,
            cells=counts.cells,
            rows=counts.rows,
            cohorts={},
            excluded=np.zeros((len(counts.devices), features), dtype=np.bool_),
            at_ms=(index + 0.5) * watch.bucket_ms,
        )
        state = observe(state, bucket, basis=yardstick.basis, rules=alone)
    return state.devices


def findings(
    late: Streams, names: Sequence[str], *, watch: Watch, layout: Layout, rules: Rules, before: Mapping[str, str]
) -> list[LateFinding]:
    """Return what the late windows of some devices say now.

    Args:
        late: What is remembered of them.
        names: Of the devices.
        watch: Of the bundle: as many streams as it watches raise the threshold.
        layout: Of the bundle's streams.
        rules: Of the watch.
        before: Verdict of each device so far: a drift lasts until its evidence is gone.
    """
    limit = max(threshold_of(level, Scope.DEVICE, rules) for level in (watch.state.devices, late))
    found = []
    for name in names:
        at = late.positions([name])[0]
        r = late.values[at, Field.R]
        place, component = np.unravel_index(int(r.argmax()), r.shape)
        most = float(r[place, component])
        drifts = most >= limit or (before.get(name) == "drift" and most >= 1)
        learning = late.windows[at] < rules.baseline_windows
        view = view_of(int(component), categorical=bool(layout.categorical[place]))
        found.append(
            LateFinding(
                device=name,
                verdict="drift" if drifts else "learning" if learning else "none",
                feature=layout.names[place],
                view=view,
                effect=effect_in(view, int(component), late.values[at, Field.CHANGE, place]),
                evidence=float(np.log(max(most, 1.0)) / np.log(limit)),
                since_at=max(0.0, watch.since(int(late.values[at, Field.ONSET, place, component]))),
            )
        )
    return found


def late_key(watch: Watch, device: str) -> str:
    """Return the key of the alert about a device's late windows."""
    return f"drift:{watch.slot}:{watch.digest}:late:{device}"


def late_text(watch: Watch, found: LateFinding, *, layout: Layout, span_ms: tuple[int, int]) -> tuple[str, str]:
    """Return title and body of the alert about late windows that drift.

    Args:
        watch: Of the bundle.
        found: Of the device.
        layout: Of the bundle's streams.
        span_ms: Begin and end of all its late windows, milliseconds since the epoch.
    """
    title = (
        f"{found.device} drifted in {watch.slot} while it was not heard: most {layout.title(found.feature)} "
        f"({effect_text(found.view, found.effect)})"
    )
    first, last = (instant_text(at / 1000) for at in span_ms)
    body = (
        f"Its windows of {first} to {last} came late, after the fleet of that time had been judged. "
        + explanation(
            layout.title(found.feature),
            where=found.device,
            since_at=found.since_at,
            view=found.view,
            effect=found.effect,
            cause="",
        )
        + " Compared with its own baseline; whether others changed then is not known. "
        "If it drifts still, an alarm of its own says so."
    )
    return title, body
