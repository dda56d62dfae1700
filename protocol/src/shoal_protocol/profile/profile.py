"""A profile: exact counts of one window, and their merge.

All coarse cells of all streams lie in one flat int64 vector, whose layout the `ProfileSpec` gives. Merging is addition
of vectors, so a thousand devices merge in one call, bit-identical in any order; the empty profile is the identity.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from shoal_protocol.canonical import canonical_bytes, sha256_digest
from shoal_protocol.errors import CallerError, ContentError
from shoal_protocol.profile.grid import Grid, NumericGrid, grid_hash, parse_grid

Counts = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Stream:
    """One thing that is counted: an input feature or something about an output.

    Attributes:
        name: A feature's name, or ``label``, ``confidence``, ``score``, ``value`` for outputs.
        kind: ``input`` or ``output``.
        grid: Where its values are counted.
        tensor: The model's tensor that holds it; for a derived output the one that it is derived from.
        column: Column of a 2-D tensor; none: the whole tensor.
        derive: How to get the value from the tensor: as it is, the largest entry of a row, or one column's value.
    """

    name: str
    kind: Literal["input", "output"]
    grid: Grid
    tensor: str
    column: int | None = None
    derive: Literal["value", "row_max"] = "value"

    def as_json(self) -> dict[str, Any]:
        """Return the wire form."""
        return {
            "name": self.name,
            "kind": self.kind,
            "grid": self.grid.as_json(),
            "tensor": self.tensor,
            "column": self.column,
            "derive": self.derive,
        }

    @cached_property
    def grid_hash(self) -> str:
        """Equal exactly when two streams count alike."""
        return grid_hash(self.grid)


@dataclass(frozen=True)
class ProfileSpec:
    """The streams of a bundle, in order, and the layout of the flat vector of their coarse cells."""

    streams: tuple[Stream, ...]

    @cached_property
    def hash(self) -> str:
        """16 hexadecimal digits; profiles merge exactly when theirs are equal."""
        return sha256_digest(canonical_bytes([stream.as_json() for stream in self.streams]))[7:23]

    @cached_property
    def offsets(self) -> npt.NDArray[np.int64]:
        """First coarse cell of each stream in the flat vector, and the total at the end; int64 of streams + 1."""
        return np.concatenate([[0], np.cumsum([stream.grid.size for stream in self.streams], dtype=np.int64)]).astype(
            np.int64
        )

    @property
    def size(self) -> int:
        """Length of the flat vector."""
        return int(self.offsets[-1])

    @cached_property
    def highest(self) -> npt.NDArray[np.float64]:
        """Highest fine cell of each coarse cell of the flat vector; zero for categorical streams, without moments."""
        parts = [
            np.append(stream.grid.coarse[1:], stream.grid.cells) - 1.0
            if isinstance(stream.grid, NumericGrid)
            else np.zeros(stream.grid.size)
            for stream in self.streams
        ]
        return np.concatenate([np.zeros(0), *parts])

    @cached_property
    def index(self) -> dict[str, int]:
        """Position of each stream by (unique) name."""
        return {stream.name: at for at, stream in enumerate(self.streams)}

    def slice(self, name: str) -> slice:
        """Return where a stream's coarse cells lie in the flat vector.

        Raises:
            CallerError: There is no such stream.
        """
        at = self.index.get(name)
        if at is None:
            raise CallerError(f"there is no stream {name!r}; there are: {', '.join(list(self.index)[:20])}")
        return slice(int(self.offsets[at]), int(self.offsets[at + 1]))

    def as_json(self) -> list[dict[str, Any]]:
        """Return the wire form."""
        return [stream.as_json() for stream in self.streams]


@dataclass(frozen=True, eq=False)
class Profile:
    """The counts of one window, or of many merged.

    Attributes:
        spec_hash: Of the `ProfileSpec` that gives the layout.
        n: Number of rows.
        cells: Coarse counts, int64 of the spec's size; each stream's sum to n.
        moments: Sum of the fine cell index and of its square over the rows that are not missing, int64 of shape
            (streams, 2); zero for categorical streams.
    """

    spec_hash: str
    n: int
    cells: Counts
    moments: Counts

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, Profile)
            and self.spec_hash == other.spec_hash
            and self.n == other.n
            and np.array_equal(self.cells, other.cells)
            and np.array_equal(self.moments, other.moments)
        )

    __hash__ = None  # type: ignore[assignment]  # arrays inside: equal, but not hashable

    def __add__(self, other: Profile) -> Profile:
        return merge([self, other])


def zero(spec: ProfileSpec) -> Profile:
    """Return the empty profile, the identity of merging."""
    return Profile(spec.hash, 0, np.zeros(spec.size, np.int64), np.zeros((len(spec.streams), 2), np.int64))


def merge(profiles: Iterable[Profile]) -> Profile:
    """Add profiles.

    Raises:
        CallerError: There is none, or they are counted on different grids.
    """
    parts = list(profiles)
    hashes = {part.spec_hash for part in parts}
    if len(hashes) != 1:
        raise CallerError(
            f"expected at least one profile, all of one spec; got {len(parts)} of {len(hashes)} specs",
            hint="compare versions stream by stream where their grid hashes are equal",
        )
    return Profile(
        parts[0].spec_hash,
        sum(part.n for part in parts),
        np.add.reduce([part.cells for part in parts]),
        np.add.reduce([part.moments for part in parts]),
    )


def check_profile(profile: Profile, spec: ProfileSpec) -> Profile:
    """Return the profile when it is one that this spec can give.

    Raises:
        ContentError: Another spec, a negative count, counts of a stream that do not sum to n, or moments beyond what
            its counts can give.
    """
    if profile.spec_hash != spec.hash or profile.cells.shape != (spec.size,):
        raise ContentError(f"the profile is of spec {profile.spec_hash}, expected {spec.hash}")
    if profile.moments.shape != (len(spec.streams), 2) or (profile.moments < 0).any() or (profile.cells < 0).any():
        raise ContentError("the profile has a negative count or moments of another shape")
    sums = np.add.reduceat(profile.cells, spec.offsets[:-1])
    if (sums != profile.n).any():
        name = spec.streams[int(np.flatnonzero(sums != profile.n)[0])].name
        raise ContentError(f"the counts of stream {name!r} do not sum to the {profile.n} rows")
    for power in (1, 2):  # in floats: the product of hostile counts could overflow whole numbers
        most = np.add.reduceat(profile.cells * spec.highest**power, spec.offsets[:-1])
        if (profile.moments[:, power - 1] > most * (1 + 1e-9)).any():
            raise ContentError("the profile has moments that its counts can't give")
    return profile


def derived(stream: Stream, values: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Return what a stream counts, from its tensor's values of one or more rows.

    Args:
        stream: The stream.
        values: The tensor, rows first.

    Returns:
        One value a row, shape (rows,).
    """
    rows = values.reshape(len(values), math.prod(values.shape[1:]))  # -1 has no meaning for no rows
    if stream.derive == "row_max":
        return np.asarray(rows.max(axis=1))
    return rows[:, stream.column or 0]


def summarise(spec: ProfileSpec, tensors: Mapping[str, npt.NDArray[Any]]) -> Profile:
    """Count rows: the reference implementation, which the agent's faster observer must equal exactly.

    Args:
        spec: The streams.
        tensors: Each input and output tensor by name, rows first, all with the same number of rows.

    Raises:
        CallerError: A stream's tensor is missing, or the numbers of rows differ.
    """
    absent = sorted({stream.tensor for stream in spec.streams} - set(tensors))
    lengths = {len(values) for values in tensors.values()}
    if absent or len(lengths) > 1:
        raise CallerError(f"missing tensors: {absent}; numbers of rows: {sorted(lengths)}")
    profile = zero(spec)
    for at, stream in enumerate(spec.streams):
        fine = stream.grid.cells_of(derived(stream, tensors[stream.tensor]))
        counts = np.bincount(fine, minlength=stream.grid.cells)
        profile.cells[spec.offsets[at] : spec.offsets[at + 1]] = np.add.reduceat(counts, stream.grid.coarse)
        if isinstance(stream.grid, NumericGrid):
            index = np.arange(stream.grid.cells, dtype=np.int64)
            profile.moments[at] = (counts @ index, counts @ (index * index))
    return Profile(spec.hash, lengths.pop() if lengths else 0, profile.cells, profile.moments)


def parse_spec(document: list[dict[str, Any]]) -> ProfileSpec:
    """Parse the wire form.

    Raises:
        ContentError: A field is missing or of another type, or a name stands twice.
    """
    try:
        streams = tuple(
            Stream(
                str(entry["name"]),
                entry["kind"],
                parse_grid(entry["grid"]),
                str(entry["tensor"]),
                None if entry["column"] is None else int(entry["column"]),
                entry["derive"],
            )
            for entry in document
        )
    except (KeyError, TypeError, ValueError) as error:
        raise ContentError(f"this is no profile spec: {error!r}") from error
    bad = [s.name for s in streams if s.kind not in {"input", "output"} or s.derive not in {"value", "row_max"}]
    if bad or len({stream.name for stream in streams}) != len(streams):
        raise ContentError(f"this is no profile spec: stream names must differ, kinds be known (faulty: {bad[:5]})")
    return ProfileSpec(streams)
