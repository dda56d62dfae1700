"""Parquet, where pyarrow is installed: the agent does not require it, because it is larger than all the rest."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from shoal_agent.bulk.table import Table, Wanted
from shoal_protocol.errors import CallerError, LocalError

PIP_LINE = "pip install pyarrow"


def import_pyarrow() -> Any:
    """Import pyarrow with its Parquet half.

    Raises:
        LocalError: It is not installed; says which command cures it.
    """
    try:
        import pyarrow as pa  # noqa: PLC0415 - 100 MB and optional
        import pyarrow.parquet  # noqa: PLC0415 - makes pa.parquet
    except ImportError as error:
        raise LocalError("Parquet needs pyarrow, which is not installed here", hint=PIP_LINE) from error
    return pa


def parquet_tables(path: Path, wanted: Wanted, *, rows: int) -> Iterator[Table]:
    """Read the wanted columns; null is a missing value.

    Raises:
        CallerError: It is no Parquet file, or lacks a column.
        LocalError: pyarrow is not installed.
    """
    arrow = import_pyarrow()
    try:
        with arrow.parquet.ParquetFile(path) as file:
            wanted.check(list(file.schema_arrow.names), of=path.name)
            first = 1
            names = list(dict.fromkeys((*wanted.fields, *wanted.kept)))
            for batch in file.iter_batches(batch_size=rows, columns=names):
                columns = {name: _values(arrow, batch.column(name)) for name in wanted.fields}
                kept = {name: batch.column(name).to_pylist() for name in wanted.kept}
                yield Table(path.name, first, batch.num_rows, columns, kept)
                first += batch.num_rows
    except arrow.ArrowInvalid as error:
        raise CallerError(f"{path.name} is no Parquet file that can be read: {error}") from error


def _values(arrow: Any, column: Any) -> Any:
    """Return an array of numbers, NaN for null; a list, None for null, of all else."""
    kind = column.type
    is_number = arrow.types.is_floating(kind) or (arrow.types.is_integer(kind) and not column.null_count)
    return column.to_numpy(zero_copy_only=False) if is_number else column.to_pylist()


class ParquetWriter:
    """Writes tables of one form; the first decides the types.

    Args:
        path: The file to make.
        names: Of the columns.
    """

    def __init__(self, path: Path, names: Sequence[str]) -> None:
        self._arrow = import_pyarrow()
        self._path, self._names = path, list(names)
        self._writer: Any = None

    def write(self, columns: Mapping[str, Any]) -> None:
        """Write some rows.

        Raises:
            CallerError: A kept column changes its type.
        """
        table = self._arrow.table({name: columns[name] for name in self._names})
        if self._writer is None:
            self._writer = self._arrow.parquet.ParquetWriter(self._path, table.schema)
        try:
            self._writer.write_table(table.cast(self._writer.schema))
        except (self._arrow.ArrowInvalid, ValueError) as error:
            raise CallerError(
                f"the columns change their types on the way: {error}", hint="write .csv or .jsonl"
            ) from error

    def close(self) -> None:
        """Finish the file; one without a row has the columns alone, as texts."""
        if self._writer is None:
            empty = self._arrow.schema([(name, self._arrow.string()) for name in self._names])
            self._writer = self._arrow.parquet.ParquetWriter(self._path, empty)
        self._writer.close()
