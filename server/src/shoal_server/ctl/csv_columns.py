"""CSV files as columns, in pieces: a million rows of fifty numbers take their 400 MB and no more.

A column whose every value is a number (or missing) becomes float64 with NaN for missing; any other becomes texts as
they stand in the file. Decimal commas are read where commas don't separate values. Mistakes that people make are errors
that say what to do.
"""

from __future__ import annotations

import csv
import gzip
import sys
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain, islice
from pathlib import Path
from typing import TextIO

import numpy as np

from shoal_server.ctl.errors import FileError
from shoal_server.ctl.sample_columns import MISSING, Raw, Table, listed, number

_DELIMITERS = (",", ";", "\t", "|")
_NO_SPACES = (".csv", ".tsv", ".gz")
"""Names of files whose one column may have a name of several words."""

_PIECE = 20_000


def read_csv(path: Path, *, texts: Collection[str] = ()) -> Table:
    """Read a CSV file.

    Args:
        path: Of the file; its first line names the columns.
        texts: Columns that are texts whatever they look like.

    Raises:
        FileError: It can't be read, has no names or rows, or rows of different lengths.
    """
    encoding, notes = "utf-8-sig", []
    try:
        try:
            found, first_line = _read(path, encoding, texts)
        except UnicodeDecodeError:
            encoding = _other_encoding(path)
            found, first_line = _read(path, encoding, texts)
            notes = [f"{path.name} is no UTF-8; it was read as {encoding}."]
    except (OSError, EOFError, UnicodeError, csv.Error) as error:
        raise FileError(f"{path.name} can't be read as CSV: {error}", hint="save it as UTF-8 text") from error
    mixed = [column.name for column in found if column.mixed]
    if mixed:  # few are: their numbers must stand as they were written
        return read_csv(path, texts={*texts, *mixed})
    commas = [column.name for column in found if column.commas]
    notes += [f"decimal commas of {path.name} were read as points ({listed(commas)})."] if commas else []
    return Table({column.name: column.whole() for column in found}, notes, first_line)


def opened(path: Path, encoding: str = "utf-8-sig") -> TextIO:
    """Open a text, packed by gzip or not.

    Args:
        path: Of the file.
        encoding: Of the text.
    """
    if path.suffix.lower() == ".gz":
        return gzip.open(path, "rt", encoding=encoding, newline="")
    return path.open(encoding=encoding, newline="")


def _other_encoding(path: Path) -> str:
    """Tell UTF-16, which begins with a mark, from what Windows writes in western Europe."""
    with gzip.open(path) if path.suffix.lower() == ".gz" else path.open("rb") as file:
        begins = file.read(4096)
    if begins[:2] in (b"\xff\xfe", b"\xfe\xff"):
        return "utf-16"
    if b"\0" in begins:
        raise OSError("it holds bytes that no text has")
    return "cp1252"


def _read(path: Path, encoding: str, texts: Collection[str]) -> tuple[list[_Column], tuple[str, ...]]:
    with opened(path, encoding) as file:
        first = file.readline()
        file.seek(0)
        delimiter = max(_DELIMITERS, key=first.count)
        spaced = first.count(delimiter) == 0 and len(first.split()) > 1 and path.suffix.lower() not in _NO_SPACES
        rows: Iterable[list[str]] = (line.split() for line in file) if spaced else csv.reader(file, delimiter=delimiter)
        return _columns(iter(rows), path, texts=texts, commas=delimiter != "," or spaced)


@dataclass
class _Column:
    """One column while it is read, in pieces of numbers or of texts."""

    name: str
    text: bool
    may_have_commas: bool
    numbers: list[np.ndarray] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)
    commas: bool = False

    @property
    def mixed(self) -> bool:
        return bool(self.numbers and self.texts)

    def add(self, values: Sequence[str]) -> None:
        """Add a piece; after the first texts all else is texts."""
        found = None if self.text or self.texts else self._numbers(values)
        if found is None:
            self.texts += [sys.intern(value.strip()) for value in values]
        else:
            self.numbers.append(found)

    def whole(self) -> Raw:
        return np.concatenate(self.numbers) if self.numbers else self.texts

    def _numbers(self, values: Sequence[str]) -> np.ndarray | None:
        found = _floats(values)
        if found is None:
            values = ["nan" if value.strip().lower() in MISSING else value for value in values]
            found = _floats(values)
        if found is None and self.may_have_commas:
            found = _floats([value.replace(",", ".", 1) for value in values])
            self.commas |= found is not None
        return found


def _floats(values: Sequence[str]) -> np.ndarray | None:
    try:
        return np.array(values, dtype=np.float64)
    except ValueError:
        return None


def _columns(
    reader: Iterator[list[str]], path: Path, *, texts: Collection[str], commas: bool
) -> tuple[list[_Column], tuple[str, ...]]:
    first = next((row for row in reader if row), None)
    header, first_line = _header(first, path)
    columns = [_Column(name, name in texts, commas) for name in header]
    read = 0 if first_line else 1
    if first_line and first is not None:
        reader = chain([first], reader)
    while piece := list(islice(reader, _PIECE)):
        rows = [row for row in piece if row]
        if any(len(row) != len(header) for row in rows):
            at, uneven = next((at, row) for at, row in enumerate(piece, read + 1) if row and len(row) != len(header))
            raise FileError(
                f"row {at} of {path.name} has {len(uneven)} values, but there are {len(header)} columns",
                hint="separate values by one of , ; | or tab everywhere, and quote texts that hold it",
            )
        for column, values in zip(columns, zip(*rows, strict=True), strict=False):
            column.add(values)
        read += len(piece)
    if not any(column.numbers or column.texts for column in columns):
        raise FileError(f"{path.name} has names of columns, but no rows", hint="was it written completely?")
    return columns, first_line


def _header(first: list[str] | None, path: Path) -> tuple[list[str], tuple[str, ...]]:
    """Return the names of the columns, and the first line if it holds values in their place."""
    if first is None:
        raise FileError(f"{path.name} is empty", hint="the first line must hold the names of the columns")
    header = [name.strip() or f"column {at}" for at, name in enumerate(first, start=1)]
    if sum(number(name) is not None for name in header) > len(header) / 2 and not _counts(first):
        return [f"x{at}" for at in range(1, len(first) + 1)], tuple(name.strip() for name in first)
    twice = sorted({name for name in header if header.count(name) > 1})
    if twice:
        raise FileError(f"{path.name} has columns with the same name: {listed(twice)}", hint="rename them")
    return header, ()


def _counts(first: Sequence[str]) -> bool:
    """Tell whether columns are named by numbers in their order, as pandas does where nobody named them."""
    names = [name.strip() for name in first if name.strip()]
    return names in ([str(at) for at in range(start, start + len(names))] for start in (0, 1))
