"""Worlds in which much goes on and nothing drifts; each raised false alarms once."""

import pytest

from shoal_server.drift.monitor_state import Field, Scope
from shoal_server.testing.quiet_worlds import Nature, QuietFleet
from shoal_server.testing.watched_fleet import WatchedFleet

WEATHER = Nature(
    name="shared weather", features=("normal", "skewed", "confidence"), devices=9,
    wobble_sd=0.1, memory=0.5, shared_sd=0.2, shared_memory=0.8,
)  # fmt: skip


def watched(nature: Nature, seed: int) -> WatchedFleet:
    fleet = WatchedFleet(QuietFleet(nature, seed=seed), season=nature.season, windows_a_day=nature.windows_a_day)
    return fleet.learn()


@pytest.mark.parametrize("seed", [0, 1])
def test_what_is_hardly_ever_there_raises_no_alarm_by_single_values(seed: int) -> None:
    sparse = Nature(name="sparse", features=("normal", "hardly_there"), devices=12)
    assert not watched(sparse, seed).run(100).first


@pytest.mark.parametrize("seed", [106, 109, 115])
def test_weather_that_all_devices_share_is_no_drift(seed: int) -> None:
    assert not watched(WEATHER, seed).run(45).first


def test_a_fleet_in_weather_learns_on_and_finds_what_drifts_meanwhile() -> None:
    fleet = watched(WEATHER, 104)
    streams = fleet.watch.state.fleet
    learnt = streams.windows[0]
    assert fleet.run(20).watch.state.fleet.windows[0] == learnt + 20
    everybody = {device: {"normal": 2.0} for device in range(9)}
    fleet.run(25, everybody)
    assert (Scope.FLEET, "fleet", "normal") in fleet.first
    stopped = fleet.watch.state.fleet.windows[0]
    assert fleet.run(5, everybody).watch.state.fleet.windows[0] == stopped  # a drift is never learnt as the usual


def test_a_fleet_changes_as_far_as_the_devices_do_that_have_the_sensor() -> None:
    fleet = WatchedFleet(QuietFleet(Nature(name="lacking", features=("normal", "skewed"), devices=12, sites=2), seed=8))
    where = fleet.fleet.reference.spec.slice("skewed")

    def half_without(cells, _rows) -> None:
        cells[6:, where.start] = cells[6:, where].sum(axis=1)
        cells[6:, where.start + 1 : where.stop] = 0

    fleet.run(fleet.rules.baseline_windows + 2, forge=half_without)
    fleet.run(8, {device: {"skewed": 2.0} for device in range(6)}, forge=half_without)
    assert {finding.scope for finding in fleet.told} == {Scope.FLEET}
    assert fleet.watch.state.fleet.values[0, Field.CHANGE, 1, 0] > 1.2  # of 1.4, and half of it if all were counted


def test_a_stream_that_a_device_can_not_count_now_and_then_is_no_evidence() -> None:
    """The device's own level is far from the training data's, which stand in for no rows at all nowhere."""
    fleet = WatchedFleet(QuietFleet(Nature(name="odd", features=("normal", "skewed"), devices=6, rows=60.0), seed=2))
    where = fleet.fleet.reference.spec.slice("skewed")

    def now_and_then(cells, _rows) -> None:
        if fleet.at % 3 == 2:
            cells[0, where] = 0

    far = {0: {"skewed": -1.5}}
    fleet.run(fleet.rules.baseline_windows + 2, far)
    fleet.run(40, far, forge=now_and_then)
    assert not fleet.first


def test_the_first_windows_of_a_gross_fault_are_not_learnt() -> None:
    """A whole site changes far, in a fleet whose baselines still grow: it is found at once, and stays found."""
    nature = Nature(name="uneven", features=("normal", "skewed"), rows=60.0, rows_sd=1.5, wobble_sd=0.1, memory=0.5)
    fleet = watched(nature, 5)
    site = fleet.fleet.members("site=s1")
    fleet.run(9, {device: {"normal": 1.5} for device in site})
    assert {(finding.scope, finding.name) for finding in fleet.told} == {(Scope.COHORT, "site=s1")}
    assert (Scope.COHORT, "site=s1", "normal") in fleet.watch.alarms
