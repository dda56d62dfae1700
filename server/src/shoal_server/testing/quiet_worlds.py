"""Worlds in which nothing drifts and much goes on: uneven traffic, sleepers, shared weather, hard features.

Owns how values come about there: each row of a feature is a monotone function of one normal number, the device's level
of this window plus noise. Everything that moves a world (a device's own wobble, a site's, everybody's, days and weeks)
moves that level, and so all of its features together. Seeded; rows of all devices are drawn and counted at once.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt
from scipy import special

from shoal_protocol.profile.grid import (
    CategoricalGrid,
    Grid,
    fit_integer,
    fit_numeric,
    unit_interval_grid,
)
from shoal_protocol.profile.profile import ProfileSpec, Stream, summarise
from shoal_protocol.profile.reference import Reference
from shoal_server.drift.season import Season
from shoal_server.testing.drift_fleet import count_rows

Numbers = npt.NDArray[np.float64]
Draw = Callable[[np.random.Generator, Numbers, Numbers], Numbers]
"""Of random numbers, the rows' levels and their devices' coarseness (0 to 1): the rows' values."""

_ZIPF = 1 / np.arange(1, 201)
_ZIPF_UP_TO = np.cumsum(_ZIPF) / _ZIPF.sum()
_KNOWN_CATEGORIES = 64


def _noisy(random: np.random.Generator, level: Numbers) -> Numbers:
    return level + random.normal(size=level.size)


def _rank(random: np.random.Generator, level: Numbers) -> Numbers:
    return np.asarray(special.ndtr(_noisy(random, level)))


def _gone(random: np.random.Generator, level: Numbers, share: float) -> Numbers:
    """Let a share of a normal feature go missing; whether a row does is chance."""
    return np.where(random.random(level.size) < share, np.nan, _noisy(random, level))


def _zipf(random: np.random.Generator, level: Numbers) -> Numbers:
    """Draw one of 200 categories as its cell's number: the rarest are "other"."""
    found = np.searchsorted(_ZIPF_UP_TO, _rank(random, level))
    return np.where(found < _KNOWN_CATEGORIES, found + 2.0, 1.0)


DRAWS: Mapping[str, Draw] = {
    "normal": lambda random, level, _: _noisy(random, level),
    "skewed": lambda random, level, _: np.exp(_noisy(random, level)),
    "lognormal2": lambda random, level, _: np.exp(2 * _noisy(random, level)),
    "cauchy": lambda random, level, _: np.tan(np.pi * (np.clip(_rank(random, level), 1e-9, 1 - 1e-9) - 0.5)),
    "few": lambda random, level, _: np.clip(np.round(_noisy(random, level) + 2), 0, 4),
    "counts": lambda random, level, _: np.floor(np.maximum(_noisy(random, level) - 1.0, 0.0)),
    "atom": lambda random, level, _: np.maximum(_noisy(random, level) - 2.326, 0.0),
    "constant": lambda _, level, __: np.zeros(level.size),
    "quantised": lambda random, level, coarse: np.round(_noisy(random, level) / (0.1 + coarse)) * (0.1 + coarse),
    "hardly_there": lambda random, level, _: _gone(random, level, 0.995),
    "hardly_gone": lambda random, level, _: _gone(random, level, 0.002),
    "zipf": lambda random, level, _: _zipf(random, level),
    "rare": lambda random, level, _: np.where(_rank(random, level) > 1 - 1e-4, 3.0, 2.0),
    "label": lambda random, level, _: np.where(_rank(random, level) > 0.999, 3.0, 2.0),
    "confidence": lambda random, level, _: 1 - (1 - _rank(random, level)) ** 3 / 2,
}
"""Features; categorical ones draw the number of their cell."""

USUAL = ("normal", "skewed", "hardly_gone", "constant", "label", "confidence")
HARD = tuple(name for name in DRAWS if name != "skewed")

_CATEGORIES: Mapping[str, int] = {"zipf": _KNOWN_CATEGORIES, "rare": 2, "label": 2}
_OUTPUTS = ("label", "confidence")
_TRAINING_ROWS = 4000


def training(features: tuple[str, ...], seed: int = 0, spread: float = 0.3) -> Reference:
    """Make the reference of features, from devices whose levels differ."""
    random = np.random.default_rng(seed)
    level, coarse = spread * random.normal(size=_TRAINING_ROWS), random.random(_TRAINING_ROWS)
    values = {name: DRAWS[name](random, level, coarse).reshape(-1, 1) for name in features}
    streams = [
        Stream(name, "output" if name in _OUTPUTS else "input", _grid(name, values[name]), name) for name in features
    ]
    spec = ProfileSpec(tuple(streams))
    # what a real summary looks up by its text is drawn as the cell's number here
    return Reference(spec, summarise(spec, {k: v - 2 if k in _CATEGORIES else v for k, v in values.items()}))


def _grid(name: str, values: Numbers) -> Grid:
    if name in _CATEGORIES:
        return CategoricalGrid(tuple(str(at) for at in range(_CATEGORIES[name])))
    if name == "confidence":
        return unit_interval_grid(bins=64)
    return fit_integer(values) if name in {"few", "counts"} else fit_numeric(values)


@dataclass(frozen=True, kw_only=True)
class Nature:
    """How a quiet world is.

    Attributes:
        name: For tables.
        features: Among `DRAWS`.
        devices, sites: Numbers of them; device i stands at site i modulo this.
        rows: Of a device in a window, on average.
        rows_sd: Spread of the devices' logarithms of that.
        nights: Rows at night are so many times fewer, on weekends half of it; 1: all hours alike.
        offset_sd: Spread of the devices' lasting levels.
        wobble_sd, memory: Spread of each device's moving level, and its autocorrelation from window to window.
        shared_sd, shared_memory: The same of a level that all devices share.
        site_sd, site_memory: The same of each site's.
        day, week: Height of the waves of the day and of the week that all follow.
        season: What the watch takes the season to be.
        windows_a_day: So many windows make a day.
        present: Share of windows in which a device reports; it sleeps `sleep` windows at a time.
        sleep: Mean length of a sleep, in windows.
        grows_from: Devices that are there at first, 0: all; the others come one by one over `grows_in` windows.
        grows_in: See there.
    """

    name: str
    features: tuple[str, ...] = USUAL
    devices: int = 30
    sites: int = 3
    rows: float = 20.0
    rows_sd: float = 0.0
    nights: float = 1.0
    offset_sd: float = 0.3
    wobble_sd: float = 0.0
    memory: float = 0.0
    shared_sd: float = 0.0
    shared_memory: float = 0.0
    site_sd: float = 0.0
    site_memory: float = 0.0
    day: float = 0.0
    week: float = 0.0
    season: Season = Season.NONE
    windows_a_day: int = 24
    present: float = 1.0
    sleep: float = 1.0
    grows_from: int = 0
    grows_in: int = 400


@dataclass
class QuietFleet:
    """The devices of a quiet world; what `WatchedFleet` asks of a fleet.

    Attributes:
        nature: Of the world.
        seed: Of everything random.
    """

    nature: Nature
    seed: int = 0
    reference: Reference = field(init=False)

    def __post_init__(self) -> None:
        nature = self.nature
        self.reference = training(nature.features, spread=nature.offset_sd)
        self._random = np.random.default_rng(self.seed)
        devices = nature.devices
        self._offsets = nature.offset_sd * self._random.normal(size=devices)
        self._rows = nature.rows * np.exp(nature.rows_sd * self._random.normal(size=devices))
        self._coarse = self._random.random(devices)
        self._wobble, self._site = self._random.normal(size=devices), self._random.normal(size=nature.sites)
        self._shared = self._random.normal(size=1)
        self._awake = self._random.random(devices) < nature.present
        self._at = 0

    @property
    def devices(self) -> int:
        """Number of devices, D."""
        return self.nature.devices

    @property
    def names(self) -> list[str]:
        """Names of the devices."""
        return [f"cam-{at:03}" for at in range(self.devices)]

    @property
    def cohorts(self) -> dict[str, frozenset[str]]:
        """Devices by site."""
        names, sites = self.names, self.nature.sites
        return {f"site=s{site}": frozenset(names[site::sites]) for site in range(sites)}

    def members(self, cohort: str) -> list[int]:
        """Return where a cohort's devices lie."""
        return [at for at, name in enumerate(self.names) if name in self.cohorts[cohort]]

    def window(self, shifts: Mapping[int, Mapping[str, float]] | None = None) -> npt.NDArray[np.int64]:
        """Count one window of all devices, shape (D, size); one that is away counts nothing.

        Args:
            shifts: For some devices: feature name -> shift of its level, in standard deviations.
        """
        level = self._level()
        rows = self._rows_now()
        device = np.repeat(np.arange(self.devices), rows)
        coarse = self._coarse[device]
        values = {}
        for name in self.nature.features:
            moved = level.copy()
            for at, shift in (shifts or {}).items():
                moved[at] += shift.get(name, 0.0)
            values[name] = DRAWS[name](self._random, moved[device], coarse)
        self._at += 1
        return count_rows(self.reference.spec, values, device, self.devices)

    def _level(self) -> Numbers:
        nature = self.nature
        self._wobble = self._next(self._wobble, nature.memory)
        self._site = self._next(self._site, nature.site_memory)
        self._shared = self._next(self._shared, nature.shared_memory)
        hour = 2 * np.pi * self._at / nature.windows_a_day
        site = self._site[np.arange(self.devices) % nature.sites]
        waves = nature.day * np.sin(hour) + nature.week * np.sin(hour / 7)
        return np.asarray(
            self._offsets
            + nature.wobble_sd * self._wobble
            + nature.site_sd * site
            + nature.shared_sd * self._shared
            + waves
        )

    def _next(self, before: Numbers, memory: float) -> Numbers:
        return np.asarray(memory * before + np.sqrt(1 - memory**2) * self._random.normal(size=before.size))

    def _rows_now(self) -> npt.NDArray[np.int64]:
        nature = self.nature
        hour = (self._at % nature.windows_a_day) / nature.windows_a_day
        usual = self._rows / (nature.nights if hour < 0.3 else 1.0)
        if nature.nights > 1 and (self._at // nature.windows_a_day) % 7 >= 5:
            usual = usual / 2
        rows = np.minimum(self._random.poisson(usual), 50_000)
        if nature.present < 1:
            falls, wakes = 1 / nature.sleep * (1 - nature.present) / nature.present, 1 / nature.sleep
            chance = self._random.random(self.devices)
            self._awake = np.where(self._awake, chance >= falls, chance < wakes)
            rows = np.where(self._awake, rows, 0)
        if nature.grows_from:
            there = nature.grows_from + (self.devices - nature.grows_from) * self._at / nature.grows_in
            rows = np.where(np.arange(self.devices) < there, rows, 0)
        return rows.astype(np.int64)


_PLAIN = Nature(name="plain", wobble_sd=0.1, memory=0.5)
_WEATHER = replace(_PLAIN, shared_sd=0.2, shared_memory=0.5)

WORLDS: tuple[Nature, ...] = (
    replace(_PLAIN, name="shared weather, autocorrelation 0.5", shared_sd=0.2, shared_memory=0.5),
    replace(_PLAIN, name="shared weather, autocorrelation 0.8", shared_sd=0.2, shared_memory=0.8),
    replace(_PLAIN, name="shared weather, autocorrelation 0.95", shared_sd=0.2, shared_memory=0.95),
    replace(_PLAIN, name="weather of each site, 0.8", site_sd=0.2, site_memory=0.8),
    replace(_PLAIN, name="hard features", features=HARD),
    replace(_PLAIN, name="hard features, no wobble", features=HARD, wobble_sd=0.0),
    replace(_PLAIN, name="uneven traffic", rows=60.0, rows_sd=1.5),
    replace(_PLAIN, name="uneven traffic, hard features", rows=60.0, rows_sd=1.5, features=HARD),
    replace(_PLAIN, name="nights of few rows, days learnt", rows=60.0, nights=6.0, day=0.3, season=Season.DAY),
    replace(_PLAIN, name="days and weeks, 0.8", day=0.4, week=0.2, memory=0.8, season=Season.WEEK),
    replace(_PLAIN, name="days and a shared 0.8", day=0.4, shared_sd=0.15, shared_memory=0.8, season=Season.DAY),
    replace(_PLAIN, name="come and go", present=0.7, sleep=5.0),
    replace(_PLAIN, name="come and go, shared weather", present=0.5, sleep=10.0, shared_sd=0.2, shared_memory=0.5),
    replace(_PLAIN, name="sleep for days", present=0.6, sleep=60.0, offset_sd=1.0),
    replace(_PLAIN, name="grows from 5 to 60", devices=60, grows_from=5),
    replace(
        _PLAIN, name="grows from 5 to 60, shared weather", devices=60, grows_from=5, shared_sd=0.2, shared_memory=0.5
    ),
    replace(_PLAIN, name="five devices", devices=5, sites=1),
    replace(_PLAIN, name="six devices at two sites", devices=6, sites=2),
    replace(_PLAIN, name="eight devices, hard features", devices=8, sites=2, features=HARD),
    replace(
        _PLAIN,
        name="five that come and go, shared weather",
        devices=6,
        sites=2,
        present=0.8,
        sleep=5,
        shared_sd=0.3,
        shared_memory=0.5,
    ),
    replace(_PLAIN, name="two devices, autocorrelation 0.8", devices=2, sites=1, wobble_sd=0.3, memory=0.8),
    replace(_PLAIN, name="very different devices", offset_sd=1.5, features=HARD),
    replace(_PLAIN, name="many rows, hard features", rows=1500.0, features=HARD, wobble_sd=0.05),
    replace(_PLAIN, name="just enough rows, hard features", rows=15.0, features=HARD),
    replace(_PLAIN, name="slow walk of each device", wobble_sd=0.2, memory=0.98),
)
