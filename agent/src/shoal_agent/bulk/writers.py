"""Where answers go: a file that appears only when it is whole, or a JSON document on standard output."""

from __future__ import annotations

import csv
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Protocol, TextIO

import msgspec
import numpy as np
import numpy.typing as npt

from shoal_agent.adapters.durable import move, sync_file
from shoal_agent.bulk.answers import column_names, columns
from shoal_agent.bulk.parquet import ParquetWriter
from shoal_agent.bulk.source import FileForm, form_of
from shoal_agent.bulk.table import some
from shoal_agent.runtime.model import LoadedModel
from shoal_agent.serving.plain_rows import answer_rows
from shoal_protocol.bundle.schema import ModelSchema
from shoal_protocol.errors import CallerError, LocalError

Outputs = Mapping[str, npt.NDArray[Any]]
Write = Callable[[Mapping[str, Sequence[Any]], Outputs], None]
"""Takes the kept columns of some rows, and each output of the model for them."""

_WRITTEN = (FileForm.CSV, FileForm.JSONL, FileForm.PARQUET)


class _Sink(Protocol):
    def write(self, columns: Mapping[str, Any]) -> None: ...

    def close(self) -> None: ...


def output_form(path: Path, form: FileForm | None) -> FileForm:
    """Return the form in which answers are written.

    Raises:
        CallerError: It is none of those that can be written, or the folder is not there.
    """
    found = form or form_of(path)
    if found not in _WRITTEN or path.suffix.lower() == ".gz":
        raise CallerError(
            f"answers are written as {', '.join(f'.{form}' for form in _WRITTEN)}; {path} is none of them",
            hint="or say what it is to be by --output-format",
        )
    if path.is_dir() or not path.parent.is_dir():
        raise CallerError(f"{path} can't be written: {'it is a folder' if path.is_dir() else 'its folder is missing'}")
    return found


@contextmanager
def file_of_answers(path: Path, form: FileForm, schema: ModelSchema, kept: Sequence[str]) -> Iterator[Write]:
    """Write answers to a file that is there only when all of them are: an old one stays until then.

    Args:
        path: The file.
        form: CSV, JSON lines or Parquet.
        schema: The bundle's.
        kept: Names of the columns that go before the answers.

    Raises:
        CallerError: A kept column has the name of an answer's.
        LocalError: The disk does not take it, or Parquet's library is missing.
    """
    names = column_names(schema)
    both = sorted({*kept} & {*names})
    if both:
        raise CallerError(f"the column {some(both)} can't be kept: the answers have one of that name")
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        sink = _sink(part, form, (*kept, *names))
        try:
            if form is FileForm.JSONL:
                yield lambda before, outputs: sink.write(_as_rows(before, outputs, schema))
            else:
                yield lambda before, outputs: sink.write({**before, **columns(outputs, schema)})
        finally:
            sink.close()
        sync_file(part)
        move(part, path)
    except OSError as error:
        raise LocalError(f"{path} can't be written: {error}", hint="see `df` and the folder's permissions") from error
    finally:
        part.unlink(missing_ok=True)


@contextmanager
def document_of_answers(out: TextIO, model: LoadedModel) -> Iterator[Write]:
    """Write one JSON document, a row a line: ``{"bundle": …, "version": …, "digest": …, "predictions": […]}``.

    Nothing is written before the first rows are answered, so that most faults leave standard output empty.
    """
    head = {"bundle": f"{model.name}:{model.version}", "version": model.version, "digest": model.digest}
    encode = msgspec.json.Encoder().encode
    before = encode(head)[:-1].decode() + ',"predictions":['
    separator = before + "\n"

    def write(kept_columns: Mapping[str, Sequence[Any]], outputs: Outputs) -> None:
        nonlocal separator
        lines = [encode(row).decode() for row in _as_rows(kept_columns, outputs, model.schema)["rows"]]
        out.write(separator + ",\n".join(lines))
        separator = ",\n"

    yield write
    out.write("\n]}\n" if separator == ",\n" else separator + "]}\n")
    out.flush()


def _as_rows(kept: Mapping[str, Sequence[Any]], outputs: Outputs, schema: ModelSchema) -> dict[str, Any]:
    rows = answer_rows(outputs, schema)
    if kept:
        rows = [
            {**dict(zip(kept, before, strict=True)), **row}
            for before, row in zip(zip(*kept.values(), strict=True), rows, strict=True)
        ]
    return {"rows": rows}


def _sink(path: Path, form: FileForm, names: Sequence[str]) -> _Sink:
    if form is FileForm.PARQUET:
        return ParquetWriter(path, names)
    return _Lines(path) if form is FileForm.JSONL else _Csv(path, names)


class _Csv:
    def __init__(self, path: Path, names: Sequence[str]) -> None:
        self._names = list(names)
        self._file = path.open("w", newline="", encoding="utf-8")
        self._rows = csv.writer(self._file, lineterminator="\n")
        self._rows.writerow(self._names)

    def write(self, columns: Mapping[str, Any]) -> None:
        lists = [it.tolist() if isinstance(it, np.ndarray) else it for it in (columns[name] for name in self._names)]
        self._rows.writerows(zip(*lists, strict=True))

    def close(self) -> None:
        self._file.close()


class _Lines:
    def __init__(self, path: Path) -> None:
        self._file = path.open("wb")
        self._encode = msgspec.json.Encoder().encode_lines

    def write(self, columns: Mapping[str, Any]) -> None:
        self._file.write(self._encode(columns["rows"]))

    def close(self) -> None:
        with suppress(ValueError):
            self._file.close()
