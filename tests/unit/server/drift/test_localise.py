"""Attribution alone, with given sizes of change."""

import pytest

from shoal_server.drift.alarms import Alarm
from shoal_server.drift.localise import excluded_by, localise, suspected_cause
from shoal_server.drift.monitor_state import Scope
from shoal_server.statistics.views import View

COHORTS = {
    "site=bern": frozenset({"a", "b", "c"}),
    "site=chur": frozenset({"d", "e", "f"}),
    "arch=arm64": frozenset({"a", "b", "c", "d"}),
}


def alarm(scope: Scope, name: str, feature: str = "x", component: int = 0) -> Alarm:
    return Alarm(scope=scope, name=name, feature=feature, component=component, view=View.LOCATION, onset=5, raised=6)


def found(*alarms: tuple[Alarm, float], alike: bool = False) -> dict[str, tuple[set[str], set[str]]]:
    sizes = {one.key: size for one, size in alarms}
    findings = localise(
        {one.key: one for one, _ in alarms},
        cohorts=COHORTS,
        change=lambda one, _component: sizes[one.key],
        alike=lambda _alarm: alike,
    )
    return {
        finding.name: ({one.name for one in finding.follows}, {one.name for one in finding.contrast})
        for finding in findings
    }


FLEET, BERN, CHUR, ARM = (
    alarm(Scope.FLEET, "fleet"),
    alarm(Scope.COHORT, "site=bern"),
    alarm(Scope.COHORT, "site=chur"),
    alarm(Scope.COHORT, "arch=arm64"),
)


def test_nothing_is_explained_by_nothing() -> None:
    assert found() == {}


def test_a_device_alone() -> None:
    assert found((alarm(Scope.DEVICE, "a"), 2.0)) == {"a": (set(), set())}


def test_a_cohort_explains_its_devices_and_not_those_of_others() -> None:
    assert found((BERN, 1.0), (alarm(Scope.DEVICE, "b"), 1.2), (alarm(Scope.DEVICE, "f"), -2.0)) == {
        "site=bern": ({"b"}, set()),
        "f": (set(), set()),
    }


def test_the_cohort_that_changed_most_explains_those_it_overlaps() -> None:
    assert found((ARM, 0.7), (BERN, 1.0)) == {"site=bern": ({"arch=arm64"}, set())}


def test_a_cohort_that_only_stands_out_against_another_is_no_cause() -> None:
    assert found((BERN, 1.0), (CHUR, -0.1)) == {"site=bern": (set(), {"site=chur"})}


def test_two_cohorts_may_both_have_changed() -> None:
    assert found((BERN, 1.0), (CHUR, -0.9)) == {"site=bern": (set(), set()), "site=chur": (set(), set())}


def test_the_fleet_explains_everything_when_all_have_changed_alike() -> None:
    device = alarm(Scope.DEVICE, "a")
    assert found((FLEET, 1.0), (BERN, 1.2), (device, 1.1), alike=True) == {"fleet": ({"site=bern", "a"}, set())}


def test_a_fleet_of_which_most_has_not_changed_follows_from_a_cohort() -> None:
    assert found((FLEET, 0.3), (BERN, 1.0)) == {"site=bern": ({"fleet"}, set())}


def test_features_are_attributed_one_by_one_and_told_together() -> None:
    y = alarm(Scope.COHORT, "site=bern", "y")
    sizes = {BERN.key: 0.5, y.key: 2.0}
    (finding,) = localise(
        {BERN.key: BERN, y.key: y},
        cohorts=COHORTS,
        change=lambda one, _component: sizes[one.key],
        alike=lambda _alarm: False,
    )
    assert [one.feature for one in finding.alarms] == ["y", "x"]


def test_who_is_known_to_differ_is_no_part_of_the_bulk() -> None:
    findings = localise(
        {BERN.key: BERN, FLEET.key: alarm(Scope.FLEET, "fleet", "y")},
        cohorts=COHORTS,
        change=lambda *_: 1.0,
        alike=bool,
    )
    excluded = excluded_by(findings, devices=["a", "d", "c"], features=["y", "x"], cohorts=COHORTS)
    assert excluded.tolist() == [[False, True], [False, False], [False, True]]


@pytest.mark.parametrize(
    ("scope", "name", "word"),
    [
        (Scope.FLEET, "fleet", "world"),
        (Scope.COHORT, "site=bern", "place"),
        (Scope.COHORT, "arch=arm64", "hardware"),
        (Scope.COHORT, "agent=1.2", "version"),
        (Scope.COHORT, "owner=x", "share"),
        (Scope.DEVICE, "cam-7", "sensor"),
    ],
)
def test_causes_are_told_in_words(scope: Scope, name: str, word: str) -> None:
    assert word in suspected_cause(scope, name)
