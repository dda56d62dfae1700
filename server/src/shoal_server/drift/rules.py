"""The settings of the sequential rule; the defaults are those of production."""

from __future__ import annotations

from dataclasses import dataclass, replace

from shoal_server.drift.season import Season, period_windows
from shoal_server.drift.sequential import BASELINE_WINDOWS, MEAN_TIME_TO_FALSE_ALARM

WARM_UP = 12
"""Windows of a device before its running mean is good enough to stand in for its baseline."""


@dataclass(frozen=True, kw_only=True)
class Rules:
    """Settings of the sequential rule.

    Attributes:
        baseline_windows: T0.
        mean_time_to_false_alarm: A, in windows, for each level.
        min_rows: A device's windows with fewer rows are not judged.
        min_devices: With fewer, only the device level runs.
        min_cohort: Devices of a cohort, and of the rest of the fleet, for a cohort to be watched.
        growth: A cohort or fleet of so many times the devices of its baseline learns anew.
        tolerance: The user's own, in standard deviations of a window's score, on top of each level's.
        confirm: Buckets that an alarm waits for alarms elsewhere, so that its cause is told right.
        warm_up: Windows of a device before its running mean is good enough to stand in for its baseline.
        season: What the windows' hour does to the scores.
    """

    baseline_windows: int = BASELINE_WINDOWS
    mean_time_to_false_alarm: float = MEAN_TIME_TO_FALSE_ALARM
    min_rows: int = 10
    min_devices: int = 5
    min_cohort: int = 3
    growth: float = 1.5
    tolerance: float = 0.0
    confirm: int = 2
    warm_up: int = WARM_UP
    season: Season = Season.NONE

    @property
    def residual_windows(self) -> int:
        """Windows of a baseline in which residuals are learnt."""
        return max(self.baseline_windows - self.warm_up, 0)

    def in_season(self, season: Season, *, bucket_ms: int) -> Rules:
        """Return these rules for a fleet with a season: its baseline covers two of them.

        In the first the devices learn what the hour does to their scores, in the second what the rest varies by.
        """
        whole = period_windows(season, bucket_ms)
        if not whole:
            return self
        warm_up = max(self.warm_up, whole)
        return replace(self, season=season, warm_up=warm_up, baseline_windows=max(self.baseline_windows, 2 * warm_up))
