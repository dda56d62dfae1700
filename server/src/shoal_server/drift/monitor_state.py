"""What the sequential rule remembers between windows, for every scope of one bundle in one slot.

Owns the arrays and their form as bytes. Leaves what happens to them to `monitor` and where the bytes lie to `store`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import IntEnum, StrEnum

import numpy as np
import numpy.typing as npt

from shoal_protocol.errors import ContentError
from shoal_server.drift.scores import COMPONENTS
from shoal_server.drift.season import Harmonics
from shoal_server.statistics.layout import Floats


class Scope(StrEnum):
    """Whose windows a score is about."""

    FLEET = "fleet"  # the bulk of all devices
    COHORT = "cohort"  # devices that share the value of a label or fact, against the fleet
    DEVICE = "device"  # one device, against the fleet


FLEET_NAME = "fleet"


class Field(IntEnum):
    """What is remembered of each of a feature's six components."""

    MEAN = 0  # of the scores over the baseline
    M2 = 1  # sum of squared deviations from it
    RESIDUAL_MEAN = 2  # of the scores less those of the fleet
    RESIDUAL_M2 = 3  # sum of squared deviations from it
    R = 4  # evidence of the Shiryaev-Roberts rule
    Z = 5  # standardised score of the latest window
    ONSET = 6  # bucket since which R is 1 or more
    SEEN = 7  # windows since the onset
    CHANGE = 8  # mean change from the scope's own baseline since the onset
    PREVIOUS = 9  # fading sum of the residuals before, while learning
    LAG = 10  # sum of products of residuals with that


@dataclass(eq=False)
class Streams:
    """The scopes of one level; S of them, F features.

    Attributes:
        features: F.
        names: Of the scopes.
        windows: Baseline windows so far, float64 of length S.
        rows: Their rows (capped weights where devices are pooled), length S.
        members: Devices in them summed over the windows, length S.
        latest: Bucket that was scored last, -1 before the first, length S.
        values: By `Field`, shape (S, 11, F, 6).
        terms: Regressors of a season, P; 0 without one.
        harmonics: What the season does to the scores.
    """

    features: int
    names: list[str] = field(default_factory=list)
    windows: Floats = field(default_factory=lambda: np.zeros(0))
    rows: Floats = field(default_factory=lambda: np.zeros(0))
    members: Floats = field(default_factory=lambda: np.zeros(0))
    latest: Floats = field(default_factory=lambda: np.zeros(0))
    values: Floats = field(default_factory=lambda: np.zeros((0, 0, 0, 0)))
    terms: int = 0
    harmonics: Harmonics = field(default_factory=lambda: Harmonics.empty(0, 0, (0, 0)))

    def __post_init__(self) -> None:
        if not self.names:
            self.values = np.zeros((0, len(Field), self.features, COMPONENTS))
            self.harmonics = self._no_season(0)
        self._index = {name: at for at, name in enumerate(self.names)}

    def positions(self, names: Sequence[str]) -> npt.NDArray[np.int64]:
        """Return where scopes lie, after adding those that are new, with nothing learnt."""
        new = [name for name in names if name not in self._index]
        if new:
            empty = np.zeros(len(new))
            self._index.update((name, len(self.names) + at) for at, name in enumerate(new))
            self.names.extend(new)
            self.windows, self.rows, self.members = (
                np.concatenate([known, empty]) for known in (self.windows, self.rows, self.members)
            )
            self.latest = np.concatenate([self.latest, empty - 1])
            blank = np.zeros((len(new), len(Field), self.features, COMPONENTS))
            self.values = np.concatenate([self.values, blank])
            self.harmonics = self.harmonics.extended(self._no_season(len(new)))
        return np.array([self._index[name] for name in names], dtype=np.int64)

    def get(self, name: str) -> int | None:
        """Return where a scope lies, None when it is not known."""
        return self._index.get(name)

    def forget(self, at: int) -> None:
        """Let a scope begin anew, as if it had never been seen."""
        self.windows[at] = self.rows[at] = self.members[at] = 0
        self.values[at] = 0
        self.harmonics.forget(at)

    def copy(self) -> Streams:
        """Return a deep copy."""
        return Streams(
            self.features,
            list(self.names),
            self.windows.copy(),
            self.rows.copy(),
            self.members.copy(),
            self.latest.copy(),
            self.values.copy(),
            self.terms,
            self.harmonics.copy(),
        )

    def dump(self, at: int) -> bytes:
        """Return one scope's memory as little-endian float64."""
        head = [self.windows[at], self.rows[at], self.members[at], self.latest[at]]
        season = [part[at].ravel() for part in (self.harmonics.mean, self.harmonics.gram, self.harmonics.cross)]
        return np.concatenate([head, self.values[at].ravel(), *season]).astype("<f8").tobytes()

    @classmethod
    def load(cls, features: int, dumps: Sequence[tuple[str, bytes]], *, terms: int = 0) -> Streams:
        """Read what `dump` wrote of each named scope.

        Raises:
            ContentError: The bytes are of another number of features or of another season.
        """
        streams = cls(features, terms=terms)
        if not dumps:
            return streams
        scores = features * COMPONENTS
        plain = 4 + len(Field) * scores
        size = plain + terms + terms * terms + terms * scores
        wrong = [name for name, raw in dumps if len(raw) != 8 * size]
        if wrong:
            raise ContentError(f"drift state of {wrong[:5]} is not of {features} features")
        table = np.frombuffer(b"".join(raw for _, raw in dumps), dtype="<f8").astype(np.float64).reshape(-1, size)
        windows, rows, members, latest = table[:, :4].T.copy()
        values = table[:, 4:plain].reshape(-1, len(Field), features, COMPONENTS).copy()
        mean, gram, cross = np.split(table[:, plain:].copy(), [terms, terms + terms * terms], axis=1)
        scopes = len(dumps)
        harmonics = Harmonics(
            mean, gram.reshape(scopes, terms, terms), cross.reshape(scopes, terms, features, COMPONENTS)
        )
        names = [name for name, _ in dumps]
        return cls(features, names, windows, rows, members, latest, values, terms, harmonics)

    def _no_season(self, scopes: int) -> Harmonics:
        return Harmonics.empty(scopes, self.terms, (self.features, COMPONENTS))


@dataclass(eq=False)
class MonitorState:
    """The three levels."""

    fleet: Streams
    cohorts: Streams
    devices: Streams

    @classmethod
    def empty(cls, features: int, *, terms: int = 0) -> MonitorState:
        """Nothing learnt yet; only devices have a season, of so many terms."""
        return cls(Streams(features), Streams(features), Streams(features, terms=terms))

    def copy(self) -> MonitorState:
        """Return a deep copy."""
        return MonitorState(self.fleet.copy(), self.cohorts.copy(), self.devices.copy())

    def spend(self, scope: Scope, name: str, feature: int) -> None:
        """Take back the evidence of a scope's feature: something else explains it."""
        at = self.level(scope).get(name)
        if at is not None:
            self.level(scope).values[at, Field.R, feature] = 0

    def level(self, scope: Scope) -> Streams:
        """Return the streams of one level."""
        return {Scope.FLEET: self.fleet, Scope.COHORT: self.cohorts, Scope.DEVICE: self.devices}[scope]
