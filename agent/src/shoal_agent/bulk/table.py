"""A stretch of a file's rows as columns, and which of a file's columns are read.

Owns the rule of names: a file must have every feature of the bundle, in any order; what else it has is left out, or
kept beside the answers where the caller asks for it. Leaves values to the readers and to the bundle's input plan.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from difflib import get_close_matches
from typing import Any

import msgspec

from shoal_protocol.bundle.schema import FieldSpec, ModelSchema
from shoal_protocol.errors import CallerError

_NAMED = 12


class Table(msgspec.Struct, frozen=True):
    """Some consecutive rows.

    Attributes:
        file: Where they are from, for errors.
        first: Number of the first row in the file, from 1; a head line does not count.
        rows: How many.
        columns: Features, or whole tensors, by name: lists or arrays of one entry a row.
        kept: Other columns, which go beside the answers.
        first_line: Line of the first row in a file of lines, where every row is one line; none: unknown.
    """

    file: str
    first: int
    rows: int
    columns: dict[str, Any] = {}
    kept: dict[str, Any] = {}
    first_line: int | None = None

    def place(self, row: int) -> str:
        """Say where a row stands: ``visits.csv, row 7 (line 8)``.

        Args:
            row: Its index in this table, from 0.
        """
        line = "" if self.first_line is None else f" (line {self.first_line + row})"
        return f"{self.file}, row {self.first + row}{line}"


class Wanted(msgspec.Struct, frozen=True):
    """Which columns are read.

    Attributes:
        fields: The bundle's features, by name.
        tensors: Names of its input tensors, which a file of arrays may hold instead.
        kept: Columns that go beside the answers.
        missing: Texts that stand for a missing value, beside the empty one.
    """

    fields: dict[str, FieldSpec]
    tensors: tuple[str, ...]
    kept: tuple[str, ...] = ()
    missing: frozenset[str] = frozenset()

    @classmethod
    def of(cls, schema: ModelSchema, *, kept: Sequence[str] = (), missing: Iterable[str] = ()) -> Wanted:
        """Return what a bundle's schema asks for."""
        fields = {field.name: field for field in schema.inputs}
        return cls(fields, tuple(t.name for t in schema.tensors), tuple(dict.fromkeys(kept)), frozenset(missing))

    def check(self, names: Sequence[str], *, of: str) -> None:
        """Check the names of a file's columns.

        Args:
            names: As they stand in the file.
            of: The file, for the error.

        Raises:
            CallerError: One that is needed is missing, or stands there twice.
        """
        known = set(names)
        lacking = [name for name in (*self.fields, *self.kept) if name not in known]
        if lacking:
            real = {name.lower(): name for name in names if name not in self.fields}
            near = {name: get_close_matches(name.lower(), real, n=1) for name in lacking}
            meant = [f"{real[found[0]]!r} for {name!r}" for name, found in near.items() if found]
            raise CallerError(
                f"{of} lacks the column{'s' if len(lacking) > 1 else ''} {some(lacking)}; it has {some(names)}",
                hint=f"is {', '.join(meant[:3])} meant? names are taken exactly" if meant else _HINT,
            )
        twice = sorted({name for name in names if names.count(name) > 1} & {*self.fields, *self.kept})
        if twice:
            raise CallerError(f"{of} has more than one column {some(twice)}", hint="rename or leave out one of them")


_HINT = "the first line must name the columns as the bundle does: see `shoal-convert inspect`"


def some(names: Sequence[str]) -> str:
    """Return names for an error, the first dozen of many."""
    told = ", ".join(repr(name) for name in names[:_NAMED])
    return told + (f" and {len(names) - _NAMED} more" if len(names) > _NAMED else "") if names else "none"
