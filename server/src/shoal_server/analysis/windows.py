"""Windows of one bundle as numpy arrays: counts, edges, times, devices; exact sums and quantiles with bounds. Pure.

Counts add up exactly: `merged` of any windows is the profile of all their rows. What lies inside a cell is not known,
so a quantile comes with the bounds of its cell: the true one is between them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from shoal_protocol.errors import CallerError
from shoal_protocol.profile.codec import LATENCIES
from shoal_protocol.profile.grid import MISSING, NumericGrid
from shoal_protocol.profile.profile import Profile
from shoal_protocol.profile.recording import RecordedWindow
from shoal_protocol.profile.reference import Reference
from shoal_server.statistics.cells import cells_of

if TYPE_CHECKING:
    import pandas as pd
    import polars as pl
    import pyarrow as pa

Counts = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Quantile:
    """A quantile of binned values.

    Attributes:
        value: Interpolated inside its cell.
        low, high: The true one lies between; infinite where the cell has no end.
    """

    value: float
    low: float
    high: float


@dataclass(frozen=True, eq=False, kw_only=True)
class Windows:
    """W windows of one bundle in one slot, in the order in which the server stored them.

    Attributes:
        name: ``model:version``.
        digest: Of the bundle.
        reference: Grids, counts of the training data, importance.
        device: Of each window, length W.
        seq: Number of each on its device, int64.
        start: Begin of each in UTC, datetime64[ms].
        length_ms: Length of each, int64.
        n: Rows of each, int64.
        errors: Failed predictions of each, int64.
        received_at: Seconds since the epoch, float64.
        cells: Coarse counts, int64 of shape (W, reference.spec.size).
        moments: Sums of the fine cell's index and of its square, int64 of shape (W, streams, 2).
        latency: Counts by `shoal_protocol.profile.codec.LATENCY_EDGES_US`, int64 of shape (W, edges + 1).
        facts: Labels and facts of each device that counts.
    """

    name: str
    digest: str
    reference: Reference
    device: npt.NDArray[np.str_]
    seq: Counts
    start: npt.NDArray[np.datetime64]
    length_ms: Counts
    n: Counts
    errors: Counts
    received_at: npt.NDArray[np.float64]
    cells: Counts
    moments: Counts
    latency: Counts
    facts: Mapping[str, Mapping[str, str]]

    @classmethod
    def of(
        cls,
        windows: Sequence[RecordedWindow],
        *,
        digest: str,
        name: str,
        reference: Reference,
        facts: Mapping[str, Mapping[str, str]],
    ) -> Windows:
        """Stack recorded windows of one bundle, whose counts were checked."""
        spec = reference.spec
        latency = np.zeros((len(windows), LATENCIES), np.int64)
        for at, window in enumerate(windows):
            latency[at, : len(window.latency)] = window.latency

        def numbers(name: str) -> Counts:
            return np.array([getattr(window, name) for window in windows], np.int64)

        return cls(
            name=name,
            digest=digest,
            reference=reference,
            device=np.array([window.device for window in windows], dtype=np.str_),
            seq=numbers("seq"),
            start=numbers("start_ms").astype("datetime64[ms]"),
            length_ms=numbers("length_ms"),
            n=numbers("n"),
            errors=numbers("errors"),
            received_at=np.array([window.received_at for window in windows], np.float64),
            cells=numbers("cells").reshape(len(windows), spec.size),
            moments=numbers("moments").reshape(len(windows), len(spec.streams), 2),
            latency=latency,
            facts=facts,
        )

    def __repr__(self) -> str:
        span = f", {self.start.min()} to {self.start.max()} UTC" if len(self) else ""
        devices = np.unique(self.device).size
        return (
            f"<Windows of {self.name}: {len(self):,} of {devices:,} devices{span}, {int(self.n.sum()):,} rows, "
            f"{len(self.features)} streams>"
        )

    def __len__(self) -> int:
        return len(self.device)

    @property
    def features(self) -> list[str]:
        """Names of the streams that are counted."""
        return list(self.reference.spec.index)

    def counts(self, feature: str) -> Counts:
        """Return one stream's counts, int64 of shape (W, bins); `labels` names the bins. Raises `CallerError`."""
        return self.cells[:, self.reference.spec.slice(feature)]

    def labels(self, feature: str) -> list[str]:
        """Return the bins' names: missing, below or other, then ranges or categories. Raises `CallerError`."""
        return [cell.label for cell in cells_of(self._grid(feature))]

    def edges(self, feature: str) -> npt.NDArray[np.float64]:
        """Return lower and upper bound of each bin, float64 of shape (bins, 2).

        Missing values and categories have none (NaN); what is below or above the range is bounded on one side only.

        Raises:
            CallerError: There is no such stream.
        """
        rows = []
        for at, cell in enumerate(cells_of(self._grid(feature))):
            bounded = at != MISSING and (cell.low is not None or cell.high is not None)
            low = -np.inf if cell.low is None else cell.low
            high = np.inf if cell.high is None else cell.high
            rows.append((low, high) if bounded else (np.nan, np.nan))
        return np.array(rows, np.float64)

    def fact(self, key: str) -> npt.NDArray[np.str_]:
        """Return a label or fact of the device of each window, such as ``site``; empty where it has none.

        Raises:
            CallerError: No device has such a one.
        """
        known = sorted({one for facts in self.facts.values() for one in facts})
        if key not in known:
            raise CallerError(f"no device has a label or fact {key!r:.80}; there are: {', '.join(known) or 'none'}")
        return np.array([self.facts.get(str(device), {}).get(key, "") for device in self.device], dtype=np.str_)

    def select(self, keep: npt.NDArray[np.bool_]) -> Windows:
        """Return some of the windows, such as ``windows.select(windows.fact("site") == "bern")``.

        Raises:
            CallerError: The mask has another length.
        """
        keep = np.asarray(keep)
        if keep.dtype != np.bool_ or keep.shape != (len(self),):
            raise CallerError(f"expected a mask of {len(self)} truth values, got {keep.dtype} of shape {keep.shape}")
        per_window = (
            "device",
            "seq",
            "start",
            "length_ms",
            "n",
            "errors",
            "received_at",
            "cells",
            "moments",
            "latency",
        )
        return replace(self, **{name: getattr(self, name)[keep] for name in per_window})

    def merged(self) -> Profile:
        """Return the exact profile of all rows of all windows; of none it is the empty one."""
        spec = self.reference.spec
        return Profile(spec.hash, int(self.n.sum()), self.cells.sum(axis=0), self.moments.sum(axis=0))

    def merged_by(self, keys: npt.ArrayLike) -> tuple[npt.NDArray[Any], Counts]:
        """Sum windows that share a key, such as a device or an hour: ``windows.start.astype("datetime64[h]")``.

        Args:
            keys: Of each window, length W.

        Returns:
            The different keys in order, and counts of shape (keys, size).
        """
        different, place = np.unique(np.asarray(keys), return_inverse=True)
        total = np.zeros((len(different), self.reference.spec.size), np.int64)
        np.add.at(total, place, self.cells)
        return different, total

    def quantile(self, feature: str, q: float) -> Quantile:
        """Return a quantile of a numeric stream over all windows, with the bounds that the bins give.

        Args:
            feature: Name of the stream.
            q: From 0 to 1.

        Raises:
            CallerError: It is not numeric, `q` is out of range, or no value was counted.
        """
        if not 0 <= q <= 1:
            raise CallerError(f"expected a share from 0 to 1, got {q}")
        if not isinstance(self._grid(feature), NumericGrid):
            raise CallerError(f"{feature} holds no numbers, so it has no quantiles")
        counts = self.counts(feature).sum(axis=0)[MISSING + 1 :].astype(np.float64)
        if not counts.sum():
            raise CallerError(f"no value of {feature} was counted")
        bounds = self.edges(feature)[MISSING + 1 :]
        reached = np.cumsum(counts)
        rank = q * reached[-1]
        at = int(np.searchsorted(reached, rank)) if rank > 0 else int(np.flatnonzero(counts)[0])
        low, high = (float(bound) for bound in bounds[at])
        if not np.isfinite([low, high]).all():
            return Quantile(high if np.isinf(low) else low, low, high)
        share = (rank - (reached[at] - counts[at])) / counts[at]
        return Quantile(low + (high - low) * float(np.clip(share, 0, 1)), low, high)

    def to_pandas(self) -> pd.DataFrame:
        """Return a long table, a row for each window, feature and bin that is not empty; see `analysis.tables`."""
        from shoal_server.analysis import tables  # noqa: PLC0415 - libraries that most don't need

        return tables.to_pandas(self)

    def to_polars(self) -> pl.DataFrame:
        """Return the same as a Polars frame."""
        from shoal_server.analysis import tables  # noqa: PLC0415 - likewise

        return tables.to_polars(self)

    def to_arrow(self) -> pa.Table:
        """Return the same as an Arrow table."""
        from shoal_server.analysis import tables  # noqa: PLC0415 - likewise

        return tables.to_arrow(self)

    def _grid(self, feature: str) -> Any:
        self.reference.spec.slice(feature)  # says which there are
        return self.reference.spec.streams[self.reference.spec.index[feature]].grid
