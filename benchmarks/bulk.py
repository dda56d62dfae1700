"""Answering a file's rows: ``predict --input FILE --output FILE`` against the least that any program would do.

Floor: in a process of its own as ours, the standard library's CSV reader, ``float`` on every cell, onnxruntime's own
session in batches of the same size, and the library's CSV writer; for arrays ``numpy.load`` in the reader's place. It
checks no name and no value, knows no row number and counts nothing. Both on the CPU clock of the child, with its start.
"""

from __future__ import annotations

import csv
import resource
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from frame import Row, compared, run
from models import FEATURES, ROWS, bundle, data, trained

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

from fixtures_models import write_layout

LINES, REPEATS = 100_000, 3

FLOOR = """
import csv, os, sys
from itertools import islice
os.environ["ORT_DISABLE_TELEMETRY"] = "1"
import numpy, onnxruntime
options = onnxruntime.SessionOptions()
options.intra_op_num_threads = options.inter_op_num_threads = 1
session = onnxruntime.InferenceSession(open(sys.argv[1], "rb").read(), options, providers=["CPUExecutionProvider"])
out = csv.writer(open(sys.argv[3], "w", newline=""))
def answer(x):
    label, probabilities = session.run(None, {"x": x})
    out.writerows(zip(label.tolist(), *probabilities.T.tolist()))
if sys.argv[2].endswith(".npz"):
    x = numpy.load(sys.argv[2])["x"]
    for at in range(0, len(x), 4096):
        answer(x[at : at + 4096])
else:
    rows = csv.reader(open(sys.argv[2], newline=""))
    next(rows)
    while block := list(islice(rows, 4096)):
        answer(numpy.array([[float(cell) for cell in row] for row in block], dtype=numpy.float32))
"""


def rows() -> Iterator[Row]:
    with tempfile.TemporaryDirectory() as text:
        folder = Path(text)
        files = _written(folder)
        for model in ("linear", "gbdt"):
            raw = trained(model)
            graph, layout = folder / f"{model}.onnx", write_layout(folder / model, *bundle(raw))
            graph.write_bytes(raw)
            for source in files:
                floor = [sys.executable, "-P", "-c", FLOOR, str(graph), str(source), str(folder / "bare.csv")]
                ours = [sys.executable, "-P", "-m", "shoal_agent.cli", "predict", "--bundle", str(layout)]
                ours += ["--input", str(source), "--output", str(folder / "answers.csv")]
                pairs = [(_cpu_s(ours), _cpu_s(floor)) for _ in range(REPEATS)]
                rate, bare = (LINES / statistics.median(times) for times in zip(*pairs, strict=True))
                ratio = statistics.median(b / a for a, b in pairs)
                title = f"{LINES:,} rows of {FEATURES}, {model}, {source.suffix} to .csv"
                yield compared(title, rate, "rows/s", floor=bare, ratio=ratio, at_least=0.5)


def _written(folder: Path) -> list[Path]:
    x = data()[0][np.random.default_rng(0).integers(0, ROWS, LINES)]
    with (folder / "rows.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow([f"x{at}" for at in range(FEATURES)])
        table.writerows(x.tolist())
    np.savez(folder / "rows.npz", x=x)
    return [folder / "rows.csv", folder / "rows.npz"]


def _cpu_s(command: list[str]) -> float:
    """Return the CPU seconds of a child, the system's on its behalf included."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(command, check=True, capture_output=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


if __name__ == "__main__":
    run("bulk", rows())
