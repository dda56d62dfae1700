"""Joint features of a reference: principal components of the numeric inputs, fixed when the bundle is packed.

Owns which components are counted. The largest show where the fleet moves together; the smallest, what hardly ever
varies in the training data, show at once when a correlation breaks. Leaves the arithmetic to
`shoal_protocol.profile.joint`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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
_LEAST_SPREAD = 0.2
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
    old = _kept(streams, parent)
    if old:
        return old
    sources = [s for s in streams if s.kind == "input" and s.derive == "value" and isinstance(s.grid, NumericGrid)]
    cells = [source.grid.cells_of(derived(source, tensors[source.tensor])) for source in sources[:MOST_SOURCES]]
    varying = [at for at, column in enumerate(cells) if _varies(column[column != MISSING])]
    if len(varying) < 2 or len(cells[0]) < max(_FEWEST_ROWS, _ROWS_A_SOURCE * len(varying)):
        return []
    sources = [sources[at] for at in varying]
    matrix = np.stack([cells[at] for at in varying], axis=1)
    taken = {stream.name for stream in streams}
    names = (name for at in range(1, len(taken) + LARGEST + SMALLEST + 1) if (name := f"joint {at}") not in taken)
    return [
        _stream(next(names), sources, matrix, centers, weights)
        for centers, weights in _components(matrix.astype(float))
    ]


def _varies(cells: Array) -> bool:
    return len(cells) > 0 and float(np.std(cells)) >= _LEAST_SPREAD


def _components(cells: npt.NDArray[np.float64]) -> list[tuple[list[int], list[int]]]:
    """Return centers and weights of the components, the largest first."""
    present = cells != MISSING
    masked = np.where(present, cells, np.nan)
    centers, spread = np.rint(np.nanmean(masked, axis=0)), np.nanstd(masked, axis=0)
    standard = np.where(present, cells - centers, 0.0) / spread
    vectors = np.linalg.eigh(np.corrcoef(standard, rowvar=False))[1][:, ::-1].T
    chosen = vectors if len(vectors) <= LARGEST + SMALLEST else np.concatenate([vectors[:LARGEST], vectors[-SMALLEST:]])
    found = []
    for vector in chosen:
        signed = vector * np.sign(vector[np.argmax(np.abs(vector))])  # a component's sign is arbitrary: fixed here
        weights = np.rint(signed / spread * UNIT).astype(int)
        found.append((centers.astype(int).tolist(), weights.tolist()))
    return found


def _stream(name: str, sources: Sequence[Stream], cells: Array, centers: list[int], weights: list[int]) -> Stream:
    values = joint_values(cells, np.array(centers, dtype=np.float64), np.array([weights], dtype=np.float64))[0]
    params = {"streams": [source.name for source in sources], "centers": centers, "weights": weights}
    return Stream(name, "input", fit_numeric(values), sources[0].tensor, None, JOINT, params)


def _kept(streams: Sequence[Stream], parent: ProfileSpec | None) -> list[Stream]:
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
