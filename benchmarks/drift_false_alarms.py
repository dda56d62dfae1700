# ruff: noqa: E402 - imports follow the path that they need
"""False alarms of the drift rules over long quiet runs: offsets, autocorrelated rows, seasons, forgers; by level.

Each world runs a fleet of 30 devices at 3 sites through thousands of windows in which nothing drifts, and counts the
windows in which something new alarms; a forger's own alarm is no false one. Then come quiet worlds in which much goes
on, such as weather that all share, with a fresh fleet, and so a fresh baseline, for each 300 windows, and fleets that
are promised far less. Beside it stands what "JS > 0.1" would say.
``--full`` runs 30,000 windows in all, without it a tenth; ``--seed N`` draws other worlds.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent
# Behind everything else: this folder has files named like modules of the standard library.
sys.path[:] = [entry for entry in sys.path if Path(entry).resolve() != HERE] + [str(HERE)]

import numpy as np
import numpy.typing as npt

from frame import Row, compared, options, run
from shoal_server.drift.monitor_state import Scope
from shoal_server.drift.rules import Rules
from shoal_server.drift.season import Season
from shoal_server.statistics.divergence import jensen_shannon
from shoal_server.testing.drift_fleet import SimulatedFleet
from shoal_server.testing.quiet_worlds import WORLDS as QUIET_WORLDS
from shoal_server.testing.quiet_worlds import QuietFleet
from shoal_server.testing.watched_fleet import WatchedFleet

WORLDS_OF_FULL = 30_000
TARGET = 1.0
WINDOWS_OF_A_FLEET = 300
WINDOWS_WHERE_LESS_IS_PROMISED = 200


@dataclass(frozen=True)
class World:
    """A quiet world, and how the fleet in it is watched."""

    name: str
    wobble_sd: float = 0.0
    memory: float = 0.0
    sun: float = 0.0
    season: Season = Season.NONE
    forged: bool = False


WORLDS = (
    World("offsets"),
    World("autocorrelated 0.5", wobble_sd=0.15, memory=0.5),
    World("autocorrelated 0.8", wobble_sd=0.15, memory=0.8),
    World("days, learnt", wobble_sd=0.1, memory=0.5, sun=0.5, season=Season.DAY),
    World("a forger of 1e12 rows", wobble_sd=0.15, memory=0.5, forged=True),
)


def forge(cells: npt.NDArray[np.int64], rows: npt.NDArray[np.int64]) -> None:
    """One device claims very many rows, spread as always."""
    cells[0] *= 10**10
    rows[0] *= 10**10


def rows(*, windows: int, seed: int) -> Iterator[Row]:
    each = windows // len(WORLDS)
    total = dict.fromkeys(Scope, 0)
    judged = 0
    for number, world in enumerate(WORLDS):
        fleet = SimulatedFleet(seed=1000 * seed + number, wobble_sd=world.wobble_sd, memory=world.memory)
        guilty = frozenset(fleet.names[:1] if world.forged else ())
        watched = WatchedFleet(fleet, season=world.season, sun=world.sun, guilty=guilty)
        liar = forge if world.forged else None
        watched.run(watched.rules.baseline_windows + 2, forge=liar)
        watched.run(each, forge=liar)
        judged += each
        for scope in Scope:
            total[scope] += watched.alarmed[scope]
        alarms = ", ".join(f"{scope} {watched.alarmed[scope]}" for scope in Scope)
        yield Row(f"{world.name}: {each:,} windows ({alarms})", float(sum(watched.alarmed.values())), "alarms")
    for scope in Scope:
        yield compared(
            f"{scope}: false alarms in 10,000 of {judged:,} windows", total[scope] * 1e4 / judged, "", at_most=TARGET
        )
    yield from _where_much_goes_on(fleets=max(1, windows // WORLDS_OF_FULL * 10), seed=seed)
    yield from _where_less_is_promised(fleets=max(1, windows // WORLDS_OF_FULL * 12), seed=seed)
    yield _fixed_threshold(seed)


def _where_much_goes_on(*, fleets: int, seed: int) -> Iterator[Row]:
    for nature in QUIET_WORLDS:
        alarmed = dict.fromkeys(Scope, 0)
        for number in range(fleets):
            fleet = QuietFleet(nature, seed=1000 * seed + number)
            watched = WatchedFleet(fleet, season=nature.season, windows_a_day=nature.windows_a_day)
            watched.learn().run(WINDOWS_OF_A_FLEET)
            for scope in Scope:
                alarmed[scope] += watched.alarmed[scope]
        alarms = ", ".join(f"{scope} {count}" for scope, count in alarmed.items())
        name = f"{nature.name}: {fleets * WINDOWS_OF_A_FLEET:,} windows of {fleets} fleets ({alarms})"
        yield Row(name, float(sum(alarmed.values())), "alarms")


def _where_less_is_promised(*, fleets: int, seed: int) -> Iterator[Row]:
    """How many windows alarm where one in 20, or every one, may: how far the promise of 10,000 is kept."""
    for promised in (20.0, 1.0):
        alarmed = dict.fromkeys(Scope, 0)
        for world in WORLDS[:2]:
            for number in range(fleets):
                fleet = SimulatedFleet(seed=9000 * seed + number, wobble_sd=world.wobble_sd, memory=world.memory)
                watched = WatchedFleet(fleet, rules=Rules(mean_time_to_false_alarm=promised)).learn()
                learnt = dict(watched.alarmed)
                watched.run(WINDOWS_WHERE_LESS_IS_PROMISED)
                for scope in Scope:
                    alarmed[scope] += watched.alarmed[scope] - learnt[scope]
        alarms = ", ".join(f"{scope} {count}" for scope, count in alarmed.items())
        judged = 2 * fleets * WINDOWS_WHERE_LESS_IS_PROMISED
        name = f"one in {promised:g} windows promised: {judged:,} windows ({alarms})"
        yield Row(name, float(sum(alarmed.values())), "alarms")


def _fixed_threshold(seed: int) -> Row:
    """How often a quiet device's window of 200 rows exceeds a JS distance of 0.1 from the reference."""
    fleet = SimulatedFleet(devices=50, rows=200, offset_sd=0.0, seed=seed)
    layout = WatchedFleet(fleet).yardstick.layout
    distance = np.sqrt(jensen_shannon(layout, fleet.reference.profile.cells[None], fleet.window()) / np.log(2))
    share = float((distance > 0.1).any(axis=1).mean())
    return Row("JS distance > 0.1 in any stream, quiet windows of 200 rows", 100 * share, "%")


if __name__ == "__main__":
    said = options()
    run("drift_false_alarms", rows(windows=WORLDS_OF_FULL if said.full else WORLDS_OF_FULL // 10, seed=said.seed))
