"""Samples from files, as columns that can be compared: CSV and TSV, npz and npy, Parquet where pyarrow is installed.

Owns reading, and what a column holds: numbers, if nearly all of the reference's values are, else texts. Nothing here
unpickles. Mistakes that people make with files are errors that say what to do.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias
from zipfile import BadZipFile

import numpy as np
import numpy.typing as npt

from shoal_protocol.profile.grid import category_text
from shoal_server.ctl.errors import FileError

Column: TypeAlias = npt.NDArray[Any]
Raw: TypeAlias = "Column | list[str]"

SUFFIXES = (".csv", ".tsv", ".npz", ".npy", ".parquet")
_MISSING = frozenset({"", "na", "n/a", "nan", "null", "none", "?"})
_NUMPY_BEGINS = (b"PK", b"\x93N")  # a zip archive, a single array
_MOST_UNREADABLE = 0.05
_IDENTIFIER = 0.5
_MOST_CATEGORIES = 64


@dataclass(frozen=True, eq=False)
class Pair:
    """Two samples with the same columns.

    Attributes:
        reference: Float64 with NaN for missing, or texts of dtype object with "" for missing.
        current: The same.
        notes: What was left out or looks odd, in sentences.
    """

    reference: dict[str, Column]
    current: dict[str, Column]
    notes: list[str] = field(default_factory=list)


def read_pair(reference: Path, current: Path, *, columns: Sequence[str] = (), ignore: Sequence[str] = ()) -> Pair:
    """Read two files.

    Args:
        reference: Path of the first.
        current: Path of the second.
        columns: Only these; none: all of the reference.
        ignore: But not these.

    Raises:
        FileError: A file can't be read or holds nothing, or their columns don't match.
    """
    a, b = read_columns(reference), read_columns(current)
    names = _names(a, b, (reference, current), columns)
    names = [name for name in names if name not in ignore]
    pair = Pair({}, {})
    extra = [name for name in b if name not in a]
    if extra and not columns:
        pair.notes.append(f"{current.name} has more columns, which were left out: {_listed(extra)}.")
    for name in names:
        _add(pair, name, a[name], b[name], (reference.name, current.name))
    if not pair.reference:
        raise FileError(
            f"there is nothing to compare in {reference.name} and {current.name}", hint=" ".join(pair.notes)
        )
    return pair


def read_columns(path: Path) -> dict[str, Raw]:
    """Read one file; texts of a CSV are left as they are.

    Raises:
        FileError: It can't be read or holds nothing.
    """
    suffix = path.suffix.lower()
    readers: Mapping[str, Callable[[Path], dict[str, Raw]]] = {
        ".csv": _read_csv, ".tsv": _read_csv, ".npz": _read_arrays, ".npy": _read_arrays, ".parquet": _read_parquet,
    }  # fmt: skip
    if not path.is_file():
        raise FileError(f"there is no file {path}")
    if suffix not in readers:
        raise FileError(f"{path.name} is of no known kind", hint=f"give one of {', '.join(SUFFIXES)}")
    columns = readers[suffix](path)
    if not columns or not len(next(iter(columns.values()))):
        raise FileError(f"{path.name} has no rows", hint="was it written completely?")
    return columns


def typed_columns(path: Path) -> dict[str, Column]:
    """Read one file: float64 with NaN for missing where every value is a number, else texts with "" for missing.

    Raises:
        FileError: It can't be read or holds nothing.
    """
    return {name: _typed(raw) for name, raw in read_columns(path).items()}


def _typed(raw: Raw) -> Column:
    if not isinstance(raw, list):
        return raw.astype(np.float64) if raw.dtype.kind in "fiub" else _text_column(raw)
    values, odd = _parsed(raw)
    return _text_column(raw) if odd else values


def _read_csv(path: Path) -> dict[str, Raw]:
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            first = file.readline()
            file.seek(0)
            rows = [row for row in csv.reader(file, delimiter=_delimiter(first)) if row]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise FileError(f"{path.name} can't be read as CSV: {error}", hint="save it as UTF-8 text") from error
    if not rows:
        raise FileError(f"{path.name} is empty", hint="the first line must hold the names of the columns")
    header = [name.strip() for name in rows[0]]
    if sum(_number(name) is not None for name in header) > len(header) / 2:
        raise FileError(
            f"the first line of {path.name} holds values ({', '.join(header[:4])}, …) instead of names",
            hint="put a line with the names of the columns first",
        )
    twice = sorted({name for name in header if header.count(name) > 1})
    if twice:
        raise FileError(f"{path.name} has columns with the same name: {_listed(twice)}", hint="rename them")
    uneven = next((at for at, row in enumerate(rows, start=1) if len(row) != len(header)), None)
    if uneven is not None:
        raise FileError(
            f"row {uneven} of {path.name} has {len(rows[uneven - 1])} values, but there are {len(header)} columns",
            hint="separate values by one of , ; or tab everywhere, and quote texts that hold it",
        )
    if len(rows) == 1:
        raise FileError(f"{path.name} has names of columns, but no rows", hint="was it written completely?")
    return {
        name: [value.strip() for value in values]
        for name, values in zip(header, zip(*rows[1:], strict=True), strict=True)
    }


def _delimiter(line: str) -> str:
    return max((",", ";", "\t"), key=line.count)


def _read_arrays(path: Path) -> dict[str, Raw]:
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
            columns[name or "value"] = _texts(array.tolist()) if array.dtype.kind in "USOb" else array
        else:
            columns |= {f"{name or 'x'}[{at}]": array[:, at] for at in range(array.shape[1])}
    _same_length(columns, path)
    return columns


def _read_parquet(path: Path) -> dict[str, Raw]:
    try:
        from pyarrow import parquet  # noqa: PLC0415 - 50 MB that most don't need
    except ImportError as error:
        raise FileError(
            f"{path.name} needs pyarrow, which is not installed", hint="pip install pyarrow, or give a .csv or .npz"
        ) from error
    try:
        table = parquet.read_table(path)
        found = {str(name): table.column(name).to_pylist() for name in table.column_names}
    except (OSError, ValueError) as error:  # pyarrow's own errors are among these
        raise FileError(f"{path.name} can't be read as Parquet: {error}") from error
    return {name: _plain(values) for name, values in found.items()}


def _plain(values: list[Any]) -> Raw:
    if all(value is None or (isinstance(value, int | float) and not isinstance(value, bool)) for value in values):
        return np.array([math.nan if value is None else float(value) for value in values])
    return _texts(values)


def _texts(values: Iterable[Any]) -> list[str]:
    return [category_text(value) for value in values]


def _same_length(columns: Mapping[str, Raw], path: Path) -> None:
    lengths = {name: len(values) for name, values in columns.items()}
    if len(set(lengths.values())) > 1:
        told = ", ".join(f"{name}: {rows}" for name, rows in list(lengths.items())[:6])
        raise FileError(f"the arrays of {path.name} differ in their number of rows ({told})", hint="save one a column")


def _names(a: Mapping[str, Raw], b: Mapping[str, Raw], paths: tuple[Path, Path], columns: Sequence[str]) -> list[str]:
    for path, side in zip(paths, (a, b), strict=True):
        absent = [name for name in (columns or a) if name not in side]
        if absent:
            shared = [name for name in a if name in b]
            hint = f"it has {_listed(list(side))}"
            if shared and not columns:
                hint = (
                    f"{path.name} has {_listed(list(side))}; compare what both have: --columns {','.join(shared[:8])}"
                )
            raise FileError(f"{path.name} has no column {_listed(absent)}", hint=hint)
    return list(dict.fromkeys(columns)) or list(a)


def _add(pair: Pair, name: str, before: Raw, now: Raw, files: tuple[str, str]) -> None:
    numbers = _numbers(before)
    if numbers is None or (np.isnan(numbers).all() and _numbers(now) is None):
        a, b = _text_column(before), _text_column(now)
        distinct = len(set(a.tolist()))
        if distinct > max(_MOST_CATEGORIES, _IDENTIFIER * a.size):
            pair.notes.append(f"{name} was left out: nearly every value differs, as in a name, time or identifier.")
            return
    else:
        a = numbers
        b = _read_as_numbers(pair, name, now, files)
    empty = [bool((side == "").all() if side.dtype.kind == "O" else np.isnan(side).all()) for side in (a, b)]
    if all(empty):
        pair.notes.append(f"{name} was left out: it has no value in either file.")
        return
    pair.reference[name], pair.current[name] = a, b


def _read_as_numbers(pair: Pair, name: str, now: Raw, files: tuple[str, str]) -> Column:
    if not isinstance(now, list):
        return now.astype(np.float64)
    values, odd = _parsed(now)
    if odd and len(odd) == len([text for text in now if text.lower() not in _MISSING]):
        raise FileError(
            f"{name} holds numbers in {files[0]}, but texts such as {odd[0]!r} in {files[1]}",
            hint="is it the same column? decimal commas must be points",
        )
    if odd:
        pair.notes.append(
            f"{len(odd)} values of {name} in {files[1]} are no numbers, such as {odd[0]!r}; they count as missing."
        )
    return values


def _numbers(raw: Raw) -> Column | None:
    """Return the column as numbers, or nothing if it holds texts; a few odd values count as missing."""
    if not isinstance(raw, list):
        return raw.astype(np.float64)
    values, odd = _parsed(raw)
    present = len(raw) - int(np.isnan(values).sum()) + len(odd)
    return values if len(odd) <= _MOST_UNREADABLE * present else None


def _parsed(texts: list[str]) -> tuple[Column, list[str]]:
    values = np.full(len(texts), np.nan)
    odd = []
    for at, text in enumerate(texts):
        if text.lower() in _MISSING:
            continue
        number = _number(text)
        if number is None:
            odd.append(text)
        else:
            values[at] = number
    return values, odd


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def _text_column(raw: Raw) -> Column:
    texts = raw if isinstance(raw, list) else _texts(raw.tolist())
    return np.array(["" if text.lower() in _MISSING else text for text in texts], dtype=object)


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - 6} more" if len(names) > 6 else ""
    return ", ".join(names[:6]) + more
