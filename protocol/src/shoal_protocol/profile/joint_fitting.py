"""Joint features of a reference: principal components of the numeric inputs, fixed when the bundle is packed.

Owns which components are counted. The largest show where the fleet moves together; the smallest, what hardly ever
varies in the training data, show at once when a correlation breaks. Leaves the arithmetic to
`shoal_protocol.profile.joint`.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from msgspec.structs import replace

from shoal_protocol.profile.derivation import JOINT
from shoal_protocol.profile.grid import MISSING, NumericGrid, fit_numeric
from shoal_protocol.profile.joint import MOST_SOURCES, UNIT, joint_values
from shoal_protocol.profile.profile import ProfileSpec, Stream, derived

Array = npt.NDArray[Any]

LARGEST, SMALLEST = 3, 3
_ROWS_A_SOURCE = 5
_FEWEST_ROWS = 50
LEAST_SPREAD = 0.2
"""Cells of standard deviation: what hardly ever leaves one cell has no correlation worth knowing."""


def joint_streams(
    streams: Sequence[Stream], tensors: Mapping[str, Array], *, parent: ProfileSpec | None = None
) -> list[Stream]:
    """Return the joint features, ``joint 1`` the one that varies most; none of too few rows to know them.

    Args:
        streams: Of the model, without joint ones.
        tensors: The sample's.
        parent: An earlier version's spec: its joint features are kept where all they are made of counts the same.
    """
    old = kept_joints(streams, parent)
    if old:
        return old
    sources = [s for s in streams if s.kind == "input" and s.derive == "value" and isinstance(s.grid, NumericGrid)]
    cells = [source.grid.cells_of(derived(source, tensors[source.tensor])) for source in sources[:MOST_SOURCES]]
    varying = [at for at, column in enumerate(cells) if _varies(column[column != MISSING])]
    if len(varying) < 2 or len(cells[0]) < max(_FEWEST_ROWS, _ROWS_A_SOURCE * len(varying)):
        return []
    sources = [sources[at] for at in varying]
    matrix = np.stack([cells[at] for at in varying], axis=1)
    names = free_names(streams)
    return [
        _stream(next(names), sources, matrix, centers, weights)
        for centers, weights in _components(matrix.astype(float))
    ]


def free_names(streams: Sequence[Stream]) -> Iterator[str]:
    """Yield names of joint features that no stream has."""
    taken = {stream.name for stream in streams}
    return (name for at in itertools.count(1) if (name := f"joint {at}") not in taken)


def _varies(cells: Array) -> bool:
    return len(cells) > 0 and float(np.std(cells)) >= LEAST_SPREAD


def _components(cells: npt.NDArray[np.float64]) -> list[tuple[list[int], list[int]]]:
    """Return centers and weights of the components, the largest first."""
    present = cells != MISSING
    masked = np.where(present, cells, np.nan)
    centers, spread = np.rint(np.nanmean(masked, axis=0)), np.nanstd(masked, axis=0)
    standard = np.where(present, cells - centers, 0.0) / spread
    weights = component_weights(np.corrcoef(standard, rowvar=False), spread)
    return [(centers.astype(int).tolist(), vector.tolist()) for vector in weights]


def component_weights(correlations: npt.NDArray[np.float64], spread: npt.NDArray[np.float64]) -> npt.NDArray[np.int64]:
    """Return the weights of the components that are counted, the largest component first.

    Args:
        correlations: Of the sources' cells, shape (sources, sources).
        spread: Standard deviation of each source's cells, shape (sources,).

    Returns:
        Shape (joints, sources).
    """
    vectors = np.linalg.eigh(correlations)[1][:, ::-1].T
    chosen = vectors if len(vectors) <= LARGEST + SMALLEST else np.concatenate([vectors[:LARGEST], vectors[-SMALLEST:]])
    largest = chosen[np.arange(len(chosen)), np.argmax(np.abs(chosen), axis=1)]
    signed = chosen * np.sign(largest)[:, None]  # a component's sign is arbitrary: fixed here
    return np.asarray(np.rint(signed / spread * UNIT).astype(np.int64))


def _stream(name: str, sources: Sequence[Stream], cells: Array, centers: list[int], weights: list[int]) -> Stream:
    values = joint_values(cells, np.array(centers, dtype=np.float64), np.array([weights], dtype=np.float64))[0]
    params = {"streams": [source.name for source in sources], "centers": centers, "weights": weights}
    return Stream(name, "input", fit_numeric(values), sources[0].tensor, None, JOINT, params)


def kept_joints(streams: Sequence[Stream], parent: ProfileSpec | None) -> list[Stream]:
    """Return an earlier version's joint features, if all that they are made of counts the same."""
    now = {stream.name: stream for stream in streams}
    kept = []
    for old in parent.streams if parent is not None else ():
        if old.derive != JOINT or not old.is_known or old.name in now:
            continue
        made_of = old.params["streams"]
        if not all(name in now and now[name].grid_hash == _hash_of(parent, name) for name in made_of):
            return []
        kept.append(replace(old, tensor=now[made_of[0]].tensor))
    return kept


def _hash_of(spec: ProfileSpec | None, name: str) -> str:
    return "" if spec is None else spec.streams[spec.index[name]].grid_hash
