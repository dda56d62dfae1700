# ruff: noqa: E402 - imports follow the path that they need
"""Power of the five views on counts, against Kolmogorov-Smirnov on the raw rows and on merged KLL sketches.

One feature of 1,000 rows against 10,000, and a fleet of 200 devices with 100 rows each. All tests run at a nominal
level of 1 %, the five views with Bonferroni over the five; the same rows go to all. KLL sketches
(k = 200, `kll`) are merged over the devices and judged at the 99 % quantile of equal fleets, which only a simulation
knows. ``--full`` repeats each case 2,000 times, without it 300; ``--seed N`` draws other rows.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator
from functools import reduce
from pathlib import Path

HERE = Path(__file__).resolve().parent
# Behind everything else: this folder has files named like modules of the standard library.
sys.path[:] = [entry for entry in sys.path if Path(entry).resolve() != HERE] + [str(HERE)]

import numpy as np
import numpy.typing as npt
from scipy import stats

from frame import Row, run
from kll import Sketch, distance
from shoal_protocol.profile.grid import fit_numeric
from shoal_protocol.profile.profile import ProfileSpec, Stream, summarise
from shoal_server.statistics.layout import Layout
from shoal_server.statistics.views import five_views

Rows = npt.NDArray[np.float64]
ALPHA = 0.01
DEVICES, EACH, ONE = 200, 100, 1000
REFERENCE = 10_000


def mixed(random: np.random.Generator, rows: Rows, share: float, value: float | None) -> Rows:
    """Replace a share of rows by a value, or by draws from far out."""
    chosen = random.random(rows.size) < share
    return np.where(chosen, random.normal(0, 6, rows.size) if value is None else value, rows)


Change = Callable[[np.random.Generator, Rows], Rows]
ALONE: dict[str, tuple[Change, float]] = {
    "none": (lambda _, x: x, 0.0),
    "mean +0.1 sd": (lambda _, x: x + 0.1, 0.8),
    "scale x1.1": (lambda _, x: x * 1.1, 1.0),
    "5 % outliers": (lambda r, x: mixed(r, x, 0.05, None), 1.0),
    "3 % stuck": (lambda r, x: mixed(r, x, 0.03, 0.4), 1.0),
    "missing 1 to 3 %": (lambda r, x: mixed(r, x, 0.02, np.nan), 1.0),
}
"""Change of one feature, and the least power relative to KS on raw rows that is the target."""

FLEET: dict[str, tuple[Change, float]] = {
    "none": (lambda _, x: x, 0.0),
    "mean +0.03 sd": (lambda _, x: x + 0.03, 0.95),
    "scale x1.06": (lambda _, x: x * 1.06, 1.0),
}


def rows(*, repeats: int, seed: int) -> Iterator[Row]:
    random = np.random.default_rng(seed)
    for name, (change, least) in ALONE.items():
        ours = raw = 0
        for _ in range(repeats):
            training = with_missing(random, REFERENCE)
            sample = change(random, with_missing(random, ONE))
            ours += fires(training, sample)
            raw += ks_fires(training, sample)
        yield _row(f"one feature, {name}", ours / repeats, raw / repeats, least=least, repeats=repeats)
    yield from fleet(repeats=max(repeats // 3, 100), random=random)


def fleet(*, repeats: int, random: np.random.Generator) -> Iterator[Row]:
    limit = float("inf")
    for name, (change, least) in FLEET.items():
        ours = raw = 0
        far = []
        for _ in range(repeats):
            training, sample = with_missing(random, REFERENCE), change(random, with_missing(random, DEVICES * EACH))
            ours += fires(training, sample)
            raw += ks_fires(training, sample)
            devices = (Sketch.of(_present(rows), random) for rows in sample.reshape(DEVICES, EACH))
            merged = reduce(lambda a, b: a.merged(b, random), devices)
            far.append(distance(Sketch.of(_present(training), random), merged))
        if name == "none":  # merging adds an error of its own: the level is held by the quantile of equal fleets
            limit = float(np.quantile(far, 1 - ALPHA))
        sketched = float(np.mean(np.array(far) > limit))
        yield Row(f"{DEVICES} devices, {name}: KS on merged KLL", sketched, "power")
        yield _row(f"{DEVICES} devices, {name}", ours / repeats, raw / repeats, least=least, repeats=repeats)


def fires(training: Rows, sample: Rows) -> bool:
    """Whether the five views on counts say that two samples differ."""
    spec = ProfileSpec((Stream("x", "input", fit_numeric(training), "x"),))
    cells = [summarise(spec, {"x": rows}).cells for rows in (training, sample)]
    return bool(five_views(Layout.of(spec), cells[0], cells[1]).p_value[0] < ALPHA)


def ks_fires(training: Rows, sample: Rows) -> bool:
    """Whether Kolmogorov-Smirnov on the raw rows does."""
    return bool(stats.ks_2samp(_present(training), _present(sample), method="asymp").pvalue < ALPHA)


def with_missing(random: np.random.Generator, rows: int) -> Rows:
    """Draw normal rows, 1 % of them missing."""
    return mixed(random, random.normal(size=rows), 0.01, np.nan)


def _row(name: str, ours: float, raw: float, *, least: float, repeats: int) -> Row:
    if name.endswith("none"):
        most = ALPHA + 3 * (ALPHA / repeats) ** 0.5  # as far as chance takes a true level of 1 %
        return Row(f"{name}: real level", ours, "power", raw, None, f"<= {most:.3f}", ours <= most)
    ratio = ours / raw if raw else None
    return Row(f"{name}: five views", ours, "power", raw, ratio, f">= {least:g}x", ours >= least * raw)


def _present(rows: Rows) -> Rows:
    return rows[~np.isnan(rows)]


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--full", action="store_true")
    parser.add_argument("--seed", type=int, default=1)
    said, _ = parser.parse_known_args()
    run("drift_power", rows(repeats=2000 if said.full else 300, seed=said.seed))
