"""Counting joint features of a block from the cells in which its numeric streams fell.

Owns the vectorised arithmetic only, which must give what `shoal_protocol.profile.joint` and its grid give.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from shoal_protocol.profile.grid import BELOW, NumericGrid
from shoal_protocol.profile.joint import joint_values
from shoal_protocol.profile.profile import Counts, Stream

Array = npt.NDArray[Any]


class JointBlock:
    """All joint features of a spec.

    Args:
        streams: Joint features; each source is one of `numeric`.
        starts: Place of each in the flat vector of fine cells.
        numeric: Names of the streams whose cells `count` gets, in order.
    """

    def __init__(self, streams: Sequence[Stream], starts: npt.NDArray[np.intp], numeric: Sequence[str]) -> None:
        grids = [stream.grid for stream in streams if isinstance(stream.grid, NumericGrid)]
        self.size = len(grids)
        """How many joint features there are."""
        places = {name: at for at, name in enumerate(numeric)}
        used = sorted({places[name] for stream in streams for name in stream.params["streams"]})
        self._used = used if len(used) < len(numeric) else None
        column = {at: place for place, at in enumerate(used)}
        self._weights = np.zeros((self.size, len(used)))
        self._centers = np.zeros(len(used))
        for row, stream in enumerate(streams):
            columns = [column[places[name]] for name in stream.params["streams"]]
            self._weights[row, columns] = stream.params["weights"]
            self._centers[columns] = stream.params["centers"]
        self._starts = starts.astype(np.int32)[:, None]
        self._curved = [(at, np.float32(grid.scale)) for at, grid in enumerate(grids) if grid.transform == "asinh"]
        self._origin = np.array([[grid.origin] for grid in grids], dtype=np.float32)
        self._inverse_step = np.array([[grid.inverse_step] for grid in grids], dtype=np.float32)
        self._top = np.array([[grid.cells - 1] for grid in grids], dtype=np.float32)

    def count(self, cells: Array, into: Counts) -> None:
        """Add rows to the counts.

        Args:
            cells: Of the numeric streams, shape (rows, streams).
            into: Fine counts of all streams.
        """
        x = joint_values(cells if self._used is None else cells[:, self._used], self._centers, self._weights)
        for at, scale in self._curved:
            x[at] = np.arcsinh(x[at] / scale)
        np.subtract(x, self._origin, out=x)
        np.multiply(x, self._inverse_step, out=x)
        np.clip(x, np.float32(BELOW), self._top, out=x)
        into += np.bincount((x.astype(np.int32) + self._starts).ravel(), minlength=len(into))
