"""A simulated fleet under watch: what alarms, what does not, and who is blamed."""

import copy
from collections.abc import Callable, Iterable, Mapping

import numpy as np
import pytest

from shoal_server.drift.alarms import Alarm, AlarmState
from shoal_server.drift.baselines import threshold
from shoal_server.drift.localise import Finding
from shoal_server.drift.monitor_state import Field, MonitorState, Scope
from shoal_server.drift.rules import Rules
from shoal_server.drift.watch import Counts, Role, Watch, Yardstick
from shoal_server.statistics.views import View
from shoal_server.testing.drift_fleet import SimulatedFleet, training_reference

Shifts = Mapping[int, Mapping[str, float]]
REFERENCE = training_reference()
YARDSTICK = Yardstick.of(REFERENCE)
BASELINE = 50


def alike(devices: Iterable[int], shift: Mapping[str, float]) -> Shifts:
    return {device: shift for device in devices}  # noqa: C420 - nobody changes it


class Watched:
    """A fleet and the watch over it; counts windows, keeps what people were told."""

    def __init__(self, fleet: SimulatedFleet, rules: Rules | None = None) -> None:
        self.fleet, self.rules = fleet, rules or Rules()
        state = MonitorState.empty(YARDSTICK.layout.streams)
        self.watch = Watch("reader", "sha256:aa", 1000, state, np.zeros(YARDSTICK.layout.size))
        self.at = 0
        self.ever: dict[tuple[str, str, str], int] = {}
        self.told: list[Finding] = []
        self.gaps: dict[int, np.ndarray] = {}
        self.most: dict[Scope, float] = dict.fromkeys(Scope, 0.0)

    def run(
        self,
        windows: int,
        shifts: Shifts | None = None,
        forge: Callable[[np.ndarray, np.ndarray], None] | None = None,
        present: slice = slice(None),
    ) -> "Watched":
        for _ in range(windows):
            cells, rows = self.fleet.window(shifts), np.full(self.fleet.devices, self.fleet.rows)
            if forge is not None:
                forge(cells, rows)
            counts = Counts(self.fleet.names[present], rows[present], cells[present])
            notices = self.watch.close(
                self.at, counts, yardstick=YARDSTICK, cohorts=self.fleet.cohorts, rules=self.rules
            )
            for notice in notices:
                if notice.gap is not None:
                    self.gaps[self.at] = notice.gap.beyond
                if notice.finding is not None:
                    self.told.append(notice.finding)
                    self.watch.told(notice.finding, f"{notice.finding.scope}:{notice.finding.name}")
            for key in self.watch.alarms:
                self.ever.setdefault(key, self.at)
            for scope in Scope:
                r = self.watch.state.level(scope).values[:, Field.R]
                most = (r.sum(axis=(1, 2)) if scope is Scope.FLEET else r).max(initial=0.0)
                self.most[scope] = max(self.most[scope], most / threshold(self.watch.state, scope, self.rules))
            self.at += 1
        return self

    def alarms(self, scope: Scope) -> list[Alarm]:
        return [alarm for alarm in self.watch.alarms.values() if alarm.scope is scope]


@pytest.fixture(scope="module")
def after_baseline() -> Watched:
    return Watched(SimulatedFleet(seed=6)).run(BASELINE)


@pytest.fixture
def watched(after_baseline: Watched) -> Watched:
    """Thirty devices at three sites, with whole baselines."""
    return copy.deepcopy(after_baseline)


def test_a_quiet_fleet_with_slowly_moving_devices_is_not_alarmed() -> None:
    watched = Watched(SimulatedFleet(wobble_sd=0.15, memory=0.5, seed=1)).run(150)
    assert watched.ever == {}
    assert max(watched.most.values()) < 0.3


@pytest.mark.parametrize("seed", [5003, 5010])
def test_a_baseline_of_windows_that_follow_each_other_counts_as_fewer(seed: int) -> None:
    fleet = SimulatedFleet(rows=80, wobble_sd=0.15, memory=0.8, seed=seed)
    assert Watched(fleet).run(BASELINE + 60).ever == {}


@pytest.mark.slow
@pytest.mark.parametrize(("seed", "memory"), [(2, 0.0), (3, 0.5), (4, 0.8)])
def test_three_thousand_quiet_windows(seed: int, memory: float) -> None:
    watched = Watched(SimulatedFleet(wobble_sd=0.15 if memory else 0.0, memory=memory, seed=seed)).run(3000)
    assert watched.ever == {}


def test_a_site_at_half_a_standard_deviation_is_found_within_a_few_windows() -> None:
    fleet = SimulatedFleet(devices=60, rows=20, seed=5)
    watched = Watched(fleet).run(BASELINE)
    watched.run(4, alike(fleet.members("site=s1"), {"normal": 0.5}))
    assert watched.ever[Scope.COHORT, "site=s1", "normal"] <= BASELINE + 2
    alarm = watched.watch.alarms[Scope.COHORT, "site=s1", "normal"]
    assert alarm.view is View.LOCATION
    assert BASELINE - 1 <= alarm.onset <= BASELINE + 1


def test_a_site_is_blamed_and_not_its_devices_or_the_others(watched: Watched) -> None:
    fleet = watched.fleet
    foggy = fleet.members("site=s2")
    watched.run(12, alike(foggy, {"normal": 2.0, "gaps": 2.0}))
    assert {(finding.scope, finding.name) for finding in watched.told} == {(Scope.COHORT, "site=s2")}
    roles = watched.watch.roles()
    causes = {key[:2] for key, (role, _) in roles.items() if role is Role.CAUSE}
    assert causes == {(Scope.COHORT, "site=s2")}
    named = {key[2] for key, (role, _) in roles.items() if role is Role.CAUSE}
    assert named == {"normal", "gaps"}
    blamed_devices = {alarm.name for alarm in watched.alarms(Scope.DEVICE)}
    assert blamed_devices <= {fleet.names[at] for at in foggy}


def test_one_device_is_a_bad_sensor(watched: Watched) -> None:
    watched.run(10, {4: {"normal": 2.5}})
    assert [(finding.scope, finding.name) for finding in watched.told] == [(Scope.DEVICE, "cam-004")]
    assert "sensor" in watched.told[0].cause
    assert not watched.alarms(Scope.FLEET)
    assert not watched.alarms(Scope.COHORT)


def test_when_all_devices_change_alike_the_world_has_changed(watched: Watched) -> None:
    watched.run(6, alike(range(30), {"normal": 0.7}))
    assert {(finding.scope, finding.name) for finding in watched.told} == {(Scope.FLEET, "fleet")}
    assert watched.told[0].alarms[0].feature == "normal"
    assert "world" in watched.told[0].cause
    assert not watched.alarms(
        Scope.DEVICE
    )  # each of them moved by three standard deviations, and none against the fleet


def test_missing_values_of_a_site_are_found_as_missing(watched: Watched) -> None:
    watched.run(8, alike(watched.fleet.members("site=s0"), {"missing": 0.2}))
    alarm = watched.watch.alarms[Scope.COHORT, "site=s0", "gaps"]
    assert alarm.view is View.MISSING


def test_an_alarm_latches_and_ends_some_windows_after_its_cause(watched: Watched) -> None:
    watched.run(6, alike(watched.fleet.members("site=s1"), {"normal": 1.0}))
    key = (Scope.COHORT, "site=s1", "normal")
    assert watched.watch.alarms[key].state is AlarmState.LATCHED
    watched.run(3)
    assert key in watched.watch.alarms
    watched.run(40)
    assert key not in watched.watch.alarms
    assert len(watched.told) == 1


def test_when_a_site_recovers_its_devices_are_not_told_of_one_by_one(watched: Watched) -> None:
    watched.run(20, alike(watched.fleet.members("site=s1"), {"normal": 3.0, "gaps": 3.0})).run(40)
    assert {(finding.scope, finding.name) for finding in watched.told} == {(Scope.COHORT, "site=s1")}
    assert watched.watch.alarms == {}


def test_a_forger_with_a_huge_count_moves_nothing(watched: Watched) -> None:
    def forge(cells: np.ndarray, rows: np.ndarray) -> None:
        cells[0] = 0
        last = np.append(YARDSTICK.layout.starts[1:], YARDSTICK.layout.size) - 1
        cells[0, last], rows[0] = 10**12, 10**12

    watched.run(20, forge=forge)
    assert {alarm.name for alarm in watched.watch.alarms.values()} == {"cam-000"}
    assert {(finding.scope, finding.name) for finding in watched.told} == {(Scope.DEVICE, "cam-000")}
    assert watched.watch.live.max() < 1e5
    fleet = watched.watch.state.fleet.values[0]
    assert np.abs(fleet[Field.CHANGE, 0, 0]) < 0.2


def test_a_forger_does_not_hide_a_real_drift() -> None:
    def forge(cells: np.ndarray, rows: np.ndarray) -> None:
        rows[0], cells[0] = 10**12, cells[0] * (10**12 // 20)

    fleet = SimulatedFleet(seed=12)
    site = alike(fleet.members("site=s0"), {"normal": 1.0})
    watched = Watched(fleet).run(BASELINE, forge=forge).run(5, site, forge=forge)
    assert (Scope.COHORT, "site=s0", "normal") in watched.watch.alarms


def test_devices_that_come_and_go_are_no_drift() -> None:
    fleet = SimulatedFleet(offset_sd=1.5, seed=13)
    watched = Watched(fleet).run(BASELINE).run(15, present=slice(0, 20)).run(15, present=slice(10, 30)).run(15)
    assert watched.ever == {}


def test_under_five_devices_only_the_device_level_runs() -> None:
    watched = Watched(SimulatedFleet(devices=4, sites=2, seed=14)).run(BASELINE).run(8, {1: {"normal": 2.0}})
    assert watched.watch.state.fleet.names == []
    assert watched.watch.state.cohorts.names == []
    assert {(alarm.name, alarm.feature) for alarm in watched.watch.alarms.values()} == {("cam-001", "normal")}


def test_a_fleet_that_doubles_learns_anew_at_the_upper_levels_only() -> None:
    watched = Watched(SimulatedFleet(seed=15)).run(BASELINE, present=slice(0, 10))
    assert watched.watch.state.fleet.windows[0] >= 36
    watched.run(13)
    assert watched.watch.state.fleet.windows[0] <= 2
    assert (watched.watch.state.devices.windows[:10] == 48).all()
    watched.run(60)
    assert watched.watch.state.fleet.windows[0] >= 36
    assert watched.ever == {}


def test_windows_with_few_rows_are_not_judged() -> None:
    fleet = SimulatedFleet(rows=9, seed=16)
    watched = Watched(fleet).run(5)
    assert watched.watch.state.devices.names == []
    assert watched.watch.watermark == 4


def test_the_state_survives_its_form_as_bytes() -> None:
    watched = Watched(SimulatedFleet(devices=6, seed=17)).run(20)
    streams = watched.watch.state.devices
    dumps = [(name, streams.dump(at)) for at, name in enumerate(streams.names)]
    loaded = type(streams).load(streams.features, dumps)
    assert loaded.names == streams.names
    assert np.array_equal(loaded.values, streams.values)
    assert np.array_equal(loaded.windows, streams.windows)
    assert np.array_equal(loaded.latest, streams.latest)


def test_observing_leaves_the_state_before_as_it_was() -> None:
    watched = Watched(SimulatedFleet(devices=6, seed=18)).run(20)
    before = watched.watch.state
    kept = before.devices.values.copy()
    watched.run(1)
    assert np.array_equal(before.devices.values, kept)


def test_the_order_of_the_devices_does_not_matter() -> None:
    def last_state(order: slice) -> dict[str, np.ndarray]:
        fleet = SimulatedFleet(seed=19)
        watched = Watched(fleet)
        for at in range(55):
            cells, rows = fleet.window(), np.full(fleet.devices, fleet.rows)
            counts = Counts(fleet.names[order], rows[order], cells[order])
            watched.watch.close(at, counts, yardstick=YARDSTICK, cohorts=fleet.cohorts, rules=watched.rules)
        streams = watched.watch.state.devices
        return {name: streams.values[at, Field.R] for at, name in enumerate(streams.names)}

    forward, backward = last_state(slice(None)), last_state(slice(None, None, -1))
    assert all(forward[name] == pytest.approx(backward[name], rel=1e-6) for name in forward)


@pytest.mark.parametrize("devices", [2, 20])
def test_values_that_training_never_saw_are_told_before_a_baseline_takes_them_for_the_usual(devices: int) -> None:
    fleet = SimulatedFleet(seed=3, devices=devices)
    watched = Watched(fleet).run(16, alike(range(devices), {"normal": 3.0}))
    told = {name for at, name in enumerate(YARDSTICK.layout.names) if any(gap[at] for gap in watched.gaps.values())}
    assert (list(watched.gaps), told) == ([11], {"normal"})


@pytest.mark.parametrize("devices", [2, 20])
def test_a_small_gap_waits_for_the_baseline_and_none_is_never_told(devices: int) -> None:
    quiet = Watched(SimulatedFleet(seed=4, devices=devices)).run(70)
    assert (quiet.gaps, quiet.watch.gap_told) == ({}, True)
    some = Watched(SimulatedFleet(seed=4, devices=devices)).run(70, alike(range(devices), {"normal": 0.9}))
    assert list(some.gaps) == [47]
