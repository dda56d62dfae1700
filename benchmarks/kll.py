"""A plain KLL quantile sketch, as a peer to compare with: Karnin, Lang and Liberty 2016 (arXiv 1603.05346)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Rows = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Sketch:
    """Levels of values; one of level h stands for 2 ** h rows.

    A level of more than its capacity (k at the top, two thirds of the one above below that) is sorted, and every second
    of its values, from a random one of the first two on, moves up.
    """

    levels: tuple[Rows, ...]

    K = 200

    @classmethod
    def of(cls, rows: Rows, random: np.random.Generator) -> Sketch:
        """Sketch some rows."""
        return cls((rows,)).compacted(random)

    def merged(self, other: Sketch, random: np.random.Generator) -> Sketch:
        """Return the sketch of both's rows."""
        height = max(len(self.levels), len(other.levels))
        empty = np.zeros(0)
        both = [
            np.concatenate([side.levels[at] if at < len(side.levels) else empty for side in (self, other)])
            for at in range(height)
        ]
        return Sketch(tuple(both)).compacted(random)

    def compacted(self, random: np.random.Generator) -> Sketch:
        """Return it within its size."""
        levels = list(self.levels)
        at = 0
        while at < len(levels):
            capacity = max(8, int(self.K * (2 / 3) ** (len(levels) - 1 - at)))
            if len(levels[at]) > capacity:
                if at + 1 == len(levels):
                    levels.append(np.zeros(0))
                ordered = np.sort(levels[at])
                even = len(ordered) // 2 * 2
                up = ordered[int(random.integers(2)) : even : 2]
                levels[at], levels[at + 1] = ordered[even:], np.concatenate([levels[at + 1], up])
            at += 1
        return Sketch(tuple(levels))

    def weighted(self) -> tuple[Rows, Rows]:
        """Return values in order and the share of rows up to each."""
        values = np.concatenate(self.levels)
        weights = np.concatenate([np.full(len(level), 2.0**at) for at, level in enumerate(self.levels)])
        order = np.argsort(values)
        return values[order], np.cumsum(weights[order]) / weights.sum()


def distance(a: Sketch, b: Sketch) -> float:
    """Kolmogorov-Smirnov distance of two sketches."""
    sides = [side.weighted() for side in (a, b)]
    at = np.concatenate([values for values, _ in sides])
    shares = [np.concatenate([[0.0], upto])[np.searchsorted(values, at, side="right")] for values, upto in sides]
    return float(np.abs(shares[0] - shares[1]).max())
