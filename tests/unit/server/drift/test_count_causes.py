"""Causes that a fleet's counts suggest: each fault is injected into a simulated fleet, and must be named."""

import copy

import numpy as np
import numpy.typing as npt
import pytest

from shoal_server.drift.alarms import Alarm
from shoal_server.drift.monitor_state import Scope
from shoal_server.testing.drift_fleet import SimulatedFleet
from shoal_server.testing.watched_fleet import Forge, WatchedFleet

VICTIM = 7
Cells = npt.NDArray[np.int64]


def stuck(cells: Cells) -> None:
    total, middle = cells.sum(), cells.size // 2
    cells[:] = 0
    cells[middle] = total


def half_stuck(cells: Cells) -> None:
    half, middle = cells // 2, cells.size // 2
    cells -= half
    cells[middle] += half.sum()


def other_unit(cells: Cells) -> None:
    total = cells.sum()
    cells[:] = 0
    cells[-1] = total


def saturated(cells: Cells) -> None:
    middle = cells.size // 2
    cells[middle] += cells[middle + 1 :].sum()
    cells[middle + 1 :] = 0


def gone(cells: Cells) -> None:
    total = cells.sum()
    cells[:] = 0
    cells[0] = total


def half_gone(cells: Cells) -> None:
    half = cells // 2
    cells -= half
    cells[0] += half.sum()


def unknown(cells: Cells) -> None:
    half = cells // 2
    cells -= half
    cells[1] += half.sum()


def some_less(cells: Cells) -> None:
    cells[-1] += cells[2:6].sum()
    cells[2:6] = 0


@pytest.fixture(scope="module")
def learnt() -> WatchedFleet:
    return WatchedFleet(SimulatedFleet(rows=60, seed=31)).learn()


@pytest.fixture
def fleet(learnt: WatchedFleet) -> WatchedFleet:
    return copy.deepcopy(learnt)


@pytest.mark.parametrize(
    ("fault", "feature", "words"),
    [
        (stuck, "normal", "stuck: nearly all values lie at"),
        (half_stuck, "normal", "stuck: "),
        (other_unit, "normal", "unit change or broken sensor: 100 % of values are above"),
        (saturated, "normal", "saturation: "),
        (gone, "gaps", "missing source: nearly every value is missing"),
        (half_gone, "gaps", "missing source: missing values rose from"),
        (unknown, "label", "new category: "),
        (some_less, "label", "missing category: "),
    ],
)
def test_an_injected_fault_of_one_device_is_named(fleet: WatchedFleet, fault, feature: str, words: str) -> None:
    alarm = alarm_of(fleet, inject(fault, feature, fleet), feature)
    assert alarm.hint.startswith(words)
    finding = next(finding for finding in fleet.watch.findings if finding.name == fleet.fleet.names[VICTIM])
    assert "look at its sensor" in finding.cause


def inject(fault, feature: str, fleet: WatchedFleet) -> Forge:
    where = fleet.fleet.reference.spec.slice(feature)
    return lambda cells, _rows: fault(cells[VICTIM, where])


def alarm_of(fleet: WatchedFleet, forge: Forge, feature: str) -> Alarm:
    for _ in range(20):
        fleet.run(1, forge=forge)
        alarm = fleet.watch.alarms.get((Scope.DEVICE, fleet.fleet.names[VICTIM], feature))
        if alarm is not None:
            return alarm
    raise AssertionError("the fault raised no alarm")
