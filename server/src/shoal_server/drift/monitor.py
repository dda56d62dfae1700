"""One bucket of time through the sequential rule: learn the baseline, then compare fleet, cohorts and devices with it.

Owns how scores of devices become scores of the three levels. Pure: `observe` returns a new state. Leaves alarms to
`alarms`, their causes to `localise`, reading and storing to `scan`.

Each device is first compared with its own baseline, so devices may differ for good and come and go without an alarm:

    change of a device   = its score - its own baseline's mean
    change of the fleet  = weighted mean of the changes over the bulk of the devices (outliers left out)
    residual of a device = its change - the fleet's change
    residual of a cohort = weighted mean of the changes over the bulk of its devices - the fleet's change

Learning and judging use the very same means, or else skewed scores would look changed. While a device's baseline is in
the making its running mean stands in for it, from `Rules.warm_up` windows on; that is when the levels above begin to
learn. With a season a device's mean is that of the hour, see `season`, and the warm-up a whole season: what the levels
above and the residuals vary by is learnt in the season after that, on windows that no fit has seen.
Shares of missing and outlying values are judged as rates (exact conditional binomial on effective rows), each scope
with its own baseline; `localise` tells whose change it is.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from shoal_server.drift.baselines import inflation_of_fleet, learns_on, shortest_baseline, threshold, usual_persistence
from shoal_server.drift.monitor_state import FLEET_NAME, Field, MonitorState, Scope, Streams
from shoal_server.drift.pooling import bulk, capped, residual_widening, weighted_mean
from shoal_server.drift.rules import Rules
from shoal_server.drift.scores import COMPONENTS, CONTRASTS, MISSING, Basis
from shoal_server.drift.season import regressors
from shoal_server.drift.sequential import (
    COHORT,
    DEVICE,
    FLEET,
    Level,
    absorb,
    bounded_sd,
    e_value,
    inflation,
    lagged,
    moderated_sd,
    normal_score,
    persistence,
    shiryaev_roberts,
    tau,
    unskewed,
)
from shoal_server.statistics.layout import Flags, Floats, Numbers
from shoal_server.statistics.views import rate_z

_CONTRASTS = slice(0, CONTRASTS)
_RATES = slice(CONTRASTS, COMPONENTS)
_LEVELS: Mapping[Scope, Level] = {Scope.FLEET: FLEET, Scope.COHORT: COHORT, Scope.DEVICE: DEVICE}
_NO_ROWS = 1e-6
"""Stands for no rows at all where they are divided by."""

_MOST = 100.0
"""R is bounded at so many times its threshold, so that an alarm ends some windows after its cause."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Bucket:
    """What all devices counted in one span of time, for one bundle in one slot.

    Attributes:
        index: Of the span; grows with time.
        devices: Names, D of them, each once.
        cells: Counts, int64 of shape (D, size).
        rows: Rows of each device, int64 of length D.
        cohorts: Names of devices by cohort, such as ``site=bern``.
        excluded: Which devices are known to differ by an open alarm, and are no part of the bulk; shape (D, F).
        at_ms: Its middle, milliseconds since the epoch; only a season asks for it.
    """

    index: int
    devices: Sequence[str]
    cells: npt.NDArray[np.int64]
    rows: npt.NDArray[np.int64]
    cohorts: Mapping[str, frozenset[str]]
    excluded: Flags
    at_ms: float = 0.0


@dataclass(frozen=True, eq=False)
class _Scored:
    """One bucket's devices that are judged, D of them.

    Attributes:
        names: Of the devices.
        at: Where they lie in the state.
        x: Scores, shape (D, F, 6).
        rows: Rows of each.
        counted: Rows that a score is made of, shape (D, F, 6): the contrasts know nothing of missing values.
        weights: The same, capped.
        change: Scores less the own baseline's mean, or the running one.
        own: Standardised change, no matter what the fleet does.
        excluded: Devices known to differ, shape (D, F, 6).
        windows: Of the baseline of each so far.
        expected: Mean of the own baseline, at this hour.
    """

    names: list[str]
    at: npt.NDArray[np.int64]
    x: Floats
    rows: Floats
    counted: Floats
    weights: Floats
    change: Floats
    own: Floats
    excluded: Flags
    windows: Floats
    expected: Floats


def observe(state: MonitorState, bucket: Bucket, *, basis: Basis, rules: Rules) -> MonitorState:
    """Carry one bucket through all three levels.

    Args:
        state: Before; it stays as it is.
        bucket: Of the next span of time; devices without enough rows are left out.
        basis: Of the bundle's reference.
        rules: Settings.
    """
    state = state.copy()
    judged = bucket.rows >= rules.min_rows
    if not judged.any():
        return state
    _Step(state, bucket, judged, basis, rules).run()
    return state


class _Step:
    """The working of `observe` on its own copy of the state."""

    def __init__(self, state: MonitorState, bucket: Bucket, judged: Flags, basis: Basis, rules: Rules) -> None:
        self.state, self.bucket, self.basis, self.rules = state, bucket, basis, rules
        self.regressors = regressors(rules.season, bucket.at_ms)
        self.most = {scope: _MOST * threshold(state, scope, rules) for scope in Scope}
        self.persistence = usual_persistence(state.devices, rules)
        self.devices = self._score(judged)

    def run(self) -> None:
        devices, streams = self.devices, self.state.devices
        known = np.flatnonzero(devices.windows >= self.rules.warm_up)
        ready = np.flatnonzero(devices.windows >= self.rules.baseline_windows)
        fleet = None
        if len(known) >= self.rules.min_devices:
            inside = bulk(devices.own[known], devices.excluded[known])
            fleet = weighted_mean(devices.change[known], devices.weights[known], inside, least=self.rules.min_devices)
            whole = np.ones_like(fleet)
            self._pooled(Scope.FLEET, FLEET_NAME, known, inside, fleet=0 * whole, widened=whole)
            self._cohorts(known, inside, fleet)
        residual = devices.change if fleet is None else devices.change - fleet
        if len(ready):
            at, counted = devices.at[ready], devices.counted[ready]
            z = devices.own[ready]
            if fleet is not None:
                m2 = streams.values[at, Field.RESIDUAL_M2]
                z[..., _CONTRASTS] = self._contrasts(
                    streams, at, residual[ready], counted, windows=self._residuals(at), m2=m2
                )
            self._update(Scope.DEVICE, at, z, devices.change[ready])
        self._learn_devices(residual)

    def _score(self, judged: Flags) -> _Scored:
        streams = self.state.devices
        names = [name for name, kept in zip(self.bucket.devices, judged, strict=True) if kept]
        at = streams.positions(names)
        x = self.basis.scores(self.bucket.cells[judged])
        rows = self.bucket.rows[judged].astype(np.float64)
        known = streams.windows[at] >= self.rules.warm_up
        expected, m2 = streams.values[at, Field.MEAN], streams.values[at, Field.M2]
        if known.any():
            addition, explained = streams.harmonics.fit(at[known], streams.windows[at[known]], self.regressors)
            expected[known] += addition
            m2[known] = np.maximum(m2[known] - explained, 0.0)
        expected[..., _RATES] = np.clip(expected[..., _RATES], 0.0, 1.0)
        counted = self.basis.counted(self.bucket.cells[judged], x)
        seen = streams.windows[at] > 0
        x[seen] = np.where(counted[seen] > 0, x[seen], expected[seen])
        change = x - expected
        own = np.zeros_like(change)
        if known.any():
            place, windows = at[known], streams.windows[at[known]]
            share = expected[known][..., _RATES]
            own[known, :, _RATES] = self._rates(
                streams, place, x[known][..., _RATES], counted[known], share=share, m2=m2[known]
            )
            own[known, :, _CONTRASTS] = self._contrasts(
                streams, place, change[known], counted[known], m2=m2[known], windows=windows
            )
        excluded = np.broadcast_to(self.bucket.excluded[judged][..., None], change.shape)
        weights = counted * (capped(rows) / rows)[:, None, None]
        windows = streams.windows[at].copy()
        return _Scored(names, at, x, rows, counted, weights, change, own, excluded, windows, expected)

    def _cohorts(self, known: npt.NDArray[np.int64], bulk_of_fleet: Flags, fleet: Floats) -> None:
        names, weights = self.devices.names, self.devices.weights
        in_bulk = np.zeros(self.devices.own.shape, dtype=np.bool_)
        in_bulk[known] = bulk_of_fleet
        for name, devices in sorted(self.bucket.cohorts.items()):
            members = np.array([place for place in known.tolist() if names[place] in devices], dtype=np.int64)
            if min(len(members), len(known) - len(members)) >= self.rules.min_cohort:
                inside = bulk(self.devices.own[members], self.devices.excluded[members])
                widened = residual_widening(weights, members=members, inside=inside, fleet=in_bulk)
                self._pooled(Scope.COHORT, name, members, inside, fleet=fleet, widened=widened)

    def _pooled(
        self,
        scope: Scope,
        name: str,
        members: npt.NDArray[np.int64],
        inside: Flags,
        *,
        fleet: Floats,
        widened: Floats,
    ) -> None:
        """Learn or judge the fleet or a cohort.

        Args:
            scope: Fleet or cohort.
            name: Of the scope.
            members: Places of its devices.
            inside: Which of them are its bulk, shape (members, F, 6).
            fleet: Change that is taken off, shape (F, 6).
            widened: Standard deviation of the residual over that of the baseline's, shape (F, 6).
        """
        streams, devices = self.state.level(scope), self.devices
        at = streams.positions([name])
        place = int(at[0])
        usual = streams.members[place] / max(streams.windows[place], 1.0)
        if streams.windows[place] and len(members) >= self.rules.growth * usual:
            streams.forget(place)
        weights = devices.weights[members]
        least = self.rules.min_devices if scope is Scope.FLEET else self.rules.min_cohort
        change = weighted_mean(devices.change[members], weights, inside, least=least)
        x = weighted_mean(devices.x[members], weights, inside)
        counted = weights.sum(axis=0)[None]
        rows = counted.max(axis=(1, 2))
        residual = (change - fleet)[None]
        shortest = shortest_baseline(scope, self.rules)
        if streams.windows[place] >= shortest and len(members) >= usual / 2:
            offset = self._offset(streams, at, scope)
            before = weighted_mean(devices.expected[members], weights, inside)[None] + offset
            share = np.clip(before[..., _RATES], 0.0, 1.0)
            z, values = np.empty_like(residual), streams.values[at]
            z[..., _CONTRASTS] = self._contrasts(
                streams,
                at,
                (residual - offset) / widened,
                counted,
                windows=streams.windows[at],
                m2=values[:, Field.RESIDUAL_M2],
            )
            z[..., _RATES] = self._rates(
                streams, at, x[None][..., _RATES], counted, share=share, m2=values[:, Field.M2]
            )
            self._update(scope, at, z, change[None])
        if learns_on(streams, scope, self.rules, at=at)[0]:
            streams.windows[at] += 1
            streams.rows[at] += rows
            streams.members[at] += len(members)
            streams.latest[at] = self.bucket.index
            _absorb(streams, at, Field.MEAN, x[None], streams.windows[at])
            _absorb(streams, at, Field.RESIDUAL_MEAN, residual, streams.windows[at])

    def _offset(self, streams: Streams, at: npt.NDArray[np.int64], scope: Scope) -> Floats:
        """Return how far a fleet lay from what its devices' baselines let expect, shape (1, F, 6).

        Those end before a longer baseline does, and are wrong by what all shared then. In a baseline of the shortest
        length they were in the making themselves: there is nothing to take off.
        """
        longer = streams.windows[at] > shortest_baseline(scope, self.rules)
        return np.where(longer[:, None, None], streams.values[at, Field.RESIDUAL_MEAN], 0.0)

    def _learn_devices(self, residual: Floats) -> None:
        """Add the window to the baselines that are not whole yet."""
        devices, streams = self.devices, self.state.devices
        learning = devices.windows < self.rules.baseline_windows
        at = devices.at[learning]
        streams.windows[at] += 1
        streams.rows[at] += devices.rows[learning]
        streams.members[at] += 1
        streams.latest[at] = self.bucket.index
        _absorb(streams, at, Field.MEAN, devices.x[learning], streams.windows[at])
        deviation = devices.x[learning] - streams.values[at, Field.MEAN]
        streams.harmonics.absorb(at, streams.windows[at], self.regressors, deviation)
        known = learning & (devices.windows >= self.rules.warm_up)
        _absorb(streams, devices.at[known], Field.RESIDUAL_MEAN, residual[known], self._residuals(devices.at[known]))

    def _residuals(self, at: npt.NDArray[np.int64]) -> Floats:
        """Number of windows in which the residuals of devices were learnt."""
        return np.asarray(np.maximum(self.state.devices.windows[at] - self.rules.warm_up, 1.0))

    def _contrasts(
        self,
        streams: Streams,
        at: npt.NDArray[np.int64],
        change: Floats,
        counted: Floats,
        *,
        windows: Floats,
        m2: Floats,
    ) -> Floats:
        """Normal scores of changes in the contrasts, shape (len(at), F, 4); few rows widen the expected spread."""
        windows, now = windows[:, None, None], np.maximum(counted[..., _CONTRASTS], _NO_ROWS)
        inflated = self._inflation(streams, at)[..., _CONTRASTS]
        there = 1 - streams.values[at, Field.MEAN, :, MISSING]
        usual = np.maximum((streams.rows[at] / streams.windows[at])[:, None] * there, _NO_ROWS)[..., None]
        prior = self.basis.variance / usual
        sd = moderated_sd(m2[..., _CONTRASTS], windows, prior=prior, inflated=inflated)
        sd = bounded_sd(sd * np.sqrt(np.maximum(1.0, usual / now)), reach=self.basis.reach, rows=now)
        z = normal_score(change[..., _CONTRASTS], sd, windows / inflated)
        return unskewed(z, self.basis.third / (now * now * sd**3))

    def _rates(
        self,
        streams: Streams,
        at: npt.NDArray[np.int64],
        now: Floats,
        counted: Floats,
        *,
        share: Floats,
        m2: Floats,
    ) -> Floats:
        """Normal scores of changed rates, shape (len(at), F, 2), on rows divided by the baseline's design effect.

        Args:
            streams: Of the level.
            at: Places of the scopes.
            now: Rates of the window, shape (len(at), F, 2).
            counted: Rows of the window that they are made of, shape (len(at), F, 6).
            share: Rates that the baselines let expect, same shape.
            m2: Squared deviations of the scores over the baseline, shape (len(at), F, 6).
        """
        windows, total = streams.windows[at][:, None, None], streams.rows[at][:, None, None]
        usual = streams.values[at, Field.MEAN][..., _RATES]
        binomial = np.maximum(usual * (1 - usual), 1 / total) * windows / total
        between = m2[..., _RATES] / np.maximum(windows - 1, 1)
        effect = np.maximum(1.0, between / binomial)
        base = total / (effect * self._inflation(streams, at)[..., _RATES])
        current = counted[..., _RATES] / effect
        return rate_z(share * base, base, now * current, current)

    def _inflation(self, streams: Streams, at: npt.NDArray[np.int64]) -> Floats:
        """Return how far scores vary together from window to window, shape (len(at), F, 6)."""
        if streams is self.state.fleet:
            return inflation_of_fleet(streams, at, self.persistence)
        learnt = (self._residuals(at) if streams is self.state.devices else streams.windows[at])[:, None, None]
        own = persistence(streams.values[at, Field.LAG], streams.values[at, Field.RESIDUAL_M2], learnt)
        return inflation(own, self.persistence, learnt)

    def _update(self, scope: Scope, at: npt.NDArray[np.int64], z: Floats, change: Floats) -> None:
        streams, level = self.state.level(scope), _LEVELS[scope]
        values = streams.values
        inflated = self._inflation(streams, at)
        windows = streams.windows[at] + (0 if scope is Scope.DEVICE else self.rules.warm_up)
        tolerance = tau(level, windows[:, None, None] / inflated, user=self.rules.tolerance)
        before = values[at, Field.R]
        e = e_value(z, tolerance=tolerance, clip=level.clip, inflated=inflated)
        after = shiryaev_roberts(before, e, most=self.most[scope])
        new = before < 1
        seen = np.where(new, 1.0, values[at, Field.SEEN] + 1)
        mean = np.where(new, change, values[at, Field.CHANGE])
        values[at, Field.ONSET] = np.where(new, self.bucket.index, values[at, Field.ONSET])
        values[at, Field.SEEN] = seen
        values[at, Field.CHANGE] = mean + (change - mean) / seen
        values[at, Field.R] = after
        values[at, Field.Z] = z
        streams.latest[at] = self.bucket.index


def _absorb(streams: Streams, at: npt.NDArray[np.int64], mean: Field, score: Floats, windows: Numbers) -> None:
    """Add a window to the moments of scores or residuals; `windows` counts with it."""
    values, m2 = streams.values, Field(mean + 1)
    if mean is Field.RESIDUAL_MEAN:
        values[at, Field.PREVIOUS], values[at, Field.LAG] = lagged(
            values[at, Field.PREVIOUS], values[at, Field.LAG], score
        )
    values[at, mean], values[at, m2] = absorb(values[at, mean], values[at, m2], windows[:, None, None], score)
