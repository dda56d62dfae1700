"""How long a scope learns what is usual for it, and how many learnt streams share a threshold. Pure.

A baseline is as long as the rules say, and longer for a fleet whose windows resemble those before: weather that all
devices share makes forty windows tell as much as five, and neither a mean nor a spread can be learnt of five. So a
fleet is judged, and learns on in quiet windows, until `INDEPENDENT` windows' worth is there. Cohorts and devices need
not: what they share with others is taken off before they are judged.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from shoal_server.drift.monitor_state import Field, MonitorState, Scope, Streams
from shoal_server.drift.rules import Rules
from shoal_server.drift.scores import COMPONENTS
from shoal_server.drift.sequential import inflation, persistence
from shoal_server.statistics.layout import Flags, Floats

INDEPENDENT = 24.0
"""Independent windows that the baseline of a fleet must be worth, whatever resembles what."""

QUIET = 100.0
"""Evidence of a change, R, from which on nothing is learnt any more: what may be a drift is not the usual."""

FAR = 4.5
"""Nor is a window learnt that lies so many standard deviations off: one would widen what is usual beyond use."""


def threshold(state: MonitorState, scope: Scope, rules: Rules) -> float:
    """Return the R that is an alarm: A times the number of streams that are watched at this level.

    One stream of a cohort or device must reach it, of the fleet the sum over all streams: what drifts there drifts for
    everybody, often in many features at once.
    """
    return threshold_of(state.level(scope), scope, rules)


def threshold_of(streams: Streams, scope: Scope, rules: Rules) -> float:
    """Return the same of a level's streams."""
    watched = int((streams.windows >= shortest_baseline(scope, rules)).sum()) * streams.features * COMPONENTS
    return rules.mean_time_to_false_alarm * max(watched, 1)


def shortest_baseline(scope: Scope, rules: Rules) -> int:
    """Windows of the shortest baseline; the levels above the devices begin to learn when those have warmed up."""
    return rules.baseline_windows if scope is Scope.DEVICE else max(rules.baseline_windows - rules.warm_up, 2)


def learns_on(streams: Streams, scope: Scope, rules: Rules, *, at: npt.NDArray[np.int64]) -> Flags:
    """Tell which fleets or cohorts learn from this window, shape (len(at),); only a fleet learns on.

    Args:
        streams: Of the level, after the window was judged.
        scope: Fleet or cohort.
        rules: Settings.
        at: Places of the scopes.
    """
    windows = streams.windows[at]
    learning = windows < shortest_baseline(scope, rules)
    if scope is not Scope.FLEET:
        return learning
    evidence, score = streams.values[at, Field.R], streams.values[at, Field.Z]
    quiet = ((evidence < QUIET) & (np.abs(score) < FAR)).all(axis=(1, 2))
    most = inflation_of_fleet(streams, at, np.zeros(1)).max(axis=(1, 2), initial=1.0)
    return np.asarray(learning | (quiet & (windows < np.ceil(INDEPENDENT * most))))


def inflation_of_fleet(streams: Streams, at: npt.NDArray[np.int64], usual: Floats) -> Floats:
    """Return how far a fleet's scores vary together from window to window, shape (1, F, 6).

    What moves a whole fleet moves many of its features: the upper quartile over them is the least that is assumed of
    each, since one persistence is known too badly (see `inflation`) and a fleet has no others to learn from.

    Args:
        streams: Of the fleet.
        at: Its place.
        usual: Persistence of devices, broadcastable.
    """
    windows = streams.windows[at][:, None, None]
    m2 = streams.values[at, Field.RESIDUAL_M2]
    own = persistence(streams.values[at, Field.LAG], m2, windows)
    shared = _upper_quartile(own, m2 > 0)
    return inflation(own, np.maximum(usual, shared), windows)


def _upper_quartile(own: Floats, varies: Flags) -> Floats:
    """Return the upper quartile over each scope's scores that vary, shape (S, 1, 1); 0 where none does."""
    ordered = np.sort(np.where(varies, own, np.inf).reshape(len(own), -1), axis=1)
    place = (0.75 * varies.reshape(len(own), -1).sum(axis=1)).astype(np.int64)
    found = np.take_along_axis(ordered, np.minimum(place, ordered.shape[1] - 1)[:, None], axis=1)
    return np.where(np.isfinite(found), found, 0.0)[:, :, None]


def usual_persistence(devices: Streams, rules: Rules) -> Floats:
    """Return the median persistence of the devices' residuals, shape (F, 6); 0 while nobody's baseline is whole."""
    whole = devices.windows >= rules.baseline_windows
    if not whole.any():
        return np.zeros((devices.features, COMPONENTS))
    lag, m2 = devices.values[whole, Field.LAG], devices.values[whole, Field.RESIDUAL_M2]
    return np.asarray(np.median(persistence(lag, m2, np.array(rules.residual_windows)), axis=0))
