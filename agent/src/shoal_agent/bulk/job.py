"""The loop: read a table, predict it, write it; and the words for rows that do not fit.

Invariant: what is held at a time is one table and its answers, whatever the file's length.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import msgspec

from shoal_agent.bulk.parquet import import_pyarrow
from shoal_agent.bulk.source import FileForm, Source
from shoal_agent.bulk.table import Table, Wanted
from shoal_agent.bulk.writers import Write, document_of_answers, file_of_answers, output_form
from shoal_agent.runtime.errors import Fault, InferenceError, InputError
from shoal_agent.runtime.model import LoadedModel
from shoal_protocol.bundle.schema import ModelSchema
from shoal_protocol.errors import CallerError

MOST_ROWS = 4096
_MOST_VALUES = 1 << 20
"""Of a table: what bounds the memory for wide rows."""

_TELL_EVERY_S = 5.0
_FAULTS = 8


class Job(msgspec.Struct, frozen=True):
    """What is to be answered, and where the answers go.

    Attributes:
        source: Where rows come from.
        output: The file to write; none: a JSON document on standard output.
        output_form: Its form; none: as its name says.
        keep: Columns of the input that go before the answers.
        missing: Texts in CSV that stand for a missing value.
    """

    source: Source
    output: Path | None = None
    output_form: FileForm | None = None
    keep: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()

    def check(self) -> None:
        """Look at what can be seen without a model.

        Raises:
            CallerError: The answers can't be written like this.
            LocalError: Parquet's library is missing.
        """
        forms = {self.source.form}
        if self.output is not None:
            forms.add(output_form(self.output, self.output_form))
        if FileForm.PARQUET in forms:
            import_pyarrow()


class Outcome(msgspec.Struct, frozen=True):
    """What was done.

    Attributes:
        rows: Answered.
        seconds: Wall time of reading, predicting and writing.
    """

    rows: int
    seconds: float


def run_job(
    model: LoadedModel,
    job: Job,
    *,
    tell: Callable[[Outcome], None] = lambda _so_far: None,
    clock: Callable[[], float] = time.monotonic,
) -> Outcome:
    """Answer all rows of a source; the model's observer sees them as any others.

    Args:
        model: Answers.
        job: What and where.
        tell: Called every five seconds with what is done so far.
        clock: Seconds; monotonic.

    Raises:
        CallerError: The source or a row does not fit; names row, column and value. Nothing is written then.
        ShoalError: The model fails, or the disk.
    """
    wanted = Wanted.of(model.schema, kept=job.keep, missing=job.missing)
    began = told = clock()
    done = 0
    with _writing(model, job) as write:
        for table in job.source.tables(wanted, rows=rows_at_once(model.schema)):
            write(table.kept, _answered(model, table))
            done += table.rows
            now = clock()
            if now - told >= _TELL_EVERY_S:
                told = now
                tell(Outcome(done, now - began))
    return Outcome(done, clock() - began)


def rows_at_once(schema: ModelSchema) -> int:
    """Return how many rows a table has: fewer of wide rows; the graph's own count where it has a fixed one."""
    fixed = [tensor.shape[0] for tensor in schema.tensors if tensor.shape and tensor.shape[0] is not None]
    if fixed:
        return min(fixed)
    width = sum(_entries(tensor.shape[1:]) for tensor in schema.tensors)
    return max(1, min(MOST_ROWS, _MOST_VALUES // max(1, width)))


def _entries(sizes: tuple[int | None, ...]) -> int:
    product = 1
    for size in sizes:
        product *= size or 1
    return product


def _writing(model: LoadedModel, job: Job) -> AbstractContextManager[Write]:
    if job.output is None:
        return document_of_answers(sys.stdout, model)
    return file_of_answers(job.output, output_form(job.output, job.output_form), model.schema, job.keep)


def _answered(model: LoadedModel, table: Table) -> Mapping[str, Any]:
    try:
        return model.predict(table.columns)
    except InputError as error:
        told = "; ".join(_told(fault, table) for fault in error.faults[:_FAULTS])
        more = f"; and {len(error.faults) - _FAULTS} more" if len(error.faults) > _FAULTS else ""
        raise CallerError(told + more, hint=error.hint) from error
    except InferenceError as error:
        raise InferenceError(f"{table.place(0)} to {table.first + table.rows - 1}: {error.message}") from error


def _told(fault: Fault, table: Table) -> str:
    where = table.file if fault.row is None else table.place(fault.row)
    return f"{where}, column {fault.field!r}: expected {fault.expected}, got {fault.got}"
