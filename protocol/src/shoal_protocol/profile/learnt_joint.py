"""Joint features of a bundle without data: of the correlations that devices told, and how their columns are spread.

Owns which components are fixed, and about how the fleet lies on them. A device's first rows say how its numbers move
together; the fleet's word is the median over the devices of each correlation, so that no device decides. Values are
taken for normal about each device's own mean: only cells are fitted to them. Leaves the arithmetic to `joint`.
"""

from __future__ import annotations

from collections.abc import Sequence
from statistics import NormalDist
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from msgspec.structs import replace

from shoal_protocol.bundle.schema import ModelSchema
from shoal_protocol.profile.derivation import JOINT
from shoal_protocol.profile.grid import MISSING, NumericGrid, fit_numeric
from shoal_protocol.profile.joint import UNIT
from shoal_protocol.profile.joint_fitting import LEAST_SPREAD, component_weights, free_names, kept_joints
from shoal_protocol.profile.profile import ProfileSpec, Stream
from shoal_protocol.profile.sketch import CORRELATION_UNIT, Sketch, Sketches, joinable
from shoal_protocol.profile.sketch_pool import Pool, is_of_kind, number_part

Floats = npt.NDArray[np.float64]

_ROWS = 256
_FARTHEST = 6.0
"""Spreads that a device's mean may lie off the median device's, as far as cells are concerned."""

_ROUNDING = 1 / 12
"""Variance, in cells, of where in its cell a value lies."""


class _Sources(NamedTuple):
    """Columns that are joined, and how they move on their cells.

    Attributes:
        streams: The columns' own streams, S.
        mean: By device, shape (D, S); NaN: it told nothing of the column.
        spread: Standard deviation, the same.
        correlations: Of the fleet, shape (S, S).
    """

    streams: list[Stream]
    mean: Floats
    spread: Floats
    correlations: Floats

    def only(self, chosen: npt.NDArray[np.intp]) -> _Sources:
        """Return these with some columns only."""
        streams = [self.streams[at] for at in chosen]
        table = self.correlations[np.ix_(chosen, chosen)]
        return _Sources(streams, self.mean[:, chosen], self.spread[:, chosen], table)


def learnt_joints(
    schema: ModelSchema, streams: Sequence[Stream], pool: Pool, *, parent: ProfileSpec | None = None
) -> list[tuple[Stream, Floats]]:
    """Return the joint features, each with values of a made-up sample; none where too little is known.

    Args:
        schema: Of the bundle.
        streams: Those that are counted, without joint ones.
        pool: What the devices told.
        parent: An earlier version's spec: its joint features are kept where all they are made of counts the same.
    """
    told = [one for one in pool.told if any(sketch.correlations for sketch in one.values())]
    if not told:
        return []
    sources = _sources(schema, streams, told)
    sources = sources.only(np.flatnonzero(_median(sources.spread) >= LEAST_SPREAD))
    if len(sources.streams) < 2:
        return []
    known = {stream.name for stream in sources.streams}
    kept = [joint for joint in kept_joints(streams, parent) if known.issuperset(joint.params["streams"])]
    if kept:
        return [(joint, _values(joint, sources, pool.rows)) for joint in kept]
    fresh = [(joint, _values(joint, sources, pool.rows)) for joint in _components(sources, streams)]
    return [(replace(joint, grid=fit_numeric(values)), values) for joint, values in fresh]


def _sources(schema: ModelSchema, streams: Sequence[Stream], told: Sequence[Sketches]) -> _Sources:
    numeric = {s.name: s for s in streams if s.kind == "input" and s.derive == "value"}
    fields = [(at, field.name) for at, field in enumerate(joinable(schema)) if _is_joined(at, f"in:{field.name}", told)]
    chosen = [(at, numeric[n]) for at, n in fields if n in numeric and isinstance(numeric[n].grid, NumericGrid)]
    keys = [f"in:{stream.name}" for _, stream in chosen]
    table = [[_moments(stream, one.get(key)) for key, (_, stream) in zip(keys, chosen, strict=True)] for one in told]
    moments = np.array(table, dtype=np.float64).reshape(len(told), len(chosen), 2)
    correlations = np.eye(len(chosen))
    for row in range(len(chosen)):
        lists = [one[keys[row]].correlations for one in told if keys[row] in one]
        for column, (place, _) in enumerate(chosen[:row]):
            found = [parts[place] for parts in lists if place < len(parts)]
            correlations[row, column] = correlations[column, row] = (
                np.median(found) / CORRELATION_UNIT if found else 0.0
            )
    return _Sources([stream for _, stream in chosen], moments[..., 0], moments[..., 1], correlations)


def _is_joined(place: int, key: str, told: Sequence[Sketches]) -> bool:
    """Tell whether some device told how a column correlates with all before it."""
    return any(len(one[key].correlations) == place for one in told if key in one)


def _moments(stream: Stream, one: Sketch | None) -> tuple[float, float]:
    """Return mean and spread of a device's cells of a column; NaN: it told nothing of it."""
    if one is None or not is_of_kind(one, is_text=False):
        return np.nan, np.nan
    cells = stream.grid.cells_of(number_part(one, _ROWS))
    present = cells[cells != MISSING]
    return (float(present.mean()), float(present.std())) if present.size else (np.nan, np.nan)


def _median(by_device: Floats) -> Floats:
    """Return the median over the devices that know something; 0: none does."""
    known = np.isfinite(by_device)
    return np.array(
        [np.median(column[mask]) if mask.any() else 0.0 for column, mask in zip(by_device.T, known.T, strict=True)]
    )


def _components(sources: _Sources, streams: Sequence[Stream]) -> list[Stream]:
    names, of = free_names(streams), [stream.name for stream in sources.streams]
    centers = np.rint(_median(sources.mean)).astype(int).tolist()
    weights = component_weights(sources.correlations, _median(sources.spread))
    raw = Stream("", "input", NumericGrid(0.0, 1.0), sources.streams[0].tensor, None, JOINT)
    return [
        replace(raw, name=next(names), params={"streams": of, "centers": centers, "weights": one.tolist()})
        for one in weights
    ]


def _values(joint: Stream, sources: _Sources, rows: int) -> Floats:
    """Return about how the fleet's rows lie on a joint feature, shape (rows,): normal on each device."""
    place = {stream.name: at for at, stream in enumerate(sources.streams)}
    one = sources.only(np.array([place[name] for name in joint.params["streams"]], dtype=np.intp))
    weights = np.asarray(joint.params["weights"], dtype=np.float64) / UNIT
    usual = _median(one.spread)
    away = np.where(np.isfinite(one.mean), one.mean - np.asarray(joint.params["centers"], dtype=np.float64), 0.0)
    scaled = np.where(np.isfinite(one.spread), one.spread, usual) * weights
    rounding = _ROUNDING * float(weights @ weights)
    spread = np.sqrt(np.maximum(np.einsum("ds,st,dt->d", scaled, one.correlations, scaled), 0.0) + rounding)
    offset = away @ weights
    middle, typical = float(np.median(offset)), float(np.median(spread))
    held = np.clip(offset, middle - _FARTHEST * typical, middle + _FARTHEST * typical)
    parts = np.diff(np.linspace(0, rows, len(held) + 1).round().astype(int)).tolist()
    return np.concatenate(
        [m + s * _normal(n) for m, s, n in zip(held, np.minimum(spread, _FARTHEST * typical), parts, strict=True)]
    )


def _normal(rows: int) -> Floats:
    """Return so many quantiles of the standard normal distribution."""
    standard = NormalDist()
    return np.array([standard.inv_cdf((at + 0.5) / rows) for at in range(rows)])
