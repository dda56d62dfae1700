"""Seasons: the regression by itself, and a fleet whose nights differ from its days."""

import numpy as np
import pytest

from shoal_protocol.errors import CallerError
from shoal_server.drift.monitor_state import MonitorState, Scope
from shoal_server.drift.rules import Rules
from shoal_server.drift.season import DAY_MS, Harmonics, Season, parse_season, period_windows, regressors, terms
from shoal_server.drift.sensitivity import in_words, parse_false_alarms
from shoal_server.drift.watch import Counts, Watch, Yardstick
from shoal_server.testing.drift_fleet import SimulatedFleet, training_reference

REFERENCE = training_reference()
YARDSTICK = Yardstick.of(REFERENCE)
BUCKET_MS = 3_600_000
RULES = Rules().in_season(Season.DAY, bucket_ms=BUCKET_MS)


class Days:
    """A fleet that follows the sun, hour by hour, and the watch over it."""

    def __init__(self, *, rules: Rules, seed: int, a_day: int = 24) -> None:
        self.fleet = SimulatedFleet(devices=12, rows=60, seed=seed)
        state = MonitorState.empty(YARDSTICK.layout.streams, terms=terms(rules.season))
        size = YARDSTICK.layout.size
        self.watch = Watch("reader", "sha256:aa", BUCKET_MS, state, np.zeros(size), season=rules.season)
        self.rules, self.a_day, self.at = rules, a_day, 0
        self.ever: set[tuple[Scope, str, str]] = set()

    def run(self, windows: int, shift: float = 0.0) -> "Days":
        for _ in range(windows):
            sun = 0.5 * np.sin(2 * np.pi * self.at / self.a_day) + shift
            cells = self.fleet.window({at: {"normal": sun, "gaps": sun} for at in range(self.fleet.devices)})
            counts = Counts(self.fleet.names, np.full(self.fleet.devices, self.fleet.rows), cells)
            self.watch.close(self.at, counts, yardstick=YARDSTICK, cohorts=self.fleet.cohorts, rules=self.rules)
            self.ever |= set(self.watch.alarms)
            self.at += 1
        return self


def test_a_fleet_that_follows_the_sun_is_not_alarmed_and_its_drift_is_found() -> None:
    days = Days(rules=RULES, seed=1).run(24 * 12)
    assert days.ever == set()
    days.run(5, shift=0.4)
    assert (Scope.FLEET, "fleet", "normal") in days.ever


def test_without_a_season_the_same_fleet_is_not_alarmed_by_the_sun_but_slow_to_hear_of_a_drift() -> None:
    days = Days(rules=Rules(), seed=1).run(24 * 12)
    assert days.ever == set()
    days.run(5, shift=0.4)
    assert (Scope.FLEET, "fleet", "normal") not in days.ever


def test_the_fit_finds_the_harmonics_and_leaves_the_noise() -> None:
    random = np.random.default_rng(0)
    windows, harmonics, at = 48, Harmonics.empty(1, terms(Season.DAY), (1, 6)), np.array([0])
    mean = np.zeros((1, 1, 6))
    hours = np.arange(windows) + 0.5
    scores = 3 + 2 * np.sin(2 * np.pi * hours / 24) + 0.1 * random.normal(size=windows)
    for count, (hour, score) in enumerate(zip(hours, scores, strict=True), start=1):
        mean = mean + (score - mean) / count
        harmonics.absorb(at, np.array([float(count)]), regressors(Season.DAY, hour * 3_600_000), score - mean)
    addition, explained = harmonics.fit(at, np.array([48.0]), regressors(Season.DAY, 6 * 3_600_000))
    assert float((mean + addition)[0, 0, 0]) == pytest.approx(5, abs=0.1)
    total = ((scores - scores.mean()) ** 2).sum()
    assert float(explained[0, 0, 0]) == pytest.approx(total, rel=0.02)


def test_a_season_doubles_into_the_baseline_and_short_windows_have_none() -> None:
    assert (RULES.warm_up, RULES.baseline_windows) == (24, 48)
    assert period_windows(Season.WEEK, 300_000) == 2016
    assert Rules().in_season(Season.NONE, bucket_ms=1000) == Rules()
    assert regressors(Season.DAY, 0.0) == pytest.approx(regressors(Season.DAY, DAY_MS))
    with pytest.raises(CallerError, match="expected a season"):
        parse_season("year")


@pytest.mark.parametrize("text", ["1 a year", "once a year", "One per year", "1/year", "one every year"])
def test_false_alarms_in_words(text: str) -> None:
    wanted = parse_false_alarms(text)
    assert str(wanted) == "1 a year"
    assert in_words(wanted.windows(60_000), 60_000) == "at most one false alarm in 1 year"


@pytest.mark.parametrize("text", ["", "seldom", "0 a year", "1 a decade", "-1 a day"])
def test_false_alarms_that_say_nothing(text: str) -> None:
    with pytest.raises(CallerError, match="expected how many false alarms"):
        parse_false_alarms(text)
