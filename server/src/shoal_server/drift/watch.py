"""One bundle in one slot under watch: everything that the scan knows of it, and one bucket's step over all of it.

Owns the order of a step: observe, latch, localise, tell. Pure: what people shall be told comes back as `Notice`s.
Leaves windows, transactions and alerts to `scan`, rows to `store`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from functools import partial

import numpy as np
import numpy.typing as npt

from shoal_protocol.profile.learning import is_learnt
from shoal_protocol.profile.reference import ANSWERS, Reference
from shoal_server.drift.alarms import Alarm, AlarmKey, AlarmState, change_of, effect_of, latch, still_crossed
from shoal_server.drift.answer_mix import AnswerMix, Explained
from shoal_server.drift.baselines import shortest_baseline
from shoal_server.drift.count_causes import counts_cause
from shoal_server.drift.effects import (
    EARLY_GAP_TOLERANCE,
    GAP_TOLERANCE,
    Gap,
    deployment_gap,
    design_effect,
    design_effect_of_devices,
)
from shoal_server.drift.localise import Finding, changed_alike, excluded_by, localise, settled
from shoal_server.drift.monitor import Bucket, observe
from shoal_server.drift.monitor_state import FLEET_NAME, Field, MonitorState, Scope
from shoal_server.drift.movers import with_movers
from shoal_server.drift.pooling import capped
from shoal_server.drift.rules import WARM_UP, Rules
from shoal_server.drift.scores import Basis
from shoal_server.drift.season import Season
from shoal_server.statistics.layout import Floats, Layout

LIVE_FADES = 0.95
"""Share of the fleet's recent counts that a bucket leaves: they are a mean over about 20 buckets."""


class Role(StrEnum):
    """What an alarm is among the others."""

    CAUSE = "cause"  # its scope is where the change is
    FOLLOWS = "follows"  # the change of a wider or stronger scope explains it
    CONTRAST = "contrast"  # its scope has not changed, it stands out against those that have


@dataclass(frozen=True)
class Counts:
    """What devices counted in one bucket: names, rows (D,) and cells (D, size)."""

    devices: Sequence[str]
    rows: npt.NDArray[np.int64]
    cells: npt.NDArray[np.int64]


@dataclass(frozen=True)
class Yardstick:
    """What a bundle's windows are measured with; made once from its reference."""

    reference: Reference
    layout: Layout
    basis: Basis
    answer_mix: AnswerMix | None = None

    @classmethod
    def of(cls, reference: Reference) -> Yardstick:
        """Make the yardstick of a reference."""
        layout = Layout.of(reference.spec)
        basis = Basis.of(layout, reference.profile.cells)
        return cls(reference, layout, basis, AnswerMix.of(reference, basis))


@dataclass(frozen=True)
class Notice:
    """What people shall be told: a finding whose alarms are old enough, or a gap to the training data."""

    finding: Finding | None = None
    gap: Gap | None = None


@dataclass(eq=False)
class Watch:
    """The memory of one bundle in one slot.

    Attributes:
        bucket_ms: Length of a bucket.
        watermark: Last bucket that was closed, -1 before the first.
        state: Of the sequential rule.
        live: Recent counts of the fleet, fading, shape (size,).
        alarms: Open ones.
        findings: What explains them, as of the last bucket.
        alert_keys: Alert of each alarm that was told of.
        gap_told: Whether a gap to the training data was told, or none was found when the baseline was whole.
        late: Windows that came too late.
        damaged: Windows that were not what the bundle can give.
        season: After what time things repeat themselves.
    """

    slot: str
    digest: str
    bucket_ms: int
    state: MonitorState
    live: Floats
    watermark: int = -1
    alarms: dict[AlarmKey, Alarm] = field(default_factory=dict)
    findings: list[Finding] = field(default_factory=list)
    alert_keys: dict[AlarmKey, str] = field(default_factory=dict)
    gap_told: bool = False
    late: int = 0
    damaged: int = 0
    season: Season = Season.NONE

    def close(
        self,
        index: int,
        counts: Counts,
        *,
        yardstick: Yardstick,
        cohorts: Mapping[str, frozenset[str]],
        rules: Rules,
    ) -> list[Notice]:
        """Carry one bucket through; returns what people shall be told."""
        layout = yardstick.layout
        excluded = excluded_by(self.findings, devices=counts.devices, features=layout.names, cohorts=cohorts)
        bucket = Bucket(
            index=index,
            devices=counts.devices,
            cells=counts.cells,
            rows=counts.rows,
            cohorts=cohorts,
            excluded=excluded,
            at_ms=(index + 0.5) * self.bucket_ms,
        )
        self.state = observe(self.state, bucket, basis=yardstick.basis, rules=rules)
        latched = latch(self.state, self.alarms, index=index, layout=layout, rules=rules)
        self.alarms = with_movers(
            self.state,
            latched,
            before=self.alarms,
            index=index,
            layout=layout,
            cohorts=cohorts,
            alike=partial(self._alike, layout),
        )
        self.alert_keys = {key: alert for key, alert in self.alert_keys.items() if key in self.alarms}
        self._hint(index, counts, yardstick=yardstick, cohorts=cohorts, rules=rules)
        self._settle(layout, cohorts)
        self.watermark = index
        self._fade_in(counts, rules)
        return [*self._ripe(index, layout, rules), *self._gap(yardstick, rules)]

    def _hint(
        self,
        index: int,
        counts: Counts,
        *,
        yardstick: Yardstick,
        cohorts: Mapping[str, frozenset[str]],
        rules: Rules,
    ) -> None:
        """Look at the values of young alarms: what they suggest as the cause."""
        spec = yardstick.reference.spec
        before = self.live if self.live.any() else yardstick.reference.profile.cells.astype(np.float64)
        young = [alarm for alarm in self.alarms.values() if index <= alarm.raised + rules.confirm]
        for who in {(alarm.scope, alarm.name) for alarm in young}:
            now = _pooled(counts, members_of(*who, cohorts=cohorts))
            mix = self._mix(who, before, now, yardstick=yardstick)
            for alarm in young:
                if (alarm.scope, alarm.name) != who:
                    continue
                at, where = spec.index[alarm.feature], spec.slice(alarm.feature)
                stream, effect = spec.streams[at], effect_of(self.state, alarm, yardstick.layout)
                hint = mix.cause(at) if mix is not None and (stream.kind == "input" or stream.name == ANSWERS) else ""
                hint = hint or counts_cause(stream, before[where], now[where], view=alarm.view, effect=effect)
                self.alarms[alarm.key] = replace(alarm, hint=hint or alarm.hint)

    def _mix(self, who: tuple[Scope, str], before: Floats, now: Floats, *, yardstick: Yardstick) -> Explained | None:
        """Ask whether another mix of answers explains what drifts in a scope."""
        spec, known = yardstick.reference.spec, yardstick.answer_mix
        drifting = {spec.index[alarm.feature] for alarm in self.alarms.values() if (alarm.scope, alarm.name) == who}
        inputs = [at for at in drifting if spec.streams[at].kind == "input"]
        if known is None or not before.any() or not now.any():
            return None
        return known.explained(before, now, basis=yardstick.basis, drifting=inputs)

    def localise(self, layout: Layout, cohorts: Mapping[str, frozenset[str]]) -> None:
        """Find out what explains the open alarms."""

        def change(alarm: Alarm, component: int) -> float:
            return float(change_of(self.state, alarm, layout)[component])

        compared = self.state.fleet.get(FLEET_NAME) is not None
        alike = partial(self._alike, layout)
        self.findings = (
            localise(self.alarms, cohorts=cohorts, change=change, alike=alike, compared=compared) if self.alarms else []
        )

    def _settle(self, layout: Layout, cohorts: Mapping[str, frozenset[str]]) -> None:
        """Find out what explains the open alarms, and end those whose explanation has ended."""
        self.localise(layout, cohorts)
        kept = settled(self.findings)
        if kept == self.alarms:
            return
        for alarm in self.alarms.values():
            if alarm.key not in kept and alarm.feature in layout.names:
                self.state.spend(alarm.scope, alarm.name, layout.names.index(alarm.feature))
        self.alarms = kept
        self.alert_keys = {key: alert for key, alert in self.alert_keys.items() if key in kept}
        self.localise(layout, cohorts)

    def told(self, finding: Finding, alert_key: str) -> None:
        """Note that an alert tells of a finding."""
        self.alert_keys.update((alarm.key, alert_key) for alarm in finding.alarms)

    def roles(self) -> dict[AlarmKey, tuple[Role, str]]:
        """Return what each open alarm is, and its cause in words."""
        roles: dict[AlarmKey, tuple[Role, str]] = {}
        for finding in self.findings:
            roles.update((alarm.key, (Role.CAUSE, finding.cause)) for alarm in finding.alarms)
            roles.update((alarm.key, (Role.FOLLOWS, finding.cause)) for alarm in finding.follows)
            roles.update((alarm.key, (Role.CONTRAST, finding.cause)) for alarm in finding.contrast)
        return roles

    def since(self, bucket: int) -> float:
        """Return when a bucket began, seconds since the epoch."""
        return bucket * self.bucket_ms / 1000

    def _ripe(self, index: int, layout: Layout, rules: Rules) -> list[Notice]:
        """Return the findings with news: alarms old enough that their cause is told right, and not told yet.

        Alarms that only latch don't make news, or else those that followed from a cause would be told when it ends.
        Nor do those of a fleet while some cohorts have not changed: then one that is not alarmed yet has.
        """

        def crossed(alarm: Alarm) -> bool:
            return still_crossed(self.state, alarm, layout, rules)

        standing_out = [alarm for finding in self.findings for alarm in finding.contrast]
        differing = {alarm.feature for alarm in standing_out if crossed(alarm)}

        def news(alarm: Alarm) -> bool:
            if alarm.key in self.alert_keys or alarm.state is not AlarmState.LATCHED:
                return False
            if index < alarm.raised + rules.confirm or not (crossed(alarm) or alarm.feature in differing):
                return False
            return alarm.scope is not Scope.FLEET or self._alike(layout, alarm)

        return [Notice(finding=finding) for finding in self.findings if any(news(alarm) for alarm in finding.alarms)]

    def _alike(self, layout: Layout, alarm: Alarm) -> bool:
        at = layout.names.index(alarm.feature)
        cohorts = self.state.cohorts
        heard = cohorts.latest >= self.state.fleet.latest.max(initial=0)
        changes = cohorts.values[heard, Field.CHANGE, at, alarm.component]
        return changed_alike(float(change_of(self.state, alarm, layout)[alarm.component]), changes.tolist())

    def _fade_in(self, counts: Counts, rules: Rules) -> None:
        judged = counts.rows >= rules.min_rows
        if judged.any():
            rows = counts.rows[judged]
            share = capped(rows) / rows
            self.live = LIVE_FADES * self.live + (counts.cells[judged] * share[:, None]).sum(axis=0)

    def _gap(self, yardstick: Yardstick, rules: Rules) -> list[Notice]:
        """Look for a gap to the training data, which a baseline would take for the usual.

        A large one is told as soon as there are windows, the rest once the baseline is whole.
        """
        if self.gap_told or self.state.devices.windows.max(initial=0) < WARM_UP:
            return []
        if is_learnt(yardstick.reference):  # of training data nothing is known
            self.gap_told = True
            return []
        at = self.state.fleet.get(FLEET_NAME)
        self.gap_told = (
            bool((self.state.devices.windows >= rules.baseline_windows).any())
            if at is None
            else bool(self.state.fleet.windows[at] >= shortest_baseline(Scope.FLEET, rules))
        )
        tolerance = GAP_TOLERANCE if self.gap_told else EARLY_GAP_TOLERANCE
        gap = gap_to_training(self.state, self.live, yardstick, tolerance=tolerance)
        self.gap_told |= bool(gap.beyond.any())
        return [Notice(gap=gap)] if gap.beyond.any() else []


def members_of(scope: Scope, name: str, *, cohorts: Mapping[str, frozenset[str]]) -> frozenset[str] | None:
    """Return the devices of a scope; none: all of them."""
    if scope is Scope.FLEET:
        return None
    return frozenset({name}) if scope is Scope.DEVICE else cohorts.get(name, frozenset())


def _pooled(counts: Counts, members: frozenset[str] | None) -> Floats:
    """Add the shares of devices, of shape (size,), so that no device decides how all of them look."""
    mine = [members is None or name in members for name in counts.devices]
    shares = counts.cells[mine] / np.maximum(counts.rows[mine], 1)[:, None]
    return np.asarray((shares * capped(counts.rows[mine])[:, None]).sum(axis=0))


def gap_to_training(
    state: MonitorState, live: Floats, yardstick: Yardstick, *, tolerance: float = GAP_TOLERANCE
) -> Gap:
    """Compare a fleet's recent counts with the training reference, on effective rows."""
    at = state.fleet.get(FLEET_NAME)
    effect = (
        design_effect_of_devices(state.devices, yardstick.basis)
        if at is None or state.fleet.windows[at] < 2
        else design_effect(state.fleet, at, yardstick.basis)
    )
    cells = yardstick.reference.profile.cells
    return deployment_gap(yardstick.layout, cells, live, live_effect=effect, tolerance=tolerance)
