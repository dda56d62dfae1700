"""What is summed up in a window: calls, rows, errors, latency, and fine cells; and its form when it closes."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import numpy as np
import numpy.typing as npt

from shoal_protocol.bundle.contract import Rule
from shoal_protocol.profile.codec import LATENCY_EDGES_US
from shoal_protocol.profile.contract import violations
from shoal_protocol.profile.grid import NumericGrid
from shoal_protocol.profile.profile import Counts, Profile, ProfileSpec, Stream

_EDGES_NS = np.array(LATENCY_EDGES_US, dtype=np.int64) * 1000


class WindowSummary(msgspec.Struct, frozen=True):
    """One window of one model.

    Attributes:
        n: Rows counted; fewer than answered where large batches were sampled.
        rows: Rows answered.
        errors: Predictions that failed inside the model.
        refused: Requests whose input did not fit the schema.
        latency: Counts of predictions by `LATENCY_EDGES_US`, int64 of its length + 1.
        profile: Counts on the bundle's grids; of no stream where the bundle has no reference.
        violations: Rows that break each rule of the bundle's contract.
    """

    n: int
    rows: int
    errors: int
    refused: int
    latency: Counts
    profile: Profile
    violations: tuple[int, ...] = ()

    @property
    def calls(self) -> int:
        """Predictions answered."""
        return int(self.latency.sum())

    @property
    def is_silent(self) -> bool:
        """Whether nothing at all happened; the rows of a call may come one window after its latency."""
        return not (self.calls or self.rows or self.errors or self.refused)


class Totals(msgspec.Struct, frozen=True):
    """Since the model was loaded; never decreasing. Latency as in `WindowSummary`.

    Attributes:
        counted: Rows that streams looked at.
        nans: At least so many of those are no answer, because there is a NaN in it.
    """

    calls: int
    rows: int
    errors: int
    refused: int
    latency: Counts
    latency_sum_s: float
    counted: int = 0
    nans: int = 0


class Sums(msgspec.Struct):
    """Running sums of one window, or of all."""

    n: int
    rows: int
    errors: int
    refused: int
    latency: Counts
    latency_ns: int
    fine: Counts
    nans: int = 0

    @classmethod
    def empty(cls, spec: ProfileSpec) -> Sums:
        """Return sums of nothing."""
        fine = sum(stream.grid.cells for stream in spec.streams)
        return cls(0, 0, 0, 0, np.zeros(len(_EDGES_NS) + 1, np.int64), 0, np.zeros(fine, np.int64))

    def add_latencies(self, elapsed_ns: npt.NDArray[np.int64]) -> None:
        """Add calls by how long each took, in nanoseconds."""
        self.latency_ns += int(elapsed_ns.sum())
        self.latency += np.bincount(np.searchsorted(_EDGES_NS, elapsed_ns), minlength=len(self.latency))

    def add(self, other: Sums) -> None:
        """Add all but the cells."""
        self.n += other.n
        self.rows += other.rows
        self.errors += other.errors
        self.refused += other.refused
        self.latency += other.latency
        self.latency_ns += other.latency_ns
        self.nans += other.nans

    def summary(self, spec: ProfileSpec, rules: Sequence[tuple[Rule, Stream]] = ()) -> WindowSummary:
        """Return the closed form.

        Args:
            spec: The streams that are reported.
            rules: Those of the contract, with their streams, which lie behind the others.
        """
        size = sum(stream.grid.cells for stream in spec.streams)
        ends = np.cumsum([stream.grid.cells for _, stream in rules], dtype=np.intp)
        broken = violations([rule for rule, _ in rules], np.split(self.fine[size:], ends[:-1]) if rules else [])
        profile = coarse_profile(spec, self.fine[:size], self.n)
        return WindowSummary(self.n, self.rows, self.errors, self.refused, self.latency, profile, broken)


def coarse_profile(spec: ProfileSpec, fine: Counts, n: int) -> Profile:
    """Return the profile of fine counts.

    Args:
        spec: The streams.
        fine: Counts of all streams' fine cells, one stream after the other.
        n: Rows counted.
    """
    if not spec.streams:
        return Profile(spec.hash, n, np.zeros(0, np.int64), np.zeros((0, 2), np.int64))
    sizes = np.array([stream.grid.cells for stream in spec.streams])
    starts = np.cumsum(sizes) - sizes
    coarse = np.concatenate([start + np.array(s.grid.coarse) for start, s in zip(starts, spec.streams, strict=True)])
    numeric = np.repeat([isinstance(stream.grid, NumericGrid) for stream in spec.streams], sizes)
    index = (np.arange(len(fine)) - np.repeat(starts, sizes)) * numeric
    moments = [np.add.reduceat(fine * index**power, starts) for power in (1, 2)]
    return Profile(spec.hash, n, np.add.reduceat(fine, coarse), np.stack(moments, axis=1))
