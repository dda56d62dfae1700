"""Two files as samples that can be compared: the same columns, each of one kind.

Owns what a column holds: numbers, if nearly all of the reference's values are, else texts. Leaves reading to
`table_files`, numbers as people write them to `written_numbers`, columns that are no features to `moving_columns`.
Mistakes that people make with files are errors that say what to do.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from shoal_server.ctl.csv_columns import read_csv
from shoal_server.ctl.errors import FileError
from shoal_server.ctl.moving_columns import why_left_out
from shoal_server.ctl.sample_columns import MISSING, Column, Raw, Table, listed, parsed
from shoal_server.ctl.table_files import check_named, read_table, texts_of
from shoal_server.ctl.written_numbers import plainly

_MOST_UNREADABLE = 0.05


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
    if bool(before.first_line) != bool(now.first_line):
        check_named(before, reference)
        check_named(now, current)
    names = _names(before.columns, now.columns, (reference, current), columns, ignore)
    now = _as_texts(before, now, names, current)
    notes = ["the files don't name their columns: they are called x1, x2, … in their order."] if now.first_line else []
    (before, units), (now, units_now) = _plainly(before, names), _plainly(now, names)
    pair = Pair({}, {}, [*before.notes, *now.notes, *notes, *_unit_notes(units, units_now, (reference, current))])
    a, b = before.columns, now.columns
    extra = [name for name in b if name not in a and name not in ignore]
    if extra and not columns:
        pair.notes.append(f"{current.name} has more columns, which were left out: {listed(extra)}.")
    for name in names:
        _add(pair, name, a[name], b[name], (reference.name, current.name), chosen=name in columns)
    if not pair.reference:
        raise FileError(
            f"there is nothing to compare in {reference.name} and {current.name}", hint=" ".join(pair.notes)
        )
    return pair


def typed_columns(path: Path) -> dict[str, Column]:
    """Read one file: float64 with NaN for missing where every value is a number, else texts with "" for missing.

    Raises:
        FileError: It can't be read, holds nothing, or doesn't name its columns.
    """
    table = read_table(path)
    check_named(table, path)
    return {name: _typed(raw) for name, raw in table.columns.items()}


def _typed(raw: Raw) -> Column:
    if not isinstance(raw, list):
        return raw.astype(np.float64) if raw.dtype.kind in "fiub" else _text_column(raw)
    values, odd = parsed(raw)
    return _text_column(raw) if odd else values


def _plainly(table: Table, names: Sequence[str]) -> tuple[Table, dict[str, str]]:
    """Return the table with numbers that spreadsheets wrote as numbers are read, and the units that stood there."""
    columns = dict(table.columns)
    units: dict[str, str] = {}
    for name in names:
        raw = columns[name]
        if isinstance(raw, list):
            columns[name], unit = plainly(raw)
            units |= {name: unit} if unit else {}
    return replace(table, columns=columns), units


def _unit_notes(before: Mapping[str, str], now: Mapping[str, str], paths: tuple[Path, Path]) -> list[str]:
    both = [name for name in before if name in now and before[name] != now[name]]
    return [
        f"{name} is written in {before[name]} in {paths[0].name}, in {now[name]} in {paths[1].name}." for name in both
    ]


def _as_texts(before: Table, now: Table, names: Sequence[str], path: Path) -> Table:
    """Return the current table with texts where the reference has texts: 01 and 1 are different ones."""
    texts = [
        name
        for name in names
        if isinstance(before.columns[name], list)
        and not isinstance(now.columns[name], list)
        and _numbers(before.columns[name]) is None
    ]
    if not texts or not path.name.lower().removesuffix(".gz").endswith((".csv", ".tsv")):
        return now
    return read_csv(path, texts=texts)


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
                hint += f"; compare what both have: --ignore {_quoted(','.join(absent))}"
            raise FileError(f"{path.name} has no column {listed(absent)}", hint=hint)
    return [name for name in (dict.fromkeys(columns) or a) if name not in ignore]


def _quoted(text: str) -> str:
    return text if text.replace(",", "").replace("_", "").isalnum() else f"'{text}'"


def _add(pair: Pair, name: str, before: Raw, now: Raw, files: tuple[str, str], *, chosen: bool) -> None:
    numbers = _numbers(before)
    if numbers is None or (np.isnan(numbers).all() and _numbers(now) is None):
        a, b = _text_column(before), _text_column(now)
        _check_texts(name, a, b, files)
    else:
        a = numbers
        b = _read_as_numbers(pair, name, now, files)
    empty = [bool((side == "").all() if side.dtype.kind == "O" else np.isnan(side).all()) for side in (a, b)]
    if all(empty):
        pair.notes.append(f"{name} was left out: it has no value in either file.")
        return
    why = "" if chosen and a.dtype.kind != "O" else why_left_out(a, b)
    if why:
        pair.notes.append(f"{name} was left out: {why}")
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
    texts = raw if isinstance(raw, list) else texts_of(raw.tolist())
    return np.array(["" if text.lower() in MISSING else text for text in texts], dtype=object)
