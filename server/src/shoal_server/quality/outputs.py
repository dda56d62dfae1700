"""What models said, read from the counts of their output streams: confidences, classes, scores. Pure.

Owns which streams mean what. Only streams on the grid of scores (64 equal bins on [0, 1]) can be judged without labels.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from shoal_protocol.profile.grid import CategoricalGrid, grid_hash, unit_interval_grid
from shoal_protocol.profile.labels import CONFIDENCE_BINS
from shoal_protocol.profile.profile import ProfileSpec, Stream

Numbers = npt.NDArray[np.int64]

_UNIT = grid_hash(unit_interval_grid())
_FIRST_BIN = 2


@dataclass(frozen=True, eq=False)
class Outputs:
    """Counts of what was said.

    Attributes:
        n: Rows.
        confidences: By bin of the largest probability, int64[64]; none: the model gives no probabilities.
        scores: By bin of the second class's probability, of a model with two classes.
        classes: Rows by the text of the predicted class.
    """

    n: int
    confidences: Numbers | None
    scores: Numbers | None
    classes: dict[str, int]

    def said(self, classes: tuple[str, ...]) -> Numbers:
        """Return rows by predicted class in an order."""
        return np.array([self.classes.get(name, 0) for name in classes], np.int64)


class OutputLayout:
    """Where the output streams of a spec lie in its flat vector of counts.

    Args:
        spec: Of the bundle.
    """

    def __init__(self, spec: ProfileSpec) -> None:
        self._streams = [stream for stream in spec.streams if stream.kind == "output"]
        parts = [
            np.arange(a, b)
            for a, b, s in zip(spec.offsets, spec.offsets[1:], spec.streams, strict=False)
            if s.kind == "output"
        ]
        self.cells = np.concatenate(parts) if parts else np.zeros(0, np.int64)
        """Places of the output streams' cells in the flat vector."""
        sizes = [stream.grid.size for stream in self._streams]
        self._starts = np.cumsum([0, *sizes])

    def read(self, n: int, cells: Numbers) -> Outputs:
        """Read counts.

        Args:
            n: Rows.
            cells: Of the output streams alone, int64 of the length of `cells`.
        """
        confidences = scores = None
        classes: dict[str, int] = {}
        for at, stream in enumerate(self._streams):
            counts = cells[self._starts[at] : self._starts[at + 1]]
            if isinstance(stream.grid, CategoricalGrid):
                classes = classes or dict(zip(stream.grid.categories, counts[_FIRST_BIN:].tolist(), strict=True))
            elif _is_unit(stream) and stream.derive == "row_max":
                confidences = counts[_FIRST_BIN : _FIRST_BIN + CONFIDENCE_BINS]
            elif _is_unit(stream) and stream.column == 1:
                scores = counts[_FIRST_BIN : _FIRST_BIN + CONFIDENCE_BINS]
        return Outputs(n, confidences, scores, classes)


def _is_unit(stream: Stream) -> bool:
    return stream.grid_hash == _UNIT
