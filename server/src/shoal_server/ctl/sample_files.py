"""Samples from files, as columns that can be compared: CSV, JSON lines, npz, npy, Parquet where pyarrow is there.

Owns what a column holds: numbers, if nearly all of the reference's values are, else texts. Nothing here unpickles.
Mistakes that people make with files are errors that say what to do.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import msgspec
import numpy as np

from shoal_protocol.profile.grid import category_text
from shoal_server.ctl.csv_columns import read_csv
from shoal_server.ctl.errors import FileError
from shoal_server.ctl.sample_columns import MISSING, Column, Raw, Table, listed, parsed

SUFFIXES = (".csv", ".tsv", ".jsonl", ".ndjson", ".npz", ".npy", ".parquet")
_NUMPY_BEGINS = (b"PK", b"\x93N")  # a zip archive, a single array
_MOST_UNREADABLE = 0.05
_IDENTIFIER = 0.5
_MOST_CATEGORIES = 64
_LOOKED_AT = 20


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
    before, now = read_table(reference), read_table(current)
    names = _names(before.columns, now.columns, (reference, current), columns, ignore)
    now = _as_texts(before, now, names, current)
    pair = Pair({}, {}, [*before.notes, *now.notes])
    a, b = before.columns, now.columns
    extra = [name for name in b if name not in a and name not in ignore]
    if extra and not columns:
        pair.notes.append(f"{current.name} has more columns, which were left out: {listed(extra)}.")
    for name in names:
        _add(pair, name, a[name], b[name], (reference.name, current.name))
    if not pair.reference:
        raise FileError(
            f"there is nothing to compare in {reference.name} and {current.name}", hint=" ".join(pair.notes)
        )
    return pair


def read_table(path: Path) -> Table:
    """Read one file.

    Raises:
        FileError: It can't be read or holds nothing.
    """
    suffix = path.suffix.lower()
    readers: Mapping[str, Callable[[Path], Table]] = {
        ".csv": read_csv,
        ".tsv": read_csv,
        ".jsonl": _read_json_lines,
        ".ndjson": _read_json_lines,
        ".npz": _read_arrays,
        ".npy": _read_arrays,
        ".parquet": _read_parquet,
    }
    if not path.is_file():
        raise FileError(f"there is no file {path}")
    if suffix not in readers:
        raise FileError(f"{path.name} is of no known kind", hint=f"give one of {', '.join(SUFFIXES)}")
    table = readers[suffix](path)
    if not table.columns or not len(next(iter(table.columns.values()))):
        raise FileError(f"{path.name} has no rows", hint="was it written completely?")
    return table


def typed_columns(path: Path) -> dict[str, Column]:
    """Read one file: float64 with NaN for missing where every value is a number, else texts with "" for missing.

    Raises:
        FileError: It can't be read or holds nothing.
    """
    return {name: _typed(raw) for name, raw in read_table(path).columns.items()}


def _typed(raw: Raw) -> Column:
    if not isinstance(raw, list):
        return raw.astype(np.float64) if raw.dtype.kind in "fiub" else _text_column(raw)
    values, odd = parsed(raw)
    return _text_column(raw) if odd else values


def _as_texts(before: Table, now: Table, names: Sequence[str], path: Path) -> Table:
    """Return the current table with texts where the reference has texts: 01 and 1 are different ones."""
    texts = [
        name
        for name in names
        if isinstance(before.columns[name], list)
        and not isinstance(now.columns[name], list)
        and _numbers(before.columns[name]) is None
    ]
    if not texts or path.suffix.lower() not in {".csv", ".tsv"}:
        return now
    return read_csv(path, texts=texts)


def _read_json_lines(path: Path) -> Table:
    """Read a file with one JSON object a line; what a line lacks is missing."""
    rows: list[dict[str, Any]] = []
    with path.open("rb") as file:
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
            columns[name or "value"] = _texts(array.tolist()) if array.dtype.kind in "USObM" else array
        else:
            columns |= {f"{name or 'x'}[{at}]": array[:, at] for at in range(array.shape[1])}
    _same_length(columns, path)
    return Table(columns)


def _read_parquet(path: Path) -> Table:
    try:
        from pyarrow import parquet, types  # noqa: PLC0415 - 50 MB that most don't need
    except ImportError as error:
        raise FileError(
            f"{path.name} needs pyarrow, which is not installed", hint="pip install pyarrow, or give a .csv or .npz"
        ) from error
    try:
        table = parquet.read_table(path)
    except (OSError, ValueError) as error:  # pyarrow's own errors are among these
        raise FileError(f"{path.name} can't be read as Parquet: {error}") from error
    columns: dict[str, Raw] = {}
    for name in table.column_names:
        column = table.column(name)
        if types.is_integer(column.type) or types.is_floating(column.type):
            columns[str(name)] = np.asarray(column.to_numpy(), np.float64)
        else:
            columns[str(name)] = _plain(column.to_pylist())
    return Table(columns)


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


def _names(
    a: Mapping[str, Raw],
    b: Mapping[str, Raw],
    paths: tuple[Path, Path],
    columns: Sequence[str],
    ignore: Sequence[str],
) -> list[str]:
    unknown = [name for name in ignore if name not in a and name not in b]
    if unknown:
        raise FileError(f"neither file has a column {listed(unknown)}", hint=f"there are {listed(list(a))}")
    for path, side in zip(paths, (a, b), strict=True):
        absent = [name for name in (columns or a) if name not in side and name not in ignore]
        if absent:
            shared = [name for name in a if name in b]
            hint = f"it has {listed(list(side))}"
            if shared and not columns:
                hint = (
                    f"{path.name} has {listed(list(side))}; compare what both have: --features {','.join(shared[:8])}"
                )
            raise FileError(f"{path.name} has no column {listed(absent)}", hint=hint)
    return [name for name in (dict.fromkeys(columns) or a) if name not in ignore]


def _add(pair: Pair, name: str, before: Raw, now: Raw, files: tuple[str, str]) -> None:
    numbers = _numbers(before)
    if numbers is None or (np.isnan(numbers).all() and _numbers(now) is None):
        a, b = _text_column(before), _text_column(now)
        _check_texts(name, a, b, files)
        if _holds_times(a):
            pair.notes.append(
                f"{name} was left out: it holds times, such as {a[a != ''][0]}, which only move on. To compare hours "
                "or weekdays, make columns of them."
            )
            return
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


def _check_texts(name: str, a: Column, b: Column, files: tuple[str, str]) -> None:
    """Refuse texts that became numbers altogether: coded otherwise, or another column; not a drift of the world."""
    known, now = set(a.tolist()) - {""}, set(b.tolist()) - {""}
    if known and now and not known & now and not parsed(sorted(now))[1] and len(parsed(sorted(known))[1]) == len(known):
        raise FileError(
            f"{name} holds texts such as {min(known)!r} in {files[0]}, but numbers such as {min(now)} in {files[1]}",
            hint=f"is it coded otherwise now? make both alike, or leave it out: --ignore {name}",
        )


def _holds_times(column: Column) -> bool:
    """Tell whether texts are dates or times, by the first of them."""
    some = [text for text in column[:1000].tolist() if text][:_LOOKED_AT]
    return bool(some) and all(_is_time(text) for text in some)


def _is_time(text: str) -> bool:
    try:
        datetime.fromisoformat(text)
    except ValueError:
        return False
    return "-" in text or ":" in text  # 20260105 may be any number


def _read_as_numbers(pair: Pair, name: str, now: Raw, files: tuple[str, str]) -> Column:
    if not isinstance(now, list):
        return now.astype(np.float64)
    values, odd = parsed(now)
    if odd and len(odd) == len([text for text in now if text.lower() not in MISSING]):
        raise FileError(
            f"{name} holds numbers in {files[0]}, but texts such as {odd[0]!r} in {files[1]}",
            hint=f"is it the same column? Decimal commas must be points where commas separate values; --ignore {name}",
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
    values, odd = parsed(raw)
    present = len(raw) - int(np.isnan(values).sum()) + len(odd)
    return values if len(odd) <= _MOST_UNREADABLE * present else None


def _text_column(raw: Raw) -> Column:
    texts = raw if isinstance(raw, list) else _texts(raw.tolist())
    return np.array(["" if text.lower() in MISSING else text for text in texts], dtype=object)
