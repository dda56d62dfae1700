"""Learning what to count of a bundle that came without data: sketches of devices in, one reference for the fleet out.

Owns which streams come of what was told. They are those that packing gives, fitted to a made-up sample with the fleet's
marginals, see `sketch_pool`; joint features come of the correlations, see `learnt_joint`. Digests of wide tensors are
projections on random signs only, see `wide`.

Invariant: the result depends on the set of sketches, not on the order in which they came.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from msgspec.structs import replace

from shoal_protocol.bundle.schema import FieldSpec, ModelSchema, OutputSpec
from shoal_protocol.profile.grid import CategoricalGrid, fit_integer, fit_numeric, unit_interval_grid
from shoal_protocol.profile.learnt_joint import learnt_joints
from shoal_protocol.profile.profile import Profile, ProfileSpec, Stream, derived, tally
from shoal_protocol.profile.reference import Reference
from shoal_protocol.profile.sketch import SHARES, Sketches, is_counted_by_largest, wide_tensors
from shoal_protocol.profile.sketch_pool import Pool
from shoal_protocol.profile.streams import inherited, input_streams, output_streams, uniquely_named
from shoal_protocol.profile.wide import SIZE, first_digests, scale_for

Array = npt.NDArray[Any]
Counted = list[tuple[Stream, Array]]
"""Streams, each with the values of the made-up sample, shape (rows,)."""

LEARNT = "first windows"
"""What `Reference.sources` says of a profile that was learnt."""


def learn(schema: ModelSchema, told: Sequence[Sketches], *, parent: ProfileSpec | None = None) -> Reference:
    """Fix what is counted from then on.

    Args:
        schema: Of the bundle.
        told: The sketches of devices, in any order; each device weighs the same.
        parent: Of an earlier version, whose cells are kept where both count the same.

    Returns:
        Streams, and about how the first rows lie on them; `Reference.sources` says ``first windows``.
    """
    pool = Pool(told)
    counted: Counted = []
    for field in schema.inputs:
        counted += _of_input(field, pool)
    wide = wide_tensors(schema)
    whole = {field.tensor: field.name for field in schema.inputs if field.column is None}
    for tensor in (one for one in schema.tensors if one.name in wide):
        counted += _of_wide(f"{whole.get(tensor.name, tensor.name)}.", "input", tensor.name, wide[tensor.name], pool)
    for output in schema.outputs:
        if output.name in wide:
            counted += _of_wide(f"{output.name}.", "output", output.name, wide[output.name], pool)
        else:
            counted += _of_output(output, pool)
    names = [stream.name for stream in uniquely_named([stream for stream, _ in counted])]
    single = [_inherited(replace(stream, name=name), parent) for name, (stream, _) in zip(names, counted, strict=True)]
    joint = learnt_joints(schema, single, pool, parent=parent)
    spec = ProfileSpec((*single, *(stream for stream, _ in joint)))
    values = [*(values for _, values in counted), *(values for _, values in joint)]
    parts = [
        tally(stream.grid, stream.grid.cells_of(column)) for stream, column in zip(spec.streams, values, strict=True)
    ]
    cells = np.concatenate([np.zeros(0, np.int64), *(cells for cells, _ in parts)])
    moments = np.array([moments for _, moments in parts], dtype=np.int64).reshape(-1, 2)
    return Reference(spec, Profile(spec.hash, pool.rows, cells, moments), sources={"profile": LEARNT})


def is_learnt(reference: Reference) -> bool:
    """Tell whether a reference is of the first windows, so that it says nothing of training data."""
    return reference.sources.get("profile") == LEARNT


def _of_input(field: FieldSpec, pool: Pool) -> Counted:
    if field.dtype == "string":
        return _of_text(field, pool)
    column = pool.typed_column(f"in:{field.name}", field.dtype)
    if column is None:
        return []
    found = input_streams(replace(field, column=None), column[:, None])
    return [(replace(s, tensor=field.tensor, column=field.column), derived(s, column[:, None])) for s in found]


def _of_text(field: FieldSpec, pool: Pool) -> Counted:
    key = f"in:{field.name}"
    column = pool.column(key, is_text=True)
    if column is None:
        return []
    told = pool.of(key, is_text=True)
    raw = Stream(field.name, "input", CategoricalGrid(pool.categories(key)), field.tensor, field.column)
    if 2 * sum(one.prose for one in told) <= len(told):
        return [(raw, column)]
    lengths = np.array([len(text) for text in column.tolist()], dtype=np.float64)
    grid = fit_integer(lengths[lengths > 0])
    counted: Counted = [(replace(raw, name=f"{field.name}.length", grid=grid, derive="length"), lengths)]
    vocabulary = pool.vocabulary(key)
    for share in SHARES if vocabulary else SHARES[:-1]:
        values = pool.column(f"text:{field.name}:{share}")
        if values is not None:
            params = {"sketch": vocabulary} if share == SHARES[-1] else {}
            name = f"{field.name}.{share}"
            stream = replace(raw, name=name, grid=unit_interval_grid(bins=24), derive=share, params=params)
            counted.append((stream, values))
    return counted


def _of_wide(prefix: str, kind: Any, tensor: str, shape: Sequence[int | None], pool: Pool) -> Counted:
    sizes = pool.column(f"wide:{tensor}:{SIZE}")
    if sizes is None:
        return []
    counted: Counted = []
    for stream in first_digests(prefix, kind, tensor, shape, scale=scale_for(sizes)):
        values = pool.column(f"wide:{tensor}:{stream.name.removeprefix(prefix)}")
        if values is not None:
            counted.append((replace(stream, grid=fit_numeric(values)), values))
    return counted


def _of_output(output: OutputSpec, pool: Pool) -> Counted:
    table = _largest(output, pool) if is_counted_by_largest(output) else _table(output, pool)
    if table is None:
        return []
    return [(s, derived(s, table)) for s in output_streams([output], {output.name: table}, rows=pool.rows)]


def _largest(output: OutputSpec, pool: Pool) -> Array | None:
    """Return an output of which the largest column counts; of two probabilities the second was told."""
    best = pool.column(f"out:{output.name}")
    width = output.shape[-1] if len(output.shape) == 2 else None
    if best is None or width is None or width < 2:
        return None
    if output.role == "scores":
        return np.repeat(best.astype(np.float64)[:, None], width, axis=1)
    best = np.clip(np.nan_to_num(best.astype(np.float64)), 0.0, 1.0)
    values = np.repeat(((1 - best) / (width - 1))[:, None], width, axis=1)
    values[:, 1] = best
    return values.astype(np.float32)


def _table(output: OutputSpec, pool: Pool) -> Array | None:
    """Return an output of the made-up sample; none: not all of its columns were told."""
    keys = [f"out:{output.name}:{at}" for at in range(pool.width(output))]
    columns = [pool.typed_column(key, output.dtype) for key in keys]
    known = [column for column in columns if column is not None]
    if not known or len(known) < len(columns):
        return None
    table = np.stack(known, axis=1)
    return table[:, 0] if len(output.shape) == 1 else table


def _inherited(stream: Stream, parent: ProfileSpec | None) -> Stream:
    """Return a stream on an earlier version's cells where both count the same; directions fitted to data don't."""
    kept = stream if parent is None else inherited(stream, parent)
    return kept if kept.params.get("weights") == stream.params.get("weights") else stream
