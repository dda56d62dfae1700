"""Rows of an ``.npz`` file: columns or whole tensors as numpy arrays, read a stretch at a time.

An array in the file's own order of rows is never held as a whole: numpy would load all of it, this reads on in the
archive's members side by side.
"""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt
from numpy.lib import format as npy

from shoal_agent.bulk.table import Table, Wanted, some
from shoal_protocol.errors import CallerError

Array = npt.NDArray[Any]


def npz_tables(path: Path, wanted: Wanted, *, rows: int) -> Iterator[Table]:
    """Read arrays by name: every feature, or every input tensor of the graph; rows first.

    Raises:
        CallerError: It is no such archive, lacks an array, or they differ in their rows.
    """
    try:
        with zipfile.ZipFile(path) as archive, ExitStack() as opened:
            members = {name.removesuffix(".npy"): name for name in archive.namelist() if name.endswith(".npy")}
            names = wanted.tensors if set(wanted.tensors) <= set(members) else tuple(wanted.fields)
            if names != wanted.tensors:
                wanted.check(list(members), of=path.name)
            elif lacking := [name for name in wanted.kept if name not in members]:
                raise CallerError(f"{path.name} lacks the array {some(lacking)}; it has {some(list(members))}")
            read = {n: _Member(opened.enter_context(archive.open(members[n])), n) for n in (*names, *wanted.kept)}
            yield from _tables(read, names, rows, path.name)
    except (zipfile.BadZipFile, zipfile.LargeZipFile, EOFError) as error:
        raise CallerError(f"{path.name} is no .npz file: {error}", hint="numpy.savez(FILE, age=…, city=…)") from error


def _tables(members: dict[str, _Member], names: tuple[str, ...], rows: int, file: str) -> Iterator[Table]:
    counts = {name: member.rows for name, member in members.items()}
    if len(set(counts.values())) > 1:
        raise CallerError(f"the arrays of {file} differ in their rows: {counts}")
    total = next(iter(counts.values()), 0)
    for at in range(0, total, rows):
        count = min(rows, total - at)
        found = {name: member.read(count) for name, member in members.items()}
        kept = {name: found[name].tolist() for name in members if name not in names}
        yield Table(file, at + 1, count, {name: found[name] for name in names}, kept)


class _Member:
    """One array in the archive; `read` goes on where it stopped."""

    def __init__(self, stream: IO[bytes], name: str) -> None:
        self._stream = stream
        try:
            version = npy.read_magic(stream)
            head = npy.read_array_header_1_0(stream) if version == (1, 0) else npy.read_array_header_2_0(stream)
        except ValueError as error:
            raise CallerError(f"the array {name!r} can't be read: {error}") from error
        shape, by_columns, dtype = head
        if dtype.hasobject:
            raise CallerError(
                f"the array {name!r} holds Python objects, which could be programs", hint="save texts as dtype str"
            )
        if not shape:
            raise CallerError(f"the array {name!r} is a single value; expected one entry a row")
        self.rows: int = shape[0]
        self._row, self._dtype = shape[1:], dtype
        self._bytes = int(np.prod(self._row, dtype=np.int64)) * dtype.itemsize
        self.read: Callable[[int], Array] = self._next
        if by_columns and len(shape) > 1:
            whole = np.frombuffer(stream.read(), dtype).reshape(shape, order="F")
            self.read = _stretches(whole)

    def _next(self, rows: int) -> Array:
        raw = self._stream.read(rows * self._bytes)
        if len(raw) != rows * self._bytes:
            raise EOFError("an array ends early")
        return np.frombuffer(raw, self._dtype).reshape(rows, *self._row)


def _stretches(whole: Array) -> Callable[[int], Array]:
    at = 0

    def read(rows: int) -> Array:
        nonlocal at
        at += rows
        return np.ascontiguousarray(whole[at - rows : at])

    return read
