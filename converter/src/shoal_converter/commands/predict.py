"""`shoal-convert predict`."""

from __future__ import annotations

import csv
import sys
from pathlib import Path
from typing import Any

import numpy.typing as npt

from shoal_converter.bundle import Bundle
from shoal_converter.errors import SampleError
from shoal_converter.feeding import feed
from shoal_converter.onnx_runtime import Runner
from shoal_converter.self_test import golden
from shoal_converter.sources.sample_file import read_table
from shoal_converter.terminal import Terminal


def run(terminal: Terminal, bundle: Bundle, rows: Path | None) -> None:
    """Print every output for every row: CSV, or JSON by output.

    Args:
        terminal: Where to.
        bundle: Whose model.
        rows: File of the rows; the golden rows if none.
    """
    tensors = golden(bundle)[0] if rows is None else feed(bundle.schema, read_table(rows))
    if not tensors:
        raise SampleError("the bundle has no golden rows", hint="give rows by --input FILE")
    outputs = Runner(bundle.model).run(tensors)
    if terminal.json_wanted:
        terminal.json({name: values.tolist() for name, values in outputs.items()})
        return
    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerow([title for name, values in outputs.items() for title in _titles(bundle, name, values)])
    for at in range(len(next(iter(outputs.values())))):
        writer.writerow([cell for values in outputs.values() for cell in values[at : at + 1].ravel().tolist()])


def _titles(bundle: Bundle, name: str, values: npt.NDArray[Any]) -> list[str]:
    width = values.size // max(1, len(values))
    spec = next((output for output in bundle.schema.outputs if output.name == name), None)
    if spec is not None and spec.classes and width == len(spec.classes) and name != "label":
        return [f"{name}.{text}" for text in spec.classes]
    return [name] if width == 1 else [f"{name}.{at}" for at in range(width)]
