"""What of a model's outputs is compared between bundles: a few means, each with a meaning that an operator knows.

Owns the choice: the share of every category; of numbers the mean rank, the mean distance from the middle rank, the
shares missing and out of range. All are means over rows with values from 0 to 1, so a difference of 0.1 is ten
percentage points, or ten percentiles. Leaves the comparison to `compare`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from shoal_protocol.profile.grid import CategoricalGrid
from shoal_protocol.profile.profile import ProfileSpec, Stream
from shoal_server.statistics.layout import Floats, Layout
from shoal_server.statistics.views import View


@dataclass(frozen=True)
class Functional:
    """One mean that is compared.

    Attributes:
        stream: Name of the output stream.
        view: What it looks at.
        what: In words, as the subject of a sentence.
    """

    stream: str
    view: View
    what: str


def functionals(streams: Sequence[Stream], shares: Sequence[Floats]) -> tuple[list[Functional], list[Floats]]:
    """Return the functionals of some streams.

    Args:
        streams: The output streams.
        shares: Of each, what ranks refer to: shares of its cells, shape (cells,).

    Returns:
        The functionals, and for each stream its values in each cell, shape (functionals of it, cells).
    """
    found: list[Functional] = []
    values: list[Floats] = []
    for stream, share in zip(streams, shares, strict=True):
        names, matrix = _categories(stream) if isinstance(stream.grid, CategoricalGrid) else _numbers(stream, share)
        found.extend(names)
        values.append(matrix)
    return found, values


def _categories(stream: Stream) -> tuple[list[Functional], Floats]:
    grid = stream.grid
    assert isinstance(grid, CategoricalGrid)
    names = [
        Functional(stream.name, View.MISSING, f"the share of missing {stream.name}s"),
        Functional(stream.name, View.RANGE, f"the share of unknown {stream.name}s"),
        *(Functional(stream.name, View.CELLS, f"the share of {stream.name} {name!r}") for name in grid.categories),
    ]
    return names, np.eye(grid.size)


def _numbers(stream: Stream, share: Floats) -> tuple[list[Functional], Floats]:
    layout = Layout.of(ProfileSpec((stream,)))
    ranks = np.where(layout.missing, 0.5, layout.mid_ranks(share + 1e-9))
    names = [
        Functional(stream.name, View.LOCATION, f"the mean rank of {stream.name}"),
        Functional(stream.name, View.SHAPE, f"the spread of ranks of {stream.name}"),
        Functional(stream.name, View.MISSING, f"the share of missing {stream.name}s"),
        Functional(stream.name, View.RANGE, f"the share of {stream.name}s out of range"),
    ]
    return names, np.stack(
        [ranks, np.abs(2 * ranks - 1), layout.missing.astype(np.float64), layout.outside.astype(np.float64)]
    )
