"""Recorded windows through the rules of drift once more, under the same settings or others. Pure.

Owns what would have been told, and how that compares with what was. The very functions that watch a fleet run here
(`drift.watch`); only what needs a server is left out: windows that came late count, and nobody acknowledges anything.
Baselines are learnt from the first windows of the recording.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from shoal_protocol.errors import CallerError
from shoal_protocol.profile.recording import RecordedAlert, RecordedBundle
from shoal_server.analysis.recording import Recording
from shoal_server.analysis.windows import Windows
from shoal_server.drift.monitor_state import MonitorState
from shoal_server.drift.notices import finding_key, finding_text, gap_key, gap_text
from shoal_server.drift.rules import Rules
from shoal_server.drift.season import Season, parse_season, terms
from shoal_server.drift.sensitivity import FalseAlarms, in_words, parse_false_alarms
from shoal_server.drift.watch import Counts, Notice, Watch, Yardstick


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Other settings than those of the recording; None leaves one as it was.

    Attributes:
        false_alarms: How often a quiet fleet may be alarmed.
        threshold: The same as a mean time between false alarms of a level, in windows.
        window_ms: Length of a window; a multiple of the recorded ones.
        season: After what time things repeat themselves.
        baseline_windows: T0, without a season.
        tolerance: In standard deviations of a window's score.
    """

    false_alarms: FalseAlarms | None = None
    threshold: float | None = None
    window_ms: int | None = None
    season: Season | None = None
    baseline_windows: int | None = None
    tolerance: float = 0.0

    def bucket_ms(self, bundle: RecordedBundle) -> int:
        """Return the length of a bucket; raises `CallerError` when it is shorter than the recorded windows."""
        if self.window_ms is None:
            return bundle.window_ms
        if self.window_ms < bundle.window_ms:
            raise CallerError(
                f"expected windows of at least {bundle.window_ms / 1000:g} s, as they were recorded, got "
                f"{self.window_ms / 1000:g} s"
            )
        return self.window_ms

    def rules(self, bundle: RecordedBundle) -> Rules:
        """Return the rules for one bundle."""
        bucket_ms = self.bucket_ms(bundle)
        season = Season(bundle.season) if self.season is None else self.season
        rules = Rules(
            baseline_windows=self.baseline_windows or bundle.baseline_windows,
            min_devices=bundle.min_devices,
            mean_time_to_false_alarm=bundle.mean_time_to_false_alarm,
            tolerance=self.tolerance,
        ).in_season(season, bucket_ms=bucket_ms)
        if self.threshold is not None:
            return replace(rules, mean_time_to_false_alarm=self.threshold)
        if self.false_alarms is not None:
            return replace(rules, mean_time_to_false_alarm=self.false_alarms.windows(bucket_ms))
        return rules


def parse_words(*, false_alarms: str | None, season: str | None) -> dict[str, Any]:
    """Return the fields of `Settings` that people write in words; raises `CallerError`."""
    return {
        "false_alarms": None if false_alarms is None else parse_false_alarms(false_alarms),
        "season": None if season is None else parse_season(season),
    }


@dataclass(frozen=True, kw_only=True)
class Told:
    """An alert that would have come; times are seconds since the epoch, None: it is still open at the end."""

    key: str
    title: str
    body: str
    raised_at: float
    resolved_at: float | None = None


@dataclass(frozen=True, kw_only=True)
class Replayed:
    """What a replay of one bundle gave.

    Attributes:
        name: Of the bundle.
        buckets: Of time that were judged.
        rules: By which.
        window_ms: Length of a bucket.
        told: Alerts in the order of time.
    """

    name: str
    digest: str
    buckets: int
    rules: Rules
    window_ms: int
    told: tuple[Told, ...]

    @property
    def false_alarms(self) -> str:
        """How often a quiet fleet is alarmed by these rules, in words."""
        return in_words(self.rules.mean_time_to_false_alarm, self.window_ms)


@dataclass(frozen=True, kw_only=True)
class Difference:
    """One alert that came, would have come, or both."""

    key: str
    title: str
    recorded_at: float | None
    replayed_at: float | None


def replay(recording: Recording, settings: Settings | None = None) -> list[Replayed]:
    """Carry all windows of a recording through the rules, bundle by bundle.

    Raises:
        CallerError: The settings don't fit the recording.
    """
    settings = settings or Settings()
    return [_replayed(recording, digest, settings) for digest in recording.by_digest]


def compared(recording: Recording, replayed: list[Replayed]) -> list[Difference]:
    """Pair what came with what would have come, by cause and scope, the first of each; in the order of time."""
    came: dict[str, RecordedAlert] = {}
    would: dict[str, Told] = {}
    for alert in sorted(recording.header.alerts, key=lambda one: one.raised_at):
        came.setdefault(alert.key, alert)
    for told in (one for result in replayed for one in result.told):
        would.setdefault(told.key, told)
    both = [
        Difference(
            key=key,
            title=would[key].title if key in would else came[key].title,
            recorded_at=came[key].raised_at if key in came else None,
            replayed_at=would[key].raised_at if key in would else None,
        )
        for key in came.keys() | would.keys()
    ]
    return sorted(
        both, key=lambda one: (min(at for at in (one.recorded_at, one.replayed_at) if at is not None), one.key)
    )


def _replayed(recording: Recording, digest: str, settings: Settings) -> Replayed:
    header = recording.header
    bundle, windows = header.bundles[digest], recording.by_digest[digest]
    rules, bucket_ms = settings.rules(bundle), settings.bucket_ms(bundle)
    yardstick = Yardstick.of(windows.reference)
    state = MonitorState.empty(yardstick.layout.streams, terms=terms(rules.season))
    watch = Watch(header.slot, digest, bucket_ms, state, np.zeros(yardstick.layout.size), season=rules.season)
    cohorts = _cohorts(header.devices, header.cohort_keys)
    told: list[Told] = []
    open_now: dict[str, int] = {}
    buckets = 0
    for index, counts in _buckets(windows, bucket_ms, header.devices):
        buckets += 1
        now = watch.since(index + 1)
        before = set(watch.alert_keys.values())
        for notice in watch.close(index, counts, yardstick=yardstick, cohorts=cohorts, rules=rules):
            key, title, body = _telling(watch, notice, yardstick)
            if key not in open_now:
                open_now[key] = len(told)
                told.append(Told(key=key, title=title, body=body, raised_at=now))
        for key in before - set(watch.alert_keys.values()):
            if key in open_now:
                at = open_now.pop(key)
                told[at] = replace(told[at], resolved_at=now)
    return Replayed(
        name=bundle.name, digest=digest, buckets=buckets, rules=rules, window_ms=bucket_ms, told=tuple(told)
    )


def _telling(watch: Watch, notice: Notice, yardstick: Yardstick) -> tuple[str, str, str]:
    if notice.finding is not None:
        key = finding_key(watch, notice.finding)
        title, body = finding_text(watch, notice.finding, yardstick)
        watch.told(notice.finding, key)
        return key, title, body
    assert notice.gap is not None, "a notice is of a finding or of a gap"
    return gap_key(watch), *gap_text(watch, notice.gap, yardstick.layout)


def _buckets(
    windows: Windows, bucket_ms: int, devices: Mapping[str, Mapping[str, str]]
) -> Iterator[tuple[int, Counts]]:
    """Yield the sums by device of each bucket that has windows, in order; devices that don't count are left out."""
    middle = windows.start.astype(np.int64) + windows.length_ms // 2
    index = middle // bucket_ms
    counting = np.array([str(device) in devices for device in windows.device], dtype=np.bool_) & (windows.n > 0)
    order = np.argsort(index, kind="stable")
    for mine in np.split(order, np.flatnonzero(np.diff(index[order])) + 1) if len(order) else ():
        bucket = int(index[mine[0]])
        mine = mine[counting[mine]]  # noqa: PLW2901 - the same windows, but those that don't count
        names, place = np.unique(windows.device[mine], return_inverse=True)
        rows = np.zeros(len(names), np.int64)
        cells = np.zeros((len(names), windows.cells.shape[1]), np.int64)
        np.add.at(rows, place, windows.n[mine])
        np.add.at(cells, place, windows.cells[mine])
        yield bucket, Counts([str(name) for name in names], rows, cells)


def _cohorts(devices: Mapping[str, Mapping[str, str]], keys: tuple[str, ...]) -> dict[str, frozenset[str]]:
    members: dict[str, set[str]] = defaultdict(set)
    for device, known in devices.items():
        for key in keys:
            if key in known:
                members[f"{key}={known[key]}"].add(device)
    return {name: frozenset(found) for name, found in members.items()}
