"""A seeded sweep over fleets that drift and fleets that don't: false alarms, delays, and whether the cause is named.

    make campaign NAME=drift POINTS=200 SEED=7

Each point draws a fleet (rows, offsets, how rows resemble each other, a season or none) and a story: nothing at all, or
a fault of one device, a site or everybody. A quiet fleet is watched for 300 windows after its baseline; a drifting one
until it alarms, at most 60. A point fails when a quiet fleet alarms, when a drift is not found, when somebody else is
blamed for it, or when its words name another fault. A flawed rule, without tolerance and with a threshold of nothing,
must be caught, or the sweep proves nothing.

Writes ``benchmarks/results/campaign-drift.json`` after every point; a sweep of the same seed and points that was
interrupted goes on where it stopped.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from shoal_server.drift.monitor_state import Scope
from shoal_server.drift.rules import Rules
from shoal_server.drift.season import Season
from shoal_server.testing.drift_fleet import SimulatedFleet
from shoal_server.testing.watched_fleet import WatchedFleet

RESULT = Path(__file__).resolve().parents[2] / "benchmarks" / "results" / "campaign-drift.json"
QUIET_WINDOWS, LONGEST_DELAY, CONFIRMED = 300, 60, 4
FLAWED = Rules(mean_time_to_false_alarm=1.0, tolerance=-1.0)
TOLERATED = 1 / 10
"""Share of points that may blame or name otherwise, one in ten; false alarms and misses are counted on their own."""

Edit = Callable[[npt.NDArray[np.int64], slice], None]


@dataclass(frozen=True)
class Fault:
    """Something that goes wrong in one feature.

    Attributes:
        name: As it is printed.
        feature: Of the simulated fleet.
        shift: Added to the rows, in standard deviations; for `missing` the share that is lost.
        word: What the explanation must hold.
        edit: Changes the counts of a device instead.
    """

    name: str
    feature: str
    word: str
    shift: Mapping[str, float] | None = None
    edit: Edit | None = None


def into_one_cell(cells: npt.NDArray[np.int64], where: slice) -> None:
    """Let the values get stuck in the middle."""
    middle = (where.start + where.stop) // 2
    total = cells[where].sum()
    cells[where] = 0
    cells[middle] = total


def above(cells: npt.NDArray[np.int64], where: slice) -> None:
    """Let all values leave the range upwards, as in another unit."""
    total = cells[where].sum()
    cells[where] = 0
    cells[where.stop - 1] = total


def saturated(cells: npt.NDArray[np.int64], where: slice) -> None:
    """Cut the values off at the middle."""
    middle = (where.start + where.stop) // 2
    cells[middle] += cells[middle + 1 : where.stop].sum()
    cells[middle + 1 : where.stop] = 0


def unknown(cells: npt.NDArray[np.int64], where: slice) -> None:
    """Let half of the values be a category that nobody knows."""
    half = cells[where] // 2
    cells[where] -= half
    cells[where.start + 1] += half.sum()


FAULTS = (
    Fault("shift", "normal", "shift", shift={"normal": 1.5}),
    Fault("missing source", "gaps", "missing source", shift={"missing": 0.7}),
    Fault("stuck", "normal", "stuck", edit=into_one_cell),
    Fault("unit", "normal", "unit", edit=above),
    Fault("saturation", "normal", "saturation", edit=saturated),
    Fault("new category", "label", "new category", edit=unknown),
)


@dataclass(frozen=True)
class Point:
    """One fleet and its story; `fault` None: a quiet one."""

    seed: int
    rows: int
    memory: float
    season: Season
    fault: Fault | None
    scope: Scope

    @classmethod
    def draw(cls, source: random.Random) -> Point:
        """Draw a point."""
        return cls(
            seed=source.randrange(2**31),
            rows=source.choice((20, 40, 80)),
            memory=source.choice((0.0, 0.5, 0.8)),
            season=source.choice((Season.NONE, Season.NONE, Season.DAY)),
            fault=None if source.random() < 0.3 else source.choice(FAULTS),
            scope=source.choice(list(Scope)),
        )

    def fleet(self, rules: Rules) -> WatchedFleet:
        """Return the fleet with whole baselines."""
        wobble = 0.15 if self.memory else 0.0
        simulated = SimulatedFleet(rows=self.rows, wobble_sd=wobble, memory=self.memory, seed=self.seed)
        sun = 0.4 if self.season is Season.DAY else 0.0
        return WatchedFleet(simulated, season=self.season, sun=sun, rules=rules).learn()

    def victims(self, watched: WatchedFleet) -> tuple[str, Iterable[int]]:
        """Return who is to blame, and where the devices lie."""
        if self.scope is Scope.FLEET:
            return "fleet", range(watched.fleet.devices)
        if self.scope is Scope.COHORT:
            return "site=s1", watched.fleet.members("site=s1")
        return watched.fleet.names[7], [7]


def judge(point: Point, rules: Rules) -> dict[str, Any]:
    """Run a point; returns its outcome."""
    watched = point.fleet(rules)
    told: dict[str, Any] = {
        "fault": "none" if point.fault is None else point.fault.name,
        "scope": point.scope.value,
        "season": point.season.value,
        "false_alarms": sum(watched.alarmed.values()),
    }
    if point.fault is None:
        watched.run(QUIET_WINDOWS)
        return {**told, "false_alarms": sum(watched.alarmed.values()), "failed": bool(watched.first)}
    name, devices = point.victims(watched)
    key, begin = (point.scope, name, point.fault.feature), watched.at
    while watched.at < begin + LONGEST_DELAY and key not in watched.first:
        run_one(watched, point.fault, devices)
    if key not in watched.first:
        return {**told, "delay": None, "failed": True}
    for _ in range(CONFIRMED):
        run_one(watched, point.fault, devices)
    blamed = {(finding.scope, finding.name) for finding in watched.told}
    alarm = watched.watch.alarms.get(key)
    hint = "" if alarm is None else alarm.hint
    right, named = blamed == {(point.scope, name)}, point.fault.word in hint
    return {
        **told,
        "delay": watched.first[key] - begin + 1,
        "blamed": sorted(f"{scope}:{who}" for scope, who in blamed),
        "hint": hint,
        "right": right,
        "named": named,
        "failed": not (right and named),
    }


def run_one(watched: WatchedFleet, fault: Fault, devices: Iterable[int]) -> None:
    """Carry one window of a fault through."""
    where = watched.fleet.reference.spec.slice(fault.feature)

    def forge(cells: npt.NDArray[np.int64], _rows: npt.NDArray[np.int64]) -> None:
        if fault.edit is not None:
            for device in devices:
                fault.edit(cells[device], where)

    shifts = {} if fault.shift is None else {device: dict(fault.shift) for device in devices}
    watched.run(1, shifts, forge=forge)


def main() -> int:
    """Run the sweep; 0 when it holds."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--points", type=int, default=150)
    parser.add_argument("--seed", type=int, default=1)
    said = parser.parse_args()
    source = random.Random(said.seed)
    points = [Point.draw(source) for _ in range(said.points)]
    done = _resumed(said.seed, said.points)
    for number, point in enumerate(points[len(done) :], start=len(done) + 1):
        done.append(judge(point, Rules()))
        _save(said.seed, said.points, done)
        if done[-1]["failed"]:
            print(f"point {number} of {len(points)}: {point} -> {done[-1]}", flush=True)
    caught = judge(Point(said.seed, 20, 0.5, Season.NONE, None, Scope.FLEET), FLAWED)["failed"]
    return _report(done, caught=caught)


def _report(done: list[dict[str, Any]], *, caught: bool) -> int:
    quiet = [one for one in done if one["fault"] == "none"]
    drifting = [one for one in done if one["fault"] != "none"]
    found = [one for one in drifting if one["delay"] is not None]
    delays = sorted(one["delay"] for one in found)
    early = sum(one["false_alarms"] for one in done)
    wrong = [one for one in found if one["failed"]]
    print(f"{len(quiet)} quiet fleets, {len(drifting)} that drift; false alarms: {early}")
    median, longest = (delays[len(delays) // 2], delays[-1]) if delays else (0, 0)
    print(f"found: {len(found)} of {len(drifting)}; delay in windows: median {median}, longest {longest}")
    print(f"blamed right: {sum(one['right'] for one in found)}, fault named: {sum(one['named'] for one in found)}")
    print(f"by fault, failed: {dict(Counter(one['fault'] for one in done if one['failed']))}")
    print("the flawed rule was caught" if caught else "THE FLAWED RULE WAS NOT CAUGHT")
    holds = caught and early <= 1 + len(done) // 50 and len(found) == len(drifting)
    return 0 if holds and len(wrong) <= TOLERATED * max(len(found), 1) else 1


def _resumed(seed: int, points: int) -> list[dict[str, Any]]:
    try:
        known = json.loads(RESULT.read_text())
    except (OSError, ValueError):
        return []
    same = (known.get("seed"), known.get("points")) == (seed, points) and len(known["done"]) < points
    return list(known["done"]) if same else []


def _save(seed: int, points: int, done: list[dict[str, Any]]) -> None:
    RESULT.parent.mkdir(exist_ok=True)
    RESULT.write_text(json.dumps({"seed": seed, "points": points, "done": done}, indent=1) + "\n")


if __name__ == "__main__":
    sys.exit(main())
