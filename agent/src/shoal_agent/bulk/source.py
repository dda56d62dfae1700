"""Which file rows come from, and in which form; the choice of what reads it."""

from __future__ import annotations

import gzip
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import BinaryIO, cast

from shoal_agent.bulk.table import Table, Wanted
from shoal_protocol.errors import CallerError

STANDARD = "-"


class FileForm(StrEnum):
    """Forms of files; a file's name ends with one."""

    JSON = "json"
    """A list of rows."""
    JSONL = "jsonl"
    """An object a line."""
    CSV = "csv"
    """Names in the first line."""
    NPZ = "npz"
    """Arrays by name."""
    PARQUET = "parquet"
    """Needs pyarrow."""


_SUFFIXES = {
    **{f".{form}": form for form in FileForm},
    ".ndjson": FileForm.JSONL,
    ".tsv": FileForm.CSV,
    ".pq": FileForm.PARQUET,
}
_PACKED = ".gz"
_LINES = (FileForm.JSON, FileForm.JSONL, FileForm.CSV)


def form_of(path: Path) -> FileForm | None:
    """Return the form that a file's name tells; none: it tells none. ``.gz`` behind it is looked through."""
    name = path.with_suffix("") if path.suffix.lower() == _PACKED else path
    return _SUFFIXES.get(name.suffix.lower())


class Source:
    """Where rows come from.

    Args:
        path: The file; none, or ``-``: standard input.
        form: Its form; none: as its name says, and a JSON list on standard input.

    Raises:
        CallerError: There is no such file, or its form is not known.
    """

    def __init__(self, path: Path | None, form: FileForm | None = None) -> None:
        self._path = None if path is None or str(path) == STANDARD else path
        if self._path is None:
            self.form, self.name = form or FileForm.JSON, "standard input"
            if self.form not in _LINES:
                raise CallerError(f"{self.form} can't be read from standard input", hint="name a file by --input")
            return
        if not self._path.is_file():
            raise CallerError(f"there is no input file {self._path}")
        found = form or form_of(self._path)
        if found is None:
            raise CallerError(
                f"{self._path} ends with {self._path.suffix!r}, expected {', '.join(_SUFFIXES)}",
                hint="or say what it is by --input-format",
            )
        self.form, self.name = found, self._path.name

    def tables(self, wanted: Wanted, *, rows: int) -> Iterator[Table]:
        """Read the rows, `rows` at a time.

        Raises:
            CallerError: The content is not of the form, or lacks a column.
            LocalError: What reads the form is not installed.
        """
        from shoal_agent.bulk import arrays, lines, parquet  # noqa: PLC0415 - whichever is needed

        if self._path is not None and self.form is FileForm.NPZ:
            yield from arrays.npz_tables(self._path, wanted, rows=rows)
            return
        if self._path is not None and self.form is FileForm.PARQUET:
            yield from parquet.parquet_tables(self._path, wanted, rows=rows)
            return
        read = {
            FileForm.CSV: lines.csv_tables, FileForm.JSONL: lines.json_line_tables, FileForm.JSON: lines.json_tables
        }[self.form]  # fmt: skip
        with self._opened() as stream:
            try:
                yield from read(stream, wanted, rows=rows, name=self.name)
            except (gzip.BadGzipFile, EOFError) as error:
                raise CallerError(f"{self.name} is damaged: {error}") from error

    @contextmanager
    def _opened(self) -> Iterator[BinaryIO]:
        if self._path is None:
            yield sys.stdin.buffer
        elif self._path.suffix.lower() == _PACKED:
            with gzip.open(self._path) as stream:
                yield cast("BinaryIO", stream)
        else:
            with self._path.open("rb") as stream:
                yield stream
