"""A profile: exact counts of one window, and their merge.

All coarse cells of all streams lie in one flat int64 vector, whose layout the `ProfileSpec` gives. Merging is addition
of vectors, so a thousand devices merge in one call, bit-identical in any order; the empty profile is the identity.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from functools import cached_property
from typing import Any, Literal

import msgspec
import numpy as np
import numpy.typing as npt

from shoal_protocol.canonical import canonical_bytes, sha256_digest
from shoal_protocol.errors import CallerError, ContentError
from shoal_protocol.profile.derivation import (
    JOINT,
    KNOWN,
    PLAIN,
    TENSORS,
    TIMES,
    TensorDigest,
    check_params,
    looks_at_whole,
    point_in_time,
    text_value,
)
from shoal_protocol.profile.grid import Grid, NumericGrid, OpaqueGrid, grid_hash, parse_grid
from shoal_protocol.profile.joint import check_joint, joint_values, loads

Counts = npt.NDArray[np.int64]

MOST_ROWS = 1 << 53
"""Of a window: beyond, whole numbers stop being exact in floats, and sums of some could wrap around."""


class Stream(msgspec.Struct, frozen=True, dict=True):
    """One thing that is counted: an input feature or something about an output.

    Attributes:
        name: A feature's name, or ``label``, ``confidence``, ``score``, ``value`` for outputs.
        kind: ``input`` or ``output``.
        grid: Where its values are counted.
        tensor: The model's tensor that holds it, or it is derived from; of a joint feature its first source's.
        column: Column of a 2-D tensor; none: the whole tensor.
        derive: How to get the value from the tensor: ``value`` as it is, ``row_max`` the largest entry of a row, or one
            of `derivation`; one that this version doesn't know leaves the stream uncounted, with all counts zero.
        params: Parameters of the derivation; all of them belong to the spec's hash, known or not.
    """

    name: str
    kind: Literal["input", "output"]
    grid: Grid
    tensor: str
    column: int | None = None
    derive: str = "value"
    params: Mapping[str, Any] = msgspec.field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        """Return the wire form."""
        params = {"params": dict(self.params)} if self.params else {}
        return {
            "name": self.name,
            "kind": self.kind,
            "grid": self.grid.as_json(),
            "tensor": self.tensor,
            "column": self.column,
            "derive": self.derive,
            **params,
        }

    @cached_property
    def grid_hash(self) -> str:
        """Equal exactly when two streams count alike."""
        if not self.params:
            return grid_hash(self.grid)
        document = {"grid": self.grid.as_json(), "derive": self.derive, "params": dict(self.params)}
        return sha256_digest(canonical_bytes(document))[7:23]

    @property
    def is_known(self) -> bool:
        """Whether this version can count it."""
        return self.derive in KNOWN and not isinstance(self.grid, OpaqueGrid)

    @property
    def title(self) -> str:
        """The name for people: of a joint feature with those that load most."""
        if self.derive != JOINT or not self.is_known:
            return self.name
        return f"{self.name} ({', '.join(loads(self.params))})"


class ProfileSpec(msgspec.Struct, frozen=True, dict=True):
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
    def everywhere_counted(self) -> npt.NDArray[np.bool_]:
        """Which streams are of kinds that every version knows, so that all rows are counted."""
        return np.array([stream.derive in PLAIN and stream.is_known for stream in self.streams], dtype=np.bool_)

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


class Profile(msgspec.Struct, frozen=True, eq=False):
    """The counts of one window, or of many merged.

    Attributes:
        spec_hash: Of the `ProfileSpec` that gives the layout.
        n: Number of rows.
        cells: Coarse counts, int64 of the spec's size; each stream's sum to n, or to 0 where who counted did not
            know its kind.
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
        ContentError: Another spec, a negative count, more than `MOST_ROWS` rows, counts of a stream that sum neither to
            n nor to zero (a stream that the device couldn't count), or moments beyond what its counts can give.
    """
    if profile.spec_hash != spec.hash or profile.cells.shape != (spec.size,):
        raise ContentError(f"the profile is of spec {profile.spec_hash}, expected {spec.hash}")
    if profile.moments.shape != (len(spec.streams), 2) or (profile.moments < 0).any() or (profile.cells < 0).any():
        raise ContentError("the profile has a negative count or moments of another shape")
    if np.add.reduceat(profile.cells.astype(np.float64), spec.offsets[:-1]).max(initial=0.0) > MOST_ROWS:
        raise ContentError(f"the profile has more than {MOST_ROWS} rows")  # whole numbers that large could wrap around
    sums = np.add.reduceat(profile.cells, spec.offsets[:-1])
    wrong = (sums != profile.n) & ((sums != 0) | spec.everywhere_counted)
    if wrong.any():
        name = spec.streams[int(np.flatnonzero(wrong)[0])].name
        raise ContentError(f"the counts of stream {name!r} do not sum to the {profile.n} rows")
    for power in (1, 2):  # in floats: the product of hostile counts could overflow whole numbers
        most = np.add.reduceat(profile.cells * spec.highest**power, spec.offsets[:-1])
        if (profile.moments[:, power - 1] > most * (1 + 1e-9)).any():
            raise ContentError("the profile has moments that its counts can't give")
    return profile


def derived(stream: Stream, values: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Return what a stream counts, from its tensor's values of one or more rows.

    Args:
        stream: The stream; no joint feature.
        values: The tensor, rows first.

    Returns:
        One value a row, shape (rows,).
    """
    if stream.derive in TENSORS:
        return TensorDigest([(stream.derive, stream.params)])(values)[:, 0]
    rows = values.reshape(len(values), math.prod(values.shape[1:]))  # -1 has no meaning for no rows
    if stream.derive == "row_max":
        return np.asarray(rows.max(axis=1))
    column = rows[:, stream.column or 0]
    if stream.derive in TIMES:
        return point_in_time(stream.derive, column, stream.params)
    if stream.derive == "value":
        return column
    value_of = text_value(stream.derive, stream.params)
    return np.array([value_of(str(text)) for text in column.tolist()], dtype=np.float64)


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
        if not stream.is_known:
            continue
        cells, profile.moments[at] = tally(stream.grid, _fine_cells(spec, stream, tensors))
        profile.cells[spec.offsets[at] : spec.offsets[at + 1]] = cells
    return Profile(spec.hash, lengths.pop() if lengths else 0, profile.cells, profile.moments)


def tally(grid: Grid, fine: npt.NDArray[np.int32]) -> tuple[Counts, tuple[int, int]]:
    """Count one stream's rows.

    Args:
        grid: The stream's.
        fine: Fine cell of each row, shape (rows,).

    Returns:
        Coarse counts, and the two moments.
    """
    counts = np.bincount(fine, minlength=grid.cells)
    index = np.arange(grid.cells, dtype=np.int64) if isinstance(grid, NumericGrid) else np.zeros(grid.cells, np.int64)
    return np.add.reduceat(counts, grid.coarse), (int(counts @ index), int(counts @ (index * index)))


def _fine_cells(spec: ProfileSpec, stream: Stream, tensors: Mapping[str, npt.NDArray[Any]]) -> npt.NDArray[np.int32]:
    if stream.derive != JOINT:
        return stream.grid.cells_of(derived(stream, tensors[stream.tensor]))
    sources = [spec.streams[spec.index[name]] for name in stream.params["streams"]]
    cells = np.stack([source.grid.cells_of(derived(source, tensors[source.tensor])) for source in sources], axis=1)
    centers, weights = (np.asarray(stream.params[key], dtype=np.float64) for key in ("centers", "weights"))
    return stream.grid.cells_of(joint_values(cells, centers, weights[None, :])[0])


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
                str(entry["derive"]),
                dict(entry.get("params") or {}),
            )
            for entry in document
        )
    except (KeyError, TypeError, ValueError) as error:
        raise ContentError(f"this is no profile spec: {error!r}") from error
    bad = [stream.name for stream in streams if stream.kind not in {"input", "output"}]
    if bad or len({stream.name for stream in streams}) != len(streams):
        raise ContentError(f"this is no profile spec: stream names must differ, kinds be known (faulty: {bad[:5]})")
    _check_derivations(streams)
    return ProfileSpec(streams)


def _check_derivations(streams: tuple[Stream, ...]) -> None:
    joinable = [s.name for s in streams if s.derive == "value" and isinstance(s.grid, NumericGrid)]
    centers: dict[str, int] = {}
    for stream in streams:
        if not stream.is_known:
            continue
        try:
            check_params(stream.derive, stream.params)
            if stream.derive == JOINT:
                check_joint(stream.params, joinable, centers)
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            raise ContentError(f"this is no profile spec: stream {stream.name!r}: {error}") from error
        is_numeric = isinstance(stream.grid, NumericGrid)
        if not is_numeric and (looks_at_whole(stream.derive) or stream.derive == JOINT):
            raise ContentError(f"this is no profile spec: stream {stream.name!r} is {stream.derive}, a number")
        if is_numeric and stream.derive in TIMES:
            raise ContentError(f"this is no profile spec: stream {stream.name!r} is {stream.derive}, of few values")
