# ruff: noqa: E402 - imports follow the path that they need
"""Power of the five views on counts, against Kolmogorov-Smirnov on the raw rows and on merged KLL sketches.

Rows of nine shapes changed in seven ways, 300 to 3,000 of them against 10,000, and a fleet of 200 devices with 100 rows
each. All tests run at a nominal level of 1 % on the same rows, the five views with weighted Bonferroni over the five.
How much changes is chosen so that KS on the raw rows finds about half of it, where it finds anything. KLL sketches
(k = 200, of Apache DataSketches) are merged over the devices and judged at the 99 % quantile of equal fleets, which
only a simulation knows.

Ratios stand with their 95 % intervals. ``--full`` repeats each case 4,000 times and each fleet 2,000 times (some 20
minutes), without it 600 and 300; ``--seed N`` draws other rows.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

HERE = Path(__file__).resolve().parent
# Behind everything else: this folder has files named like modules of the standard library.
sys.path[:] = [entry for entry in sys.path if Path(entry).resolve() != HERE] + [str(HERE)]

import numpy as np

from frame import Row, options, run
from peers import PeerMissingError, ask
from two_samples import ALPHA, CHANGES, REFERENCE, SHAPES, Found, Rows, experiment, half_found, ks_fires, views_fire

SIZES = (300, 1000, 3000)
LOCATION, OTHER = 0.95, 1.0
"""Least power relative to KS on raw rows that is the target: where the location changes, and elsewhere."""

CASES: tuple[tuple[str, str, float], ...] = (
    *((shape, "shift", LOCATION) for shape in list(SHAPES)[:7]),
    ("exponential", "gain", LOCATION),
    ("log-normal", "gain", LOCATION),
    ("counts of 0 to 10", "some rows +1", LOCATION),
    *((shape, "spread", OTHER) for shape in ("normal", "t, 3 degrees", "log-normal", "two humps", "60 % zeros")),
    ("normal", "some rows +1.5", LOCATION),
    ("exponential", "some rows +1.5", LOCATION),
)
FIXED: tuple[tuple[str, str, float], ...] = (
    ("normal", "shift", 0.1),
    ("normal", "spread", 0.1),
    ("normal", "outliers", 0.05),
    ("normal", "stuck", 0.03),
    ("normal", "missing", 0.02),
)
"""Of 1,000 rows, 1 % of which are missing anyway; KS hardly finds most of these."""

DEVICES, OF_DEVICE = 200, 100
FLEETS = 100
"""Fleets at a time."""
FLEET: tuple[tuple[str, str, float, float], ...] = (
    ("normal", "shift", 0.0, 0.0),
    ("normal", "shift", 0.035, LOCATION),
    ("Laplace", "shift", 0.0, 0.0),
    ("Laplace", "shift", 0.035, LOCATION),
    ("normal", "spread", 0.06, OTHER),
)
_MERGED = """
import json, sys
import numpy as np, datasketches
given = np.load(sys.argv[1])
def sketch(rows):
    one = datasketches.kll_doubles_sketch(200)
    one.update(rows)
    return one
far = []
for training, fleet in zip(given["training"], given["fleet"]):
    merged = datasketches.kll_doubles_sketch(200)
    for rows in fleet:
        merged.merge(sketch(rows))
    whole = sketch(training)
    at = np.quantile(training, np.linspace(0.001, 0.999, 999))
    far.append(float(np.abs(np.array(merged.get_cdf(at)) - np.array(whole.get_cdf(at))).max()))
print(json.dumps(far))
"""


def rows(*, repeats: int, seed: int) -> Iterator[Row]:
    random = np.random.default_rng(seed)
    for shape in SHAPES:
        found = experiment(random, shape, "shift", 0.0, rows=1000, repeats=4 * repeats)
        yield _level(f"{shape}, 1,000 rows: real level", found)
    for shape, change, much in FIXED:
        found = experiment(random, shape, change, much, rows=1000, repeats=repeats, missing=0.01)
        yield _row(f"{shape}, {change} {much:g}, 1,000 rows", found, LOCATION if change == "shift" else OTHER)
    for shape, change, least in CASES:
        for size in SIZES:
            much = half_found(np.random.default_rng(7), shape, change, rows=size)
            found = experiment(random, shape, change, much, rows=size, repeats=repeats)
            yield _row(f"{shape}, {change} {much:.3f}, {size:,} rows", found, least)
    yield from fleet(random, repeats=max(repeats // 2, 100))


def fleet(random: np.random.Generator, *, repeats: int) -> Iterator[Row]:
    limit: dict[str, float] = {}
    for shape, change, much, least in FLEET:
        name = f"{DEVICES} devices, {shape}, {change} {much:g}"
        found, far, missing = _fleets(random, shape, change, much, repeats=repeats)
        yield _row(name, found, least) if much else _level(f"{name}: real level", found)
        if missing:
            yield Row(f"{name}: KS on merged KLL is left out: {missing}", float("nan"), "")
            continue
        if not much:
            limit[shape] = float(np.quantile(far, 1 - ALPHA))
        if shape in limit:
            power, raw = float(np.mean(np.array(far) > limit[shape])), float(found.raw.mean())
            yield Row(f"{name}: KS on merged KLL", power, "power", raw, power / max(raw, 1e-9))


def _fleets(
    random: np.random.Generator, shape: str, change: str, much: float, *, repeats: int
) -> tuple[Found, list[float], str]:
    """Return what both sides find in each fleet, the distances of its sketches, and why there are none."""
    fired: list[tuple[Rows, Rows]] = []
    far: list[float] = []
    missing = ""
    for _ in range(-(-repeats // FLEETS)):
        training = SHAPES[shape](random, (FLEETS, REFERENCE))
        merged = CHANGES[change](random, SHAPES[shape](random, (FLEETS, DEVICES * OF_DEVICE)), much)
        pairs = [(before, now[None]) for before, now in zip(training, merged, strict=True)]
        ours, raw = (np.array([test(*pair)[0] for pair in pairs], float) for test in (views_fire, ks_fires))
        fired.append((ours, raw))
        try:
            far += [] if missing else sketched(training, merged.reshape(FLEETS, DEVICES, OF_DEVICE))
        except PeerMissingError as error:
            missing = str(error)
    ours, raw = (np.concatenate(side) for side in zip(*fired, strict=True))
    return Found(ours, raw), far, missing


def sketched(training: Rows, devices: Rows) -> list[float]:
    """Return the KS distance of merged KLL sketches, of each repeat."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "rows.npz"
        np.savez(path, training=training, fleet=devices)
        found: list[float] = ask("datasketches", _MERGED, str(path))
    return found


def _level(name: str, found: Found) -> Row:
    level, error = float(found.ours.mean()), float(found.ours.std(ddof=1)) / len(found.ours) ** 0.5
    most = ALPHA + 2.58 * max(error, (ALPHA / max(len(found.ours), 1)) ** 0.5 / 5)  # as far as chance takes 1 %
    return Row(name, level, "level", float(found.raw.mean()), None, f"<= {most:.4f}", level <= most)


def _row(name: str, found: Found, least: float) -> Row:
    low, high = found.interval
    told = f"{name} [{low:.2f}, {high:.2f}]"
    return Row(
        told, float(found.ours.mean()), "power", float(found.raw.mean()), found.ratio, f">= {least:g}x",
        found.ratio >= least,
    )  # fmt: skip


if __name__ == "__main__":
    said = options()
    run("drift_power", rows(repeats=4000 if said.full else 600, seed=said.seed))
