"""Samples from files: .npz and .npy, .csv and .tsv, .parquet where pyarrow is installed.

Owns reading and the split into features and target. Nothing here unpickles: arrays of Python objects are refused.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
import numpy.typing as npt

from shoal_converter.errors import LibraryMissingError, SampleError
from shoal_converter.sample import fitted_names, frame

Array = npt.NDArray[Any]

_MATRIX_KEYS = ("X", "x", "sample", "data", "arr_0")
_TARGET_KEYS = ("y", "target", "labels", "label")
_MISSING = frozenset({"", "NA", "N/A", "NaN", "nan", "NULL", "null", "None"})
SUFFIXES = (".npz", ".npy", ".csv", ".tsv", ".parquet", ".json")


@dataclass(frozen=True, eq=False)
class Table:
    """What a file holds: a matrix, or columns by name; and the target, if one was found.

    Attributes:
        matrix: 2-D array, or none.
        columns: Arrays of equal length, when it holds columns.
        target: Labels or values.
        further: Arrays beside the matrix of an .npz.
        matrix_name: What the .npz calls its matrix.
        path: Where it was read from, for what is said of it.
    """

    matrix: Array | None = None
    columns: dict[str, Array] | None = None
    target: Array | None = None
    further: dict[str, Array] = field(default_factory=dict)
    matrix_name: str = "X"
    path: Path | None = None

    def split_by(self, names: Sequence[str], model: Any, *, path: Path) -> tuple[Table, dict[str, Array]]:
        """Take the columns out by which figures are split; those that are features too stay as well.

        Raises:
            SampleError: There is no such column.
        """
        have = self.further if self.columns is None else self.columns
        absent = [name for name in names if name not in have]
        if absent:
            raise SampleError(
                f"{path.name} has no column {absent[0]!r} to split figures by; it has {', '.join(have) or 'none'}",
                hint="name another --segment-by",
            )
        return self.without(names, model), {name: have[name] for name in names}

    def without(self, names: Sequence[str], model: Any) -> Table:
        """Take columns out, as far as they are there and no features of the model."""
        if self.columns is None:
            return self
        known, width = fitted_names(model), getattr(model, "n_features_in_", None)
        features = set(known) if known else set(self.columns) if len(self.columns) == width else set()
        kept = {name: values for name, values in self.columns.items() if name not in names or name in features}
        return replace(self, columns=kept)

    def rows_for(self, model: Any) -> Any:
        """Return the rows as the model was fitted on them: a DataFrame, or an array.

        Raises:
            SampleError: The columns are not all numbers, and the model was fitted on an array.
            LibraryMissingError: A DataFrame is needed and pandas is not installed.
        """
        if self.columns is None:
            return self.matrix
        if any(values.ndim != 1 for values in self.columns.values()):
            raise self.unclear()
        if fitted_names(model) is not None or any(v.dtype.kind not in "biuf" for v in self.columns.values()):
            return frame(self.columns)
        return np.column_stack([values.astype(np.float64) for values in self.columns.values()])

    def unclear(self) -> SampleError:
        """Return what is said when arrays of several axes are there and the model takes one matrix."""
        shapes = ", ".join(f"{name} {values.shape}" for name, values in (self.columns or {}).items())
        return SampleError(
            f"{self.path.name if self.path else 'the sample'} has the arrays {shapes}: which is the sample?",
            hint="np.savez(file, X=rows, y=labels), or one 1-D array a column; by input name for an ONNX model",
        )

    def tensors_for(self, names: Sequence[str]) -> Any:
        """Return the rows for a model whose inputs are tensors of these names: arrays by name, or the one array."""
        if self.columns is None and (len(names) == 1 or not self.further):
            return self.further.get(names[0], self.matrix)
        arrays = self.columns if self.columns is not None else {self.matrix_name: self.matrix, **self.further}
        return {name: arrays[name] for name in names} if set(names) <= set(arrays) else arrays

    def arrays_for(self, names: Collection[str]) -> Any:
        """Return the rows for a network whose arguments have these names: arrays by name, or one, floats in float32."""
        arrays = self.columns if self.columns is not None else {self.matrix_name: self.matrix, **self.further}
        if arrays and set(arrays) <= set(names):
            return dict(arrays)
        if self.columns is None:
            return self.matrix
        if any(values.ndim != 1 or values.dtype.kind not in "biuf" for values in self.columns.values()):
            raise self.unclear()
        return np.column_stack([values.astype(np.float32) for values in self.columns.values()])


def read_table(path: Path, *, target: str | None = None) -> Table:
    """Read a sample file.

    Args:
        path: The file.
        target: Name of the column, or of the array in an .npz, that holds labels or values.

    Raises:
        SampleError: It isn't there, isn't of a known kind, doesn't parse, or has no such target.
        LibraryMissingError: .parquet without pyarrow.
    """
    check_sample_file(path)
    suffix = path.suffix.lower()
    if suffix == ".npz":
        return _npz(path, target)
    if suffix == ".npy":
        return _no_target(Table(matrix=_npy(path)), path, target)
    if suffix == ".json":
        return _json(path, target)
    if suffix in {".csv", ".tsv"}:
        return _split(_csv(path, "\t" if suffix == ".tsv" else ","), path, target)
    return _split(_parquet(path), path, target)


def check_sample_file(path: Path, *, flag: str = "--sample") -> None:
    """Refuse what can be refused without reading.

    Raises:
        SampleError: It isn't there, or isn't of a known kind.
    """
    if not path.is_file():
        raise SampleError(f"there is no {flag[2:]} file {path}", hint=f"{flag} takes {', '.join(SUFFIXES)}")
    if path.suffix.lower() not in SUFFIXES:
        raise SampleError(f"{path.name} is of no known kind", hint=f"{flag} takes {', '.join(SUFFIXES)}")


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    """Turn what numpy says about a file that it can't read into what its author can do."""
    try:
        yield
    except (ValueError, OSError, EOFError, BadZipFile) as error:
        if "allow_pickle" in str(error) or "pickled" in str(error):
            raise SampleError(
                f"{path.name} holds Python objects, which are pickles and never loaded from a sample",
                hint="save numbers, or texts by .astype(str); or give a .csv",
            ) from error
        raise SampleError(f"{path.name} can't be read: {error}", hint="was it written completely?") from error


def _npy(path: Path) -> Array:
    with _explained(path), path.open("rb") as file:
        found: Array = np.load(file, allow_pickle=False)
    return found


def _npz(path: Path, target: str | None) -> Table:
    with _explained(path), path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
        arrays = {name: archive[name] for name in archive.files}
    if target is not None and target not in arrays:
        raise SampleError(
            f"{path.name} has no array {target!r}; it has {', '.join(arrays)}", hint="name another --target"
        )
    named = target or next((name for name in _TARGET_KEYS if name in arrays and len(arrays) > 1), None)
    truth = arrays.pop(named) if named else None
    matrix = next((name for name in _MATRIX_KEYS if name in arrays), None)
    if matrix is None and len(arrays) == 1:
        matrix = next(iter(arrays))
    if matrix is not None:
        return Table(matrix=arrays.pop(matrix), target=truth, further=arrays, matrix_name=matrix)
    if not arrays or any(not values.ndim for values in arrays.values()):
        raise SampleError(f"{path.name} has no rows", hint="np.savez(file, X=rows, y=labels)")
    table = Table(columns=arrays, target=truth, path=path)
    if all(values.ndim == 1 for values in arrays.values()):
        _same_length(path, arrays)
    elif len({len(values) for values in arrays.values()}) > 1:
        raise table.unclear()
    return table


def _same_length(path: Path, arrays: dict[str, Array]) -> None:
    if len({len(values) for values in arrays.values()}) > 1:
        lengths = ", ".join(f"{name} {len(values)}" for name, values in arrays.items())
        raise SampleError(f"{path.name}: the columns have different lengths: {lengths}")


def _no_target(table: Table, path: Path, target: str | None) -> Table:
    if target is not None:
        raise SampleError(
            f"{path.name} is one array, it has no target {target!r}", hint="use .npz with X and y, or .csv"
        )
    return table


def _csv(path: Path, delimiter: str) -> dict[str, Array]:
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            rows = [row for row in csv.reader(file, delimiter=delimiter) if row]
    except (UnicodeDecodeError, csv.Error) as error:
        raise SampleError(f"{path.name} is no UTF-8 CSV: {error}", hint="save it as UTF-8") from error
    if len(rows) < 2:
        what = "a header and no rows" if rows else "nothing in it"
        raise SampleError(f"{path.name} has {what}", hint="expected a line of column names, and a line for each row")
    header = [name.strip() for name in rows[0]]
    _check_separated(path, header, delimiter)
    if len(set(header)) != len(header) or not all(header):
        raise SampleError(f"{path.name}: the first line must name every column once, it is {', '.join(header)[:200]}")
    uneven = [number for number, row in enumerate(rows[1:], 2) if len(row) != len(header)]
    if uneven:
        raise SampleError(
            f"{path.name}: line {uneven[0]} has {len(rows[uneven[0] - 1])} fields, the header {len(header)}",
            hint="is the delimiter a comma?",
        )
    if all(_number(name) is not None for name in header):
        raise SampleError(f"{path.name} has no header: its first line is all numbers", hint="put column names first")
    return {name: _column([row[at] for row in rows[1:]]) for at, name in enumerate(header)}


def _check_separated(path: Path, header: Sequence[str], delimiter: str) -> None:
    """Refuse the two likeliest ways to write a CSV otherwise: with semicolons, and with pandas' index in front."""
    other = next((mark for mark in ";\t|," if len(header) == 1 and mark in header[0]), None)
    if other is not None:
        raise SampleError(
            f"{path.name} is separated by {other!r}, expected {delimiter!r}",
            hint=f"pd.read_csv({path.name!r}, sep={other!r}) reads it (with decimal=',' where numbers are written so); "
            "save it by df.to_csv(path, index=False)",
        )
    if not header[0] and all(header[1:]):
        raise SampleError(
            f"{path.name}: the first column has no name, as pandas writes its index",
            hint="save it without: df.to_csv(path, index=False)",
        )


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def _column(texts: list[str]) -> Array:
    """Return integers, else numbers with NaN for missing, else booleans, else texts with None for missing."""
    stripped = [text.strip() for text in texts]
    missing = [text in _MISSING for text in stripped]
    present = [text for text, absent in zip(stripped, missing, strict=True) if not absent]
    if present and {text.lower() for text in present} <= {"true", "false"} and not any(missing):
        return np.array([text.lower() == "true" for text in stripped])
    numbers = [_number(text) for text in present]
    if present and all(number is not None for number in numbers):
        if not any(missing) and all(text.lstrip("+-").isdecimal() for text in present):
            with_ints = np.array([int(text) for text in stripped], dtype=object)
            if all(abs(value) < 2**63 for value in with_ints):
                return with_ints.astype(np.int64)
        return np.array([np.nan if absent else float(t) for t, absent in zip(stripped, missing, strict=True)])
    if not present:
        return np.full(len(texts), np.nan)
    return np.array([None if absent else text for text, absent in zip(texts, missing, strict=True)], dtype=object)


def _json(path: Path, target: str | None) -> Table:
    """Read rows as MLflow keeps input examples: {"columns": […], "data": [[…]]}, arrays by name, or one array."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        if isinstance(found, list):
            return _no_target(Table(matrix=np.asarray(found)), path, target)
        if {"columns", "data"} <= set(found):
            named = zip(*found["data"], strict=True)
            columns = {str(name): _plain(values) for name, values in zip(found["columns"], named, strict=True)}
            return _split(columns, path, target)
        arrays = {str(name): np.asarray(values) for name, values in found.items()}
    except (ValueError, TypeError, UnicodeDecodeError) as error:
        raise SampleError(
            f"{path.name} holds no rows: {error}", hint='expected {"columns": […], "data": [[…], …]}, or a list of rows'
        ) from error
    return replace(_split(arrays, path, target), path=path)


def _plain(values: Sequence[Any]) -> Array:
    """Return a column of JSON values: numbers with NaN for null, else the values as they are."""
    if any(value is None for value in values) and all(isinstance(value, (int, float, type(None))) for value in values):
        return np.array([np.nan if value is None else value for value in values], dtype=np.float64)
    array = np.asarray(values)
    return array if array.dtype.kind in "biuf" else np.array(values, dtype=object)


def _parquet(path: Path) -> dict[str, Array]:
    try:
        from pyarrow import parquet  # noqa: PLC0415 - optional
    except ImportError as error:
        raise LibraryMissingError(
            "reading .parquet needs pyarrow", hint="pip install 'shoal-converter[parquet]', or give a .csv or .npz"
        ) from error
    try:
        table = parquet.read_table(path)
    except (OSError, ValueError) as error:
        raise SampleError(f"{path.name} can't be read: {error}") from error
    return {name: table.column(name).to_numpy() for name in table.column_names}


def _nearest(name: str, columns: Iterable[str]) -> str:
    """Return advice with the column that was probably meant."""
    lowered = {column.lower(): column for column in columns}
    near = get_close_matches(name.lower(), lowered, n=1)
    return f"is --target {lowered[near[0]]} meant?" if near else "name another --target"


def _split(columns: dict[str, Array], path: Path, target: str | None) -> Table:
    if target is None:
        return Table(columns=columns)
    if target not in columns:
        raise SampleError(
            f"{path.name} has no column {target!r}; it has {', '.join(columns)}", hint=_nearest(target, columns)
        )
    truth = columns.pop(target)
    if not columns:
        raise SampleError(f"{path.name} has no column besides the target {target!r}")
    return Table(columns=columns, target=truth)
