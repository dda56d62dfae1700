"""Files of rows as columns: CSV, JSON lines, npz, npy, svmlight, Parquet and Feather where pyarrow is there.

Owns which kind of file is read how. Nothing here unpickles. Mistakes that people make with files are errors that say
what to do.
"""

from __future__ import annotations

import gzip
import math
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import msgspec
import numpy as np
import numpy.typing as npt

from shoal_protocol.profile.grid import category_text
from shoal_server.ctl.csv_columns import read_csv
from shoal_server.ctl.errors import FileError
from shoal_server.ctl.sample_columns import Raw, Table
from shoal_server.ctl.svmlight_columns import read_text

SUFFIXES = (".csv", ".tsv", ".jsonl", ".json", ".npz", ".npy", ".parquet", ".feather", ".svmlight", ".dat")
_NUMPY_BEGINS = (b"PK", b"\x93N")  # a zip archive, a single array
_NEVER: Mapping[str, str] = {
    ".pkl": "pickles run code when they are loaded: write it by to_parquet or to_csv",
    ".joblib": "pickles run code when they are loaded: write it by to_parquet or to_csv",
    ".xlsx": "save the sheet as CSV",
    ".xls": "save the sheet as CSV",
}
_MOST_LISTED = 2048


def read_table(path: Path) -> Table:
    """Read one file.

    Raises:
        FileError: It can't be read or holds nothing.
    """
    if not path.is_file():
        raise FileError(f"there is no file {path}")
    suffix = Path(path.name.lower().removesuffix(".gz")).suffix
    reader = _READERS.get(suffix)
    if reader is None or (path.suffix.lower() == ".gz" and reader not in _TEXTS):
        hint = _NEVER.get(suffix, f"give one of {', '.join(SUFFIXES)}")
        raise FileError(f"{path.name} is of no known kind", hint=hint)
    table = reader(path)
    if not table.columns or not len(next(iter(table.columns.values()))):
        raise FileError(f"{path.name} has no rows", hint="was it written completely?")
    return table


def check_named(table: Table, path: Path) -> None:
    """Refuse a file that does not say what its columns are called.

    Raises:
        FileError: Its first line holds values.
    """
    if table.first_line:
        raise FileError(
            f"the first line of {path.name} holds values ({', '.join(table.first_line[:4])}, …) instead of names",
            hint="put a line with the names of the columns first",
        )


def _read_json_lines(path: Path) -> Table:
    """Read a file with one JSON object a line; what a line lacks is missing."""
    rows: list[dict[str, Any]] = []
    with gzip.open(path) if path.suffix.lower() == ".gz" else path.open("rb") as file:
        for at, line in enumerate(file, start=1):
            if not line.strip():
                continue
            try:
                row = msgspec.json.decode(line)
            except (msgspec.DecodeError, RecursionError) as error:
                raise FileError(
                    f"line {at} of {path.name} is no JSON: {error}", hint="write one object a line"
                ) from error
            nested = not isinstance(row, dict) or any(isinstance(value, dict | list) for value in row.values())
            if nested:
                raise FileError(
                    f"line {at} of {path.name} is no object of plain values",
                    hint='write {"temp": 21.5, "line": "A"}: numbers, texts, true, false or null',
                )
            rows.append(row)
    names = dict.fromkeys(name for row in rows for name in row)
    return Table({name: _plain([row.get(name) for row in rows]) for name in names})


def _read_json(path: Path) -> Table:
    """Read a list of objects, or an object of lists."""
    try:
        found = msgspec.json.decode(path.read_bytes())
    except (msgspec.DecodeError, RecursionError) as error:
        raise FileError(f"{path.name} is no JSON: {error}", hint="an object a line belongs into a .jsonl") from error
    if isinstance(found, dict) and found and all(isinstance(values, list) for values in found.values()):
        columns = {str(name): _plain(values) for name, values in found.items()}
        _same_length(columns, path)
        return Table(columns)
    if not isinstance(found, list) or not all(isinstance(row, dict) for row in found):
        raise FileError(
            f"{path.name} holds neither a list of objects nor an object of lists",
            hint="write it by to_json(orient='records')",
        )
    names = dict.fromkeys(name for row in found for name in row)
    return Table({name: _plain([row.get(name) for row in found]) for name in names})


def _read_arrays(path: Path) -> Table:
    try:
        with path.open("rb") as file:
            if file.read(2) not in _NUMPY_BEGINS:
                raise FileError(f"{path.name} holds no arrays of numpy", hint="write it by numpy.savez or numpy.save")
        loaded = np.load(path, allow_pickle=False)
        if isinstance(loaded, np.ndarray):
            arrays = {"": loaded}
        else:
            with loaded:
                arrays = {name: loaded[name] for name in loaded.files}
    except (ValueError, OSError, EOFError, BadZipFile) as error:
        if "pickle" in str(error):
            hint = "save numbers, or texts by .astype(str); or give a .csv"
            raise FileError(f"{path.name} holds Python objects, which are never loaded", hint=hint) from error
        raise FileError(f"{path.name} can't be read: {error}", hint="was it written completely?") from error
    columns: dict[str, Raw] = {}
    for name, array in arrays.items():
        if not 1 <= array.ndim <= 2:
            raise FileError(
                f"{name or path.name} of {path.name} has {array.ndim} axes",
                hint="give arrays of rows, or rows × columns",
            )
        if array.dtype.kind not in "USbiufM":
            raise FileError(
                f"{name} of {path.name} holds {array.dtype}", hint="save numbers or texts, one array a column"
            )
        if array.ndim == 1:
            columns[name or "value"] = texts_of(array.tolist()) if array.dtype.kind in "USObM" else array
        else:
            columns |= {f"{name or 'x'}[{at}]": array[:, at] for at in range(array.shape[1])}
    _same_length(columns, path)
    return Table(columns)


def _read_parquet(path: Path) -> Table:
    return _read_arrow(path, "parquet")


def _read_feather(path: Path) -> Table:
    return _read_arrow(path, "feather")


def _read_arrow(path: Path, kind: str) -> Table:
    try:
        import pyarrow as pa  # noqa: PLC0415 - 50 MB that most don't need
        from pyarrow import feather, parquet  # noqa: PLC0415 - likewise
    except ImportError as error:
        raise FileError(
            f"{path.name} needs pyarrow, which is not installed", hint="pip install pyarrow, or give a .csv or .npz"
        ) from error
    try:
        table = parquet.read_table(path) if kind == "parquet" else feather.read_table(path)
    except (OSError, ValueError) as error:  # pyarrow's own errors are among these
        raise FileError(f"{path.name} can't be read as {kind.title()}: {error}") from error
    types = pa.types
    columns: dict[str, Raw] = {}
    for name in map(str, table.column_names):
        column = table.column(name)
        if types.is_duration(column.type):
            columns[name] = _seconds(column.to_numpy())
        elif types.is_integer(column.type) or types.is_floating(column.type):
            columns[name] = np.asarray(column.to_numpy(), np.float64)
        else:
            columns |= _listed_apart(name, column.to_pylist())
    return Table(columns)


def _seconds(durations: npt.NDArray[np.timedelta64]) -> npt.NDArray[np.float64]:
    return np.where(np.isnat(durations), np.nan, durations / np.timedelta64(1, "s"))


def _listed_apart(name: str, values: list[Any]) -> dict[str, Raw]:
    """Return a column of equally long lists of numbers, such as embeddings, as one column a place."""
    lengths = {len(value) if isinstance(value, list) else -1 for value in values}
    length = lengths.pop() if len(lengths) == 1 else -1
    if not 0 < length <= _MOST_LISTED or not all(isinstance(x, int | float) for x in values[0]):
        return {name: _plain(values)}
    return {f"{name}[{at}]": _plain([value[at] for value in values]) for at in range(length)}


def _plain(values: list[Any]) -> Raw:
    if all(value is None or (isinstance(value, int | float) and not isinstance(value, bool)) for value in values):
        return np.array([math.nan if value is None else float(value) for value in values])
    return texts_of(values)


def texts_of(values: Iterable[Any]) -> list[str]:
    """Return the texts under which values are counted."""
    return [category_text(value) for value in values]


def _same_length(columns: Mapping[str, Raw], path: Path) -> None:
    lengths = {name: len(values) for name, values in columns.items()}
    if len(set(lengths.values())) > 1:
        told = ", ".join(f"{name}: {rows}" for name, rows in list(lengths.items())[:6])
        raise FileError(f"the arrays of {path.name} differ in their number of rows ({told})", hint="save one a column")


_READERS: Mapping[str, Callable[[Path], Table]] = {
    ".csv": read_csv,
    ".tsv": read_csv,
    ".txt": read_text,
    ".dat": read_text,
    ".data": read_text,
    ".svm": read_text,
    ".libsvm": read_text,
    ".svmlight": read_text,
    ".jsonl": _read_json_lines,
    ".ndjson": _read_json_lines,
    ".json": _read_json,
    ".npz": _read_arrays,
    ".npy": _read_arrays,
    ".parquet": _read_parquet,
    ".feather": _read_feather,
}
_TEXTS = (read_csv, read_text, _read_json_lines)
"""Readers of texts, which may be packed by gzip."""
