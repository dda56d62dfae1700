"""What a model costs on this machine: latency of one row, time of a batch, and peak memory, in a child process.

The child imports nothing but numpy and onnxruntime, as a device would, and takes one thread. Figures are circumstance:
they go into a statement beside the bundle, never into what its digest covers.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from shoal_converter.domain.golden import GOLDEN_ROWS
from shoal_converter.errors import ConverterError
from shoal_protocol.canonical import rounded

Array = npt.NDArray[Any]

_WALL_S = 120
_BATCH = 256

_CHILD = """
import json, os, resource, sys, time
os.environ["ORT_DISABLE_TELEMETRY"] = "1"
import numpy as np, onnxruntime as ort
def peak():  # Linux: not ru_maxrss, which a process inherits from the one that started it
    if sys.platform != "linux":
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) << 10 for line in file if line.startswith("VmHWM"))
request = json.load(sys.stdin)
with np.load(request["rows"], allow_pickle=False) as file:
    feeds = {name: file[key].astype(object) if name in request["texts"] else file[key]
             for key, name in request["names"].items()}
bare = peak()
options = ort.SessionOptions()
options.intra_op_num_threads = options.inter_op_num_threads = 1
options.log_severity_level = 4
def opened(path):
    return ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
def clocked(session, feed):
    start = time.perf_counter()
    session.run(None, feed)
    return time.perf_counter() - start
sessions = [opened(path) for path in request["models"]]
rows = len(next(iter(feeds.values())))
single = [{name: values[at:at + 1] for name, values in feeds.items()} for at in range(rows)]
for session in sessions:
    clocked(session, {name: values[:request["few"]] for name, values in feeds.items()})
loaded = peak()
for session in sessions:
    clocked(session, feeds)
spent = max(1e-6, min(clocked(session, single[0]) for session in sessions))
calls = int(min(400, max(20, request["seconds"] / spent / len(sessions))))
times = [[] for _ in sessions]
batches = [[] for _ in sessions]
for at in range(calls):
    for session, store in zip(sessions, times):
        store.append(clocked(session, single[at % rows]))
for _ in range(9):
    for session, store in zip(sessions, batches):
        store.append(clocked(session, feeds))
print(json.dumps({"peak": max(0, loaded - bare), "models": [
    {"p50": float(np.quantile(t, 0.5)), "p95": float(np.quantile(t, 0.95)), "batch": float(np.median(b)) / rows}
    for t, b in zip(times, batches)]}))
"""


@dataclass(frozen=True)
class Cost:
    """What one model took.

    Attributes:
        p50_ms: Median latency of one row at batch 1, milliseconds.
        p95_ms: 95th percentile of it.
        batch_us: Microseconds a row in a batch of 256 (or as many as there are).
        peak_bytes: Memory beside interpreter, numpy and onnxruntime for loading it and for a batch as large as the
            golden rows; none where several were measured together.
    """

    p50_ms: float
    p95_ms: float
    batch_us: float
    peak_bytes: int | None = None

    def as_json(self) -> dict[str, Any]:
        """Return it as plain data."""
        return asdict(self)


def measure(models: Mapping[str, bytes], tensors: Mapping[str, Array], *, seconds: float = 0.3) -> dict[str, Cost]:
    """Measure models side by side, call by call in turns, so that what else the machine does falls on all alike.

    Args:
        models: ONNX models by a name of the caller's.
        tensors: Rows to run them on.
        seconds: About how long single rows are timed.

    Raises:
        ConverterError: The child died or took more than two minutes.
    """
    part = {name: values[:_BATCH] for name, values in tensors.items()}
    names = {f"t{at}": name for at, name in enumerate(part)}
    texts = [name for name, values in part.items() if values.dtype.kind in "OUS"]
    with tempfile.TemporaryDirectory(prefix="shoal-measure-") as folder:
        paths = [Path(folder) / f"{at}.onnx" for at in range(len(models))]
        for path, model in zip(paths, models.values(), strict=True):
            path.write_bytes(model)
        rows = Path(folder) / "rows.npz"
        arrays: dict[str, Any] = {
            key: part[name].astype(str) if name in texts else part[name] for key, name in names.items()
        }
        np.savez(rows, **arrays)
        request = {
            "models": [str(path) for path in paths],
            "rows": str(rows),
            "names": names,
            "texts": texts,
            "seconds": seconds,
            "few": GOLDEN_ROWS,
        }
        answer = _run(json.dumps(request))
    peak = int(answer["peak"]) if len(models) == 1 else None
    return {
        name: Cost(rounded(cost["p50"] * 1e3), rounded(cost["p95"] * 1e3), rounded(cost["batch"] * 1e6), peak)
        for name, cost in zip(models, answer["models"], strict=True)
    }


def _run(request: str) -> Any:
    try:
        done = subprocess.run(
            [sys.executable, "-P", "-c", _CHILD],
            input=request,
            capture_output=True,
            text=True,
            timeout=_WALL_S,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise ConverterError(
            f"measuring the model took more than {_WALL_S} s", hint="give a sample with fewer rows"
        ) from error
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no word"])[-1]
        raise ConverterError(f"the process that measures the model died (exit code {done.returncode}): {last[:200]}")
    return json.loads(done.stdout)
