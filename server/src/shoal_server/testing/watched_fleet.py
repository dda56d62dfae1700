"""A simulated fleet and the watch over it, window by window: what alarmed, when, and what was told. For evidence.

Owns the worlds that rows come from: a quiet fleet with lasting offsets, slowly moving ones and a day, and the faults
that can be injected. Leaves the rows to `drift_fleet`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from shoal_server.drift.localise import Finding
from shoal_server.drift.monitor_state import MonitorState, Scope
from shoal_server.drift.rules import Rules
from shoal_server.drift.season import DAY_MS, Season, terms
from shoal_server.drift.watch import Counts, Watch, Yardstick
from shoal_server.testing.drift_fleet import SimulatedFleet

Shift = Mapping[str, float]
Forge = Callable[[npt.NDArray[np.int64], npt.NDArray[np.int64]], None]


@dataclass
class WatchedFleet:
    """One fleet under watch.

    Attributes:
        fleet: The devices.
        season: What the watch takes the season to be.
        windows_a_day: So many windows make a day.
        sun: Height of the day's wave that all devices follow, in standard deviations.
        rules: Of the watch.
        guilty: Devices whose own alarms are no false ones.
    """

    fleet: SimulatedFleet
    season: Season = Season.NONE
    windows_a_day: int = 24
    sun: float = 0.0
    rules: Rules = field(default_factory=Rules)
    guilty: frozenset[str] = frozenset()

    def __post_init__(self) -> None:
        self.bucket_ms = DAY_MS // self.windows_a_day
        self.rules = self.rules.in_season(self.season, bucket_ms=self.bucket_ms)
        self.yardstick = Yardstick.of(self.fleet.reference)
        layout = self.yardstick.layout
        state = MonitorState.empty(layout.streams, terms=terms(self.season))
        self.watch = Watch("reader", "sha256:aa", self.bucket_ms, state, np.zeros(layout.size), season=self.season)
        self.at = 0
        self.alarmed: dict[Scope, int] = dict.fromkeys(Scope, 0)
        """Windows in which something new alarmed, by level."""
        self.first: dict[tuple[str, str, str], int] = {}
        """Window in which each scope and feature alarmed first."""
        self.told: list[Finding] = []

    def run(
        self, windows: int, shifts: Mapping[int, Shift] | None = None, *, forge: Forge | None = None
    ) -> WatchedFleet:
        """Carry some windows through.

        Args:
            windows: How many.
            shifts: For some devices: feature name -> shift, see `SimulatedFleet.window`.
            forge: Changes cells, shape (D, size), and rows, shape (D,), in place: a fault or a lie.
        """
        for _ in range(windows):
            before = set(self.watch.alarms)
            cells = self.fleet.window(self._shifts(shifts or {}))
            rows = self.yardstick.layout.sums(cells)[:, 0]
            if forge is not None:
                forge(cells, rows)
            notices = self.watch.close(
                self.at,
                Counts(self.fleet.names, rows, cells),
                yardstick=self.yardstick,
                cohorts=self.fleet.cohorts,
                rules=self.rules,
            )
            for notice in notices:
                if notice.finding is not None:
                    self.told.append(notice.finding)
                    self.watch.told(notice.finding, f"{notice.finding.scope}:{notice.finding.name}")
            new = set(self.watch.alarms) - before
            for scope in {key[0] for key in new if key[1] not in self.guilty}:
                self.alarmed[scope] += 1
            for key in new:
                self.first.setdefault(key, self.at)
            self.at += 1
        return self

    def learn(self) -> WatchedFleet:
        """Run until all baselines are whole."""
        return self.run(self.rules.baseline_windows + 2)

    def _shifts(self, shifts: Mapping[int, Shift]) -> Mapping[int, Shift]:
        if not self.sun:
            return shifts
        wave = self.sun * float(np.sin(2 * np.pi * self.at / self.windows_a_day))
        every = {device: {"normal": wave, "gaps": wave} for device in range(self.fleet.devices)}
        for device, shift in shifts.items():
            for name, amount in shift.items():
                every[device][name] = every[device].get(name, 0.0) + amount
        return every
