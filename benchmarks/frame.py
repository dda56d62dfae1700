"""The frame of every benchmark: what a row is, how two things are compared fairly, where results go.

The machines that run these are shared and noisy, so only ratios to a floor that is measured in the same run mean
anything: `paired` interleaves the repeats of both sides and takes medians. Each ``benchmarks/<name>.py`` yields `Row`s
and hands them to `run`, which prints a table and writes ``benchmarks/results/<name>.json``::

    {"machine": {...}, "rows": [{"name", "value", "unit", "floor", "ratio", "target", "ok"}]}
"""

from __future__ import annotations

import argparse
import gc
import importlib.metadata
import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
RESULTS = HERE / "results"

if sys.path and Path(sys.path[0]) == HERE:
    # this folder goes last: benchmarks named http and profile must not hide the standard library's modules
    sys.path.append(sys.path.pop(0))


@dataclass(frozen=True)
class Row:
    """One measured thing.

    Attributes:
        name: What was measured, for example ``predict gbdt batch 1``.
        value: In `unit`.
        unit: ``us``, ``ms``, ``MB``, ``B``, ``1/s`` …
        floor: The raw floor or the peer, in the same unit and from the same run.
        ratio: Value over floor; with `paired` the median of the ratios, not the ratio of the medians.
        target: In words a reader can check: ``<= 1.10x``.
        ok: Whether the target is met; none where there is no target.
    """

    name: str
    value: float
    unit: str
    floor: float | None = None
    ratio: float | None = None
    target: str | None = None
    ok: bool | None = None


def compared(
    name: str,
    value: float,
    unit: str,
    *,
    floor: float | None = None,
    ratio: float | None = None,
    at_most: float | None = None,
    at_least: float | None = None,
) -> Row:
    """Make a row and judge it.

    Args:
        name: What was measured.
        value: In `unit`.
        unit: The unit of value and floor.
        floor: What it is compared with; without it the target is on the value itself.
        ratio: Value over floor when it was measured better than by dividing the two.
        at_most: Target as an upper bound of the ratio (of the value when there is no floor).
        at_least: Target as a lower bound.
    """
    if ratio is None and floor:
        ratio = value / floor
    judged, sign = (value, f" {unit}") if ratio is None else (ratio, "x")
    if at_most is not None:
        return Row(name, value, unit, floor, ratio, f"<= {at_most:g}{sign}", judged <= at_most)
    if at_least is not None:
        return Row(name, value, unit, floor, ratio, f">= {at_least:g}{sign}", judged >= at_least)
    return Row(name, value, unit, floor, ratio)


@dataclass(frozen=True)
class Pair:
    """Medians of interleaved repeats.

    Attributes:
        a_s: Seconds of one call of the first.
        b_s: Seconds of one call of the second.
        ratio: Median over the repeats of first / second.
    """

    a_s: float
    b_s: float
    ratio: float


def paired(
    a: Callable[[], Any],
    b: Callable[[], Any],
    repeats: int,
    *,
    loops: int = 1,
    clock: Callable[[], float] = time.perf_counter,
) -> Pair:
    """Time two callables against each other.

    Args:
        a: The measured one.
        b: The floor.
        repeats: Interleaved measurements of each; the order alternates, so that a drift of the machine cancels.
        loops: Calls per measurement, for calls of microseconds.
        clock: Seconds; ``time.thread_time`` for work that is wholly the calling thread's, so that what else the machine
            does in the meantime is not counted.
    """
    a(), b()
    times: tuple[list[float], list[float]] = ([], [])
    collecting = gc.isenabled()
    gc.disable()
    try:
        for at in range(repeats):
            for side in (0, 1) if at % 2 == 0 else (1, 0):
                times[side].append(_timed(b if side else a, loops, clock))
    finally:
        if collecting:
            gc.enable()
    ratios = [x / y for x, y in zip(*times, strict=True)]
    return Pair(statistics.median(times[0]), statistics.median(times[1]), statistics.median(ratios))


def _timed(call: Callable[[], Any], loops: int, clock: Callable[[], float]) -> float:
    start = clock()
    for _ in range(loops):
        call()
    return (clock() - start) / loops


def options(**numbers: int) -> argparse.Namespace:
    """Return what the command line says: ``full``, ``seed``, and further whole numbers, given here with their defaults.

    What else stands there is another benchmark's, when `run.py` runs them all.
    """
    parser = argparse.ArgumentParser()
    parser.add_argument("--full", action="store_true")
    for name, default in {"seed": 1, **numbers}.items():
        parser.add_argument(f"--{name}", type=int, default=default)
    return parser.parse_known_args()[0]


def machine() -> dict[str, Any]:
    """Return what the results depend on, without the machine's name."""
    packages = ("numpy", "onnxruntime", "paho-mqtt", "msgspec", "sqlalchemy", "fastapi")
    return {
        "cpu": _cpu_model(),
        "cores": os.cpu_count(),
        "load_average": [round(load, 2) for load in os.getloadavg()],
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "python": platform.python_version(),
        "packages": {name: version for name in packages if (version := _version(name))},
        "measured_at": datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z"),
    }


def run(name: str, rows: Iterable[Row]) -> list[Row]:
    """Collect rows (telling of each on stderr as it comes), print the table, write the results file.

    Args:
        name: Of the benchmark; the file is ``benchmarks/results/<name>.json``.
        rows: May be a generator that measures as it goes.
    """
    facts = machine()
    done: list[Row] = []
    for row in rows:
        done.append(row)
        print(f"  {name}: {row.name}", file=sys.stderr, flush=True)
    _print_table(name, done)
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}.json"
    path.write_text(json.dumps({"machine": facts, "rows": [asdict(row) for row in done]}, indent=1) + "\n")
    print(f"written: {path}")
    return done


def _print_table(name: str, rows: list[Row]) -> None:
    heads = ("what", "value", "floor", "ratio", "target", "")
    lines = [_cells(row) for row in rows]
    if sys.stdout.isatty():
        from rich.console import Console  # noqa: PLC0415  (only a terminal needs it)
        from rich.table import Table  # noqa: PLC0415

        table = Table(title=name)
        for at, head in enumerate(heads):
            table.add_column(head, justify="left" if at in {0, 4, 5} else "right")
        for row, line in zip(rows, lines, strict=True):
            table.add_row(*line, style={True: "green", False: "red", None: ""}[row.ok])
        Console().print(table)
        return
    widths = [max(len(line[at]) for line in [heads, *lines]) for at in range(len(heads))]
    for line in [heads, *lines]:
        print("  ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)).rstrip())


def _cells(row: Row) -> tuple[str, str, str, str, str, str]:
    return (
        row.name,
        f"{row.value:.4g} {row.unit}",
        "" if row.floor is None else f"{row.floor:.4g} {row.unit}",
        "" if row.ratio is None else f"{row.ratio:.3g}x",
        row.target or "",
        {True: "ok", False: "MISSED", None: ""}[row.ok],
    )


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _cpu_model() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()
