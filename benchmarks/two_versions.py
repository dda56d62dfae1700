# ruff: noqa: E402 - imports follow the path that they need
"""Two versions at a time: how often a difference that is not there is ever told, and how soon one that is.

Devices whose accuracies differ answer 20 labelled rows an hour, in hours that are alike to a degree; somebody looks
every hour for three days. ``--full`` repeats each world 400 times, without it 60; ``--seed N`` draws other worlds.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Iterator
from pathlib import Path

HERE = Path(__file__).resolve().parent
# Behind everything else: this folder has files named like modules of the standard library.
sys.path[:] = [entry for entry in sys.path if Path(entry).resolve() != HERE] + [str(HERE)]

import numpy as np

from frame import Row, compared, run
from shoal_server.statistics.arms import Arm, compare

HOURS, ROWS, ACCURACY = 72, 20, 0.9
TARGET = 0.05


def arm(random: np.random.Generator, devices: int, *, accuracy: float, apart: float) -> Arm:
    """Draw right answers; the devices' spread is of the logit, that of the hours a third of it."""
    logit = math.log(accuracy / (1 - accuracy)) + apart * random.normal(size=(devices, 1))
    chance = 1 / (1 + np.exp(-logit - apart / 3 * random.normal(size=(devices, HOURS))))
    n = random.poisson(ROWS * np.exp(0.5 * random.normal(size=(devices, 1))), (devices, HOURS))
    right = random.binomial(n, chance).astype(float)
    return Arm(n.astype(float), right, right)


def first_told(a: Arm, b: Arm) -> int | None:
    """Return the hour in which a difference is told first."""
    for hour in range(1, HOURS + 1):
        seen = [Arm(one.n[:, :hour], one.total[:, :hour], one.square[:, :hour]) for one in (a, b)]
        if compare(*seen).verdict in {"a_higher", "b_higher"}:
            return hour
    return None


def rows(*, repeats: int, seed: int) -> Iterator[Row]:
    random = np.random.default_rng(seed)
    for control, canaries in ((27, 3), (25, 5), (10, 10), (30, 30)):
        for apart in (0.3, 0.8):
            told = [
                first_told(*(arm(random, n, accuracy=ACCURACY, apart=apart) for n in (control, canaries)))
                for _ in range(repeats)
            ]
            name = f"equal, {control} and {canaries} devices, spread {apart:g}: ever told"
            yield compared(name, sum(hour is not None for hour in told) / repeats, "", at_most=TARGET)
    for control, canaries in ((27, 3), (25, 5), (10, 10), (30, 30)):
        for worse in (0.05, 0.1):
            hours = []
            for _ in range(repeats // 4):
                a = arm(random, control, accuracy=ACCURACY, apart=0.3)
                hours.append(first_told(a, arm(random, canaries, accuracy=ACCURACY - worse, apart=0.3)))
            found = [hour for hour in hours if hour is not None]
            name = f"{100 * worse:.0f} points worse, {control} and {canaries} devices: told within {HOURS} hours"
            yield Row(name, len(found) / len(hours), "")
            if 2 * len(found) > len(hours):
                yield Row(f"{name}, median hour", float(np.median(found)), "h")


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--full", action="store_true")
    parser.add_argument("--seed", type=int, default=1)
    said, _ = parser.parse_known_args()
    run("two_versions", rows(repeats=400 if said.full else 60, seed=said.seed))
