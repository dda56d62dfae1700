"""Rows of files of lines: CSV with a head line, JSON lines, and a JSON list, each read a batch at a time."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Any, BinaryIO, Final

import msgspec

from shoal_agent.bulk.cells import CellError, values
from shoal_agent.bulk.table import Table, Wanted
from shoal_agent.runtime.conversion import shown
from shoal_agent.serving.plain_rows import parse_rows
from shoal_protocol.errors import CallerError

_DECIMAL_COMMA: Final = re.compile(r"'\s*[-+]?[0-9.]*[0-9],[0-9]+\s*'")

_SEPARATORS = ",;\t|"
_LARGEST_CELL = 1 << 20
_LARGEST_LIST = 1 << 28
_UTF8 = "convert it: iconv -f latin1 -t utf-8 FILE"

_row_decoder = msgspec.json.Decoder(dict[str, Any])


def csv_tables(stream: BinaryIO, wanted: Wanted, *, rows: int, name: str) -> Iterator[Table]:
    """Read CSV with a head line; the separator is the one of ``, ; tab |`` that splits it into the most known names.

    Args:
        stream: UTF-8, with or without a mark at its beginning.
        wanted: Which columns.
        rows: At most so many in a table.
        name: The file's, for errors.

    Raises:
        CallerError: A column is missing, a line has too few or too many cells, a cell is no value of its feature.
    """
    text = io.TextIOWrapper(stream, encoding="utf-8-sig", newline="")
    csv.field_size_limit(_LARGEST_CELL)
    try:
        yield from _csv_tables(text, wanted, rows, name)
    except UnicodeDecodeError as error:
        raise CallerError(f"{name} is no UTF-8: byte 0x{error.object[error.start]:02x}", hint=_UTF8) from error
    except csv.Error as error:
        raise CallerError(f"{name} is no CSV: {error}") from error
    finally:
        text.detach()


def _csv_tables(text: io.TextIOWrapper, wanted: Wanted, rows: int, name: str) -> Iterator[Table]:
    head_line = text.readline()
    if not head_line.strip():
        raise CallerError(f"{name} is empty; expected a head line that names the columns")
    heads = {sign: next(csv.reader([head_line], delimiter=sign)) for sign in _SEPARATORS}
    separator = max(heads, key=lambda sign: len({*heads[sign]} & {*wanted.fields}))
    head = heads[separator]
    wanted.check(head, of=name)
    reader = csv.reader(text, delimiter=separator, strict=True)
    first = 1
    while True:
        before = reader.line_num
        block = list(islice(reader, rows))
        if not block:
            return
        is_plain = reader.line_num - before == len(block)
        if len(head) == 1:
            block = [row or [""] for row in block]  # of one column, a line with nothing in it is a missing cell
        filled = [row for row in block if row]  # else it is no row
        line = before + 2 if is_plain and len(filled) == len(block) else None
        if filled:
            yield _csv_table(filled, head, wanted, Table(name, first, len(filled), first_line=line))
        first += len(filled)


def _csv_table(block: Sequence[Sequence[str]], head: Sequence[str], wanted: Wanted, empty: Table) -> Table:
    width = len(head)
    if set(map(len, block)) != {width}:
        at = next(at for at, row in enumerate(block) if len(row) != width)
        raise CallerError(f"{empty.place(at)} has {len(block[at])} cells, the head line {width}")
    by_name = dict(zip(head, zip(*block, strict=True), strict=True))
    try:
        columns = {name: values(by_name[name], field, wanted.missing) for name, field in wanted.fields.items()}
    except CellError as error:
        fault = error.fault
        where = f"{empty.place(fault.row or 0)}, column {fault.field!r}"
        hint = "an empty cell is a missing value; --missing TEXT names others, such as NA"
        if _DECIMAL_COMMA.search(fault.got):
            hint = "numbers are read with a decimal point, as 5.1; thousands are not parted"
        raise CallerError(f"{where}: expected {fault.expected}, got {fault.got}", hint=hint) from error
    kept = {name: by_name[name] for name in wanted.kept}
    return msgspec.structs.replace(empty, columns=columns, kept=kept)


def json_line_tables(stream: BinaryIO, wanted: Wanted, *, rows: int, name: str) -> Iterator[Table]:
    """Read one JSON object a line; null is a missing value.

    Raises:
        CallerError: A line is no object, or lacks a feature.
    """
    first, line = 1, 1
    while True:
        block = list(islice(stream, rows))
        if not block:
            return
        filled = [(at, raw) for at, raw in enumerate(block) if raw.strip()]
        objects = []
        for at, raw in filled:
            try:
                objects.append(_row_decoder.decode(raw))
            except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
                raise CallerError(f"{name}, line {line + at}: no JSON object: {error}") from error
        lines = line if len(filled) == len(block) else None
        if objects:
            yield _from_objects(objects, wanted, Table(name, first, len(objects), first_line=lines))
        first, line = first + len(objects), line + len(block)


def json_tables(stream: BinaryIO, wanted: Wanted, *, rows: int, name: str) -> Iterator[Table]:
    """Read a JSON list of rows; it is held as a whole, so JSON lines are the form for many.

    Raises:
        CallerError: It is no list of rows.
    """
    raw = stream.read(_LARGEST_LIST + 1)
    if len(raw) > _LARGEST_LIST:
        raise CallerError(f"{name} is larger than {_LARGEST_LIST >> 20} MiB", hint="write it as JSON lines (.jsonl)")
    objects = parse_rows(raw, most=None)
    for at in range(0, len(objects), rows):
        part = objects[at : at + rows]
        yield _from_objects(part, wanted, Table(name, at + 1, len(part)))


def _from_objects(objects: Sequence[dict[str, Any]], wanted: Wanted, empty: Table) -> Table:
    names = (*wanted.fields, *wanted.kept)
    try:
        by_name = {name: [row[name] for row in objects] for name in names}
    except KeyError:
        at, row = next((at, row) for at, row in enumerate(objects) if not row.keys() >= set(names))
        wanted.check(list(row), of=empty.place(at))
        raise
    for name in wanted.kept:
        nested = next((at for at, value in enumerate(by_name[name]) if isinstance(value, list | dict)), None)
        if nested is not None:
            came = shown(by_name[name][nested])
            raise CallerError(f"{empty.place(nested)}, column {name!r}: only plain values can be kept, got {came}")
    columns = {name: by_name[name] for name in wanted.fields}
    return msgspec.structs.replace(empty, columns=columns, kept={name: by_name[name] for name in wanted.kept})
