"""Text files of which only the content says what they are: svmlight (a label, then `place:value`), or else CSV.

In svmlight places that a line leaves out are zeros. The label is a text, since most files have classes there; a second
one behind a semicolon (a concentration) becomes a column of its own.
"""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from shoal_server.ctl.csv_columns import opened, read_csv
from shoal_server.ctl.errors import FileError
from shoal_server.ctl.sample_columns import Raw, Table

_LINE = re.compile(r"[^\s:]+(?:\s+\d+:[^\s:]+)+\s*(?:#.*)?")
_MOST_COLUMNS = 100_000


def read_text(path: Path) -> Table:
    """Read a file of svmlight, or of values that anything separates.

    Raises:
        FileError: It can't be read, or holds no such rows.
    """
    try:
        with opened(path) as file:
            first = file.readline()
    except (OSError, UnicodeDecodeError, EOFError):
        return read_csv(path)  # which says what is wrong
    return _read_svmlight(path) if _LINE.fullmatch(first.strip()) else read_csv(path)


def _read_svmlight(path: Path) -> Table:
    labels: list[list[str]] = []
    places: list[np.ndarray] = []
    values: list[np.ndarray] = []
    with opened(path) as file:
        for at, line in enumerate(file, start=1):
            words = line.partition("#")[0].split()
            if not words:
                continue
            try:
                parts = [word.split(":", 1) for word in words[1:] if not word.startswith("qid:")]
                places.append(np.array([int(place) for place, _ in parts], dtype=np.int64))
                values.append(np.array([float(value) for _, value in parts]))
            except ValueError as error:
                raise FileError(
                    f"line {at} of {path.name} is no line of svmlight: {line.strip()[:60]!r}",
                    hint="expected a label, then place:value, such as 1 1:15596.2 2:1.87",
                ) from error
            labels.append(words[0].split(";"))
    most = max((int(found.max()) for found in places if found.size), default=0)
    if most > _MOST_COLUMNS or any(found.size and found.min() < 0 for found in places):
        raise FileError(f"{path.name} has column {most:,}", hint=f"at most {_MOST_COLUMNS:,} columns are compared")
    rows = np.repeat(np.arange(len(places)), [found.size for found in places])
    table = np.zeros((len(places), most + 1))
    table[rows, np.concatenate(places)] = np.concatenate(values)
    start = 1 if not table[:, 0].any() else 0
    columns: dict[str, Raw] = {"label": [label[0] for label in labels]}
    for more in range(1, min(map(len, labels))):
        columns[f"label{more + 1}"] = [label[more] for label in labels]
    return Table(columns | {f"x{at}": table[:, at] for at in range(start, most + 1)})
