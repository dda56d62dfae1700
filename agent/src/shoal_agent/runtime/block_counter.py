"""Counting blocks of rows on a bundle's grids, fast.

Owns the vectorised arithmetic only; it must give exactly what `shoal_protocol.profile.profile.summarise` gives, which a
property test holds. All numeric streams of a block lie in one flat float32 buffer, transformed in place by parameters
that are tiled beforehand (broadcasting over rows of twenty would spend its time in loops of twenty), cast to int32, and
*then* moved to their stream's place (float32 has no room for cell + offset), so that one ``bincount`` counts them all.
Measured: 0.05 us a row of 20 features.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from shoal_agent.runtime.joint_block import JointBlock
from shoal_protocol.profile.derivation import JOINT, TENSORS, TIMES, TensorDigest, looks_at_whole, point_in_time
from shoal_protocol.profile.grid import MISSING, OTHER, CategoricalGrid, NumericGrid, category_text
from shoal_protocol.profile.profile import Counts, ProfileSpec, Stream, derived

Array = npt.NDArray[Any]
Cells = npt.NDArray[np.intp]

BLOCK_ROWS = 1024
"""Rows that are counted by one ``bincount``."""

_BUFFER_CELLS = 8_192
"""Cells that are transformed at once: small enough for the cache, large enough to hide the calls."""

_MAX_TABLE = 4096
_FEW_COLUMNS = 32


class Tap(msgspec.Struct, frozen=True):
    """One tensor that streams look at.

    Attributes:
        name: The tensor's.
        dtype: Of its elements; float32 where `coded`.
        elements: Numbers a row.
        coded: The tensor is text, or so wide that keeping it would cost too much: each element already is what one of
            its streams counts (`Coder`).
    """

    name: str
    dtype: np.dtype[Any]
    elements: int
    coded: bool = False

    @property
    def row_bytes(self) -> int:
        """Bytes of one row."""
        return self.elements * self.dtype.itemsize


class Coder:
    """Turns a tensor of text, or one that is looked at as a whole, into what its streams count, at once.

    The bytes of Python texts can't be kept, and those of a thousand images would fill the memory.

    Args:
        streams: Those of one tensor, in the order of the spec.
    """

    def __init__(self, streams: Sequence[Stream]) -> None:
        self._width = len(streams)
        whole = [at for at, stream in enumerate(streams) if stream.derive in TENSORS]
        self._whole = np.array(whole, dtype=np.intp)
        self._digest = TensorDigest([(streams[at].derive, streams[at].params) for at in whole])
        plain = [at for at, s in enumerate(streams) if s.derive == "value" and isinstance(s.grid, NumericGrid)]
        self._plain = np.array(plain, dtype=np.intp)
        self._columns = np.array([streams[at].column or 0 for at in plain], dtype=np.intp)
        done = {*whole, *plain}
        self._others = [(at, _value_coder(stream)) for at, stream in enumerate(streams) if at not in done]

    def encode(self, values: Array) -> npt.NDArray[np.float32]:
        """Return values, or cells of categories, shape (rows, streams)."""
        coded = np.empty((len(values), self._width), np.float32)
        if self._whole.size:
            coded[:, self._whole] = self._digest(values)
        if self._plain.size:
            coded[:, self._plain] = values.reshape(len(values), -1)[:, self._columns]
        for at, code in self._others:
            coded[:, at] = code(values)
        return coded


def _value_coder(stream: Stream) -> Callable[[Array], Any]:
    if isinstance(stream.grid, CategoricalGrid) and stream.derive == "value":
        index, column = _text_index(stream), stream.column or 0
        return lambda values: [_text_cell(v, index) for v in values.reshape(len(values), -1)[:, column].tolist()]
    if isinstance(stream.grid, CategoricalGrid):
        return lambda values: stream.grid.cells_of(derived(stream, values))
    return lambda values: derived(stream, values)


def is_coded(streams: Sequence[Stream], dtype: np.dtype[Any]) -> bool:
    """Tell whether a tensor must be coded at once, by its streams and its elements' type."""
    return dtype.kind not in "fiub" or any(looks_at_whole(stream.derive) for stream in streams)


class BlockCounter:
    """Counts blocks of rows into a flat vector of fine cells.

    Args:
        spec: The streams.
        taps: The tensors in the order in which `count` gets them; every tensor that a stream names is among them.
    """

    def __init__(self, spec: ProfileSpec, taps: Sequence[Tap]) -> None:
        sizes = [stream.grid.cells for stream in spec.streams]
        self._starts = np.concatenate([[0], np.cumsum(sizes, dtype=np.intp)]).astype(np.intp)
        self.size = int(self._starts[-1])
        """Length of the flat vector of fine cells."""
        order = {tap.name: at for at, tap in enumerate(taps)}
        counted = [(at, s) for at, s in enumerate(spec.streams) if s.is_known and s.derive != JOINT]
        numeric = [at for at, s in counted if isinstance(s.grid, NumericGrid)]
        places = _places(spec, taps)
        self._numeric = _NumericBlock([spec.streams[at] for at in numeric], self._starts[numeric], order, places)
        joint = [at for at, s in enumerate(spec.streams) if s.is_known and s.derive == JOINT]
        self._joint = JointBlock(
            [spec.streams[at] for at in joint], self._starts[joint], [spec.streams[at].name for at in numeric]
        )
        self._categorical = [
            (
                order[stream.tensor],
                self._starts[at],
                stream.grid.size,
                _reader(stream, taps[order[stream.tensor]], places),
            )
            for at, stream in counted
            if isinstance(stream.grid, CategoricalGrid)
        ]

    def count(self, arrays: Sequence[Array], into: Counts) -> None:
        """Add rows to the counts.

        Args:
            arrays: One for each tap, shape (rows, elements).
            into: Fine counts, int64 of length `size`.
        """
        if not arrays:
            return
        with np.errstate(over="ignore", invalid="ignore"):
            self._numeric.count(arrays, into, self._joint if self._joint.size else None)
        for tap, start, size, cells_of in self._categorical:
            into[start : start + size] += np.bincount(cells_of(arrays[tap]), minlength=size)


class _NumericBlock:
    """All numeric streams of a spec in one flat buffer."""

    def __init__(
        self, streams: Sequence[Stream], starts: Cells, order: Mapping[str, int], places: Mapping[str, int]
    ) -> None:
        grids = [stream.grid for stream in streams if isinstance(stream.grid, NumericGrid)]
        self._width = len(grids)
        self._rows = max(16, _BUFFER_CELLS // max(1, self._width))
        self._sources = _sources(streams, order, places)
        curved = [at for at, grid in enumerate(grids) if grid.transform == "asinh"]
        self._curved = np.array(curved, dtype=np.intp)
        self._scales = np.array([grids[at].scale for at in curved], dtype=np.float32)
        self._origin = self._tiled([grid.origin for grid in grids], np.float32)
        self._inverse_step = self._tiled([grid.inverse_step for grid in grids], np.float32)
        self._top = self._tiled([grid.cells - 1 for grid in grids], np.float32)
        self._bottom = self._tiled([1] * self._width, np.float32)
        self._offset = self._tiled(starts, np.int32)
        self._values = np.empty((self._rows, self._width), np.float32)
        self._cells = np.empty(BLOCK_ROWS * self._width, np.int32)

    def _tiled(self, parameters: Sequence[float] | Cells, dtype: type[np.generic]) -> Array:
        return np.tile(np.asarray(parameters, dtype=dtype), self._rows)

    def count(self, arrays: Sequence[Array], into: Counts, joint: JointBlock | None) -> None:
        if not self._width:
            return
        for start in range(0, len(arrays[0]), BLOCK_ROWS):
            block = [array[start : start + BLOCK_ROWS] for array in arrays]
            total = len(block[0])
            for first in range(0, total, self._rows):
                rows = min(self._rows, total - first)
                self._fill([array[first : first + rows] for array in block], rows)
                cells = self._cells_of_filled(first, rows)
                if joint is not None:
                    joint.count((cells - self._offset[: len(cells)]).reshape(rows, self._width), into)
            into += np.bincount(self._cells[: total * self._width], minlength=len(into))

    def _fill(self, arrays: Sequence[Array], rows: int) -> None:
        values = self._values[:rows]
        for tap, place, pick in self._sources:
            values[:, place] = _row_max(arrays[tap]) if pick is None else arrays[tap][:, pick]
        if self._curved.size:
            values[:, self._curved] = np.arcsinh(values[:, self._curved] / self._scales)

    def _cells_of_filled(self, first: int, rows: int) -> npt.NDArray[np.int32]:
        """Return the place of each value in the flat vector: float32 arithmetic as in `NumericGrid.cells_of`.

        Args:
            first: Of the block's rows: they are kept in its order, to be counted together.
            rows: How many were filled in.
        """
        n = rows * self._width
        x, cells = self._values[:rows].reshape(-1), self._cells[first * self._width :][:n]
        np.subtract(x, self._origin[:n], out=x)
        np.multiply(x, self._inverse_step[:n], out=x)
        np.maximum(x, self._bottom[:n], out=x)
        np.minimum(x, self._top[:n], out=x)
        if np.isnan(np.add.reduce(x)):  # one sum finds whether there is any; after the clip there are no infinities
            x[np.isnan(x)] = MISSING
        np.copyto(cells, x, casting="unsafe")
        np.add(cells, self._offset[:n], out=cells)
        return cells


_Source = tuple[int, int | slice, int | slice | None]


def _places(spec: ProfileSpec, taps: Sequence[Tap]) -> dict[str, int]:
    """Return the column of each stream of a coded tap, by the stream's name."""
    coded = {tap.name for tap in taps if tap.coded}
    mates = {name: streams_of(spec, name) for name in coded}
    return {stream.name: at for streams in mates.values() for at, stream in enumerate(streams)}


def streams_of(spec: ProfileSpec, tensor: str) -> list[Stream]:
    """Return the streams that are read off a tensor, in order; those of several streams or of unknown kinds aren't."""
    return [s for s in spec.streams if s.tensor == tensor and s.is_known and s.derive != JOINT]


def _sources(streams: Sequence[Stream], order: Mapping[str, int], places: Mapping[str, int]) -> list[_Source]:
    """Return (tap, place in the buffer, column of the tap or none for the row's maximum), runs of columns joined."""
    sources: list[_Source] = []
    for at, stream in enumerate(streams):
        tap = order[stream.tensor]
        if stream.derive == "row_max" and stream.name not in places:
            sources.append((tap, at, None))
            continue
        column = places.get(stream.name, stream.column or 0)
        if sources and sources[-1][0] == tap:
            _, place, pick = sources[-1]
            if isinstance(place, slice) and isinstance(pick, slice) and place.stop == at and pick.stop == column:
                sources[-1] = (tap, slice(place.start, at + 1), slice(pick.start, column + 1))
                continue
        sources.append((tap, slice(at, at + 1), slice(column, column + 1)))
    return sources


def _row_max(array: Array) -> Array:
    """Return each row's maximum; column by column, because numpy reduces short rows at 40 ns each."""
    if array.shape[1] > _FEW_COLUMNS:
        return np.asarray(array.max(axis=1))
    most = array[:, 0].copy()
    for column in range(1, array.shape[1]):
        np.maximum(most, array[:, column], out=most)
    return most


def _reader(stream: Stream, tap: Tap, places: Mapping[str, int]) -> Callable[[Array], Cells]:
    """Return what gives the cells of one categorical stream from its tap."""
    if tap.coded:
        code = places[stream.name]
        return lambda array: array[:, code].astype(np.intp)
    column = stream.column or 0
    index = _text_index(stream)
    find = _integer_cells(index) if tap.dtype.kind in "iu" and stream.derive not in TIMES else None

    def read(array: Array) -> Cells:
        values = _row_max(array) if stream.derive == "row_max" else array[:, column]
        if stream.derive in TIMES:
            values = point_in_time(stream.derive, values, stream.params)
        if find is not None:
            return find(values)
        unique, inverse = np.unique(values, return_inverse=True)
        return np.array([_text_cell(value, index) for value in unique], dtype=np.intp)[inverse]

    return read


def _integer_cells(index: Mapping[str, int]) -> Callable[[Array], Cells] | None:
    """Return a table look-up for integer values, or none where the categories spread too far for a table."""
    known = {int(text): cell for text, cell in index.items() if _is_integer(text)}
    low, high = min(known, default=0), max(known, default=0)
    if high - low > _MAX_TABLE or low <= -(2**31) or high >= 2**31:
        return None
    table = np.full(high - low + 3, OTHER, dtype=np.intp)
    for value, cell in known.items():
        table[value - low + 1] = cell

    def find(values: Array) -> Cells:
        # clipped before the subtraction, which would overflow at the ends of the type
        wide = values.astype(np.int64) if values.dtype.itemsize < 8 else values
        cells: Cells = table[np.clip(wide, low - 1, high + 1).astype(np.int64) - (low - 1)]
        return cells

    return find


def _is_integer(text: str) -> bool:
    digits = text.removeprefix("-")
    return digits.isascii() and digits.isdigit() and len(digits) < 19 and str(int(text)) == text


def _text_index(stream: Stream) -> dict[str, int]:
    assert isinstance(stream.grid, CategoricalGrid)
    return {category: cell for cell, category in enumerate(stream.grid.categories, start=OTHER + 1)}


def _text_cell(value: object, index: Mapping[str, int]) -> int:
    text = value if type(value) is str else category_text(value)
    return MISSING if text == "" else index.get(text, OTHER)
