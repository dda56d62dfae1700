"""What the agent costs: predictions against the raw ``session.run``, memory, start and installation against the floor.

Floor of a prediction: onnxruntime's own session with the same model, options and rows, same process, interleaved,
both on the thread's CPU clock (one thread does all of it), since the machine is shared.
Floor of memory and start: a process that imports onnxruntime and numpy, opens the same model and runs it once. A start
lasts from exec to the end of the first prediction. Both sides run in an environment that holds what the agent requires
and nothing else, and find their byte code, as on an installed device. It is told by the wall and by CPU time, since the
machine is shared.
"""

from __future__ import annotations

import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from functools import partial
from itertools import cycle
from pathlib import Path

from device import joined_device
from frame import Row, compared, paired, run
from installed import environment, size_mb
from models import NAMES, batches, bundle, load, trained

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

from fixtures_models import write_layout
from shoal_agent.runtime.model import LoadedModel

AT_ONE = {"linear": 1.25}
AT_1024 = {"gbdt": 1.05, "forest": 1.05, "mlp": 1.25}
STARTS = 15

ENDED = """
os._exit(0)
"""

BARE = """
import sys, time, os
os.environ["ORT_DISABLE_TELEMETRY"] = "1"
import numpy, onnxruntime
options = onnxruntime.SessionOptions()
options.intra_op_num_threads = options.inter_op_num_threads = 1
session = onnxruntime.InferenceSession(open(sys.argv[1], "rb").read(), options, providers=["CPUExecutionProvider"])
session.run(None, {"x": numpy.zeros((1, 20), numpy.float32)})
"""

BUNDLE = """
import os, sys, pathlib
import numpy
from shoal_agent.runtime.bundle_files import open_bundle
from shoal_agent.runtime.model import LoadedModel
from shoal_agent.runtime.slots import SlotTable
slots = SlotTable()
slots.install("quality", LoadedModel.load(open_bundle(pathlib.Path(sys.argv[1]))))
slots.model("quality").predict({"x": numpy.zeros((1, 20), numpy.float32)})
"""

SERVING = """
import paho.mqtt.client
from shoal_agent.serving.api import Api
from shoal_agent.serving.http import LocalServer
from shoal_agent.serving.listen import Listen
server = LocalServer(Api(slots).answerer, Listen("127.0.0.1", 0))
server.start()
"""

ENROLLED = """
import os, sys, time
import numpy
from shoal_agent import Agent
agent = Agent(sys.argv[1], {"listen": "none", "window_s": 1, "poll_s": 1})
agent.start()
agent.model("quality").predict({"x": numpy.zeros((1, 20), numpy.float32)})
"""

AT_WORK = """
import resource
import paho.mqtt.client

def has_judged():
    return agent.connected and resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime  # what was signed, in a child

begin = time.monotonic()
while (now := time.monotonic()) < begin + 6 or (now < begin + 60 and not has_judged()):
    agent.model("quality").predict({"x": numpy.zeros((1, 20), numpy.float32)})
    time.sleep(0.01)
assert has_judged()
"""

TOLD = """
print(open("/proc/self/statm").read().split()[1], flush=True)
os._exit(0)
"""


def rows() -> Iterator[Row]:
    yield from _predictions()
    yield from _processes()
    yield from _installation()


def _predictions() -> Iterator[Row]:
    for name in NAMES:
        model = load(trained(name), spec=True)
        for batch, loops in ((1, 1500), (32, 200), (1024, 5 if name in {"gbdt", "forest"} else 50)):
            target = {1: AT_ONE.get(name, 1.10), 1024: AT_1024.get(name)}.get(batch)
            yield _prediction(f"predict with statistics, {name}, batch {batch}", model, (batch, loops), target)


def _prediction(title: str, model: LoadedModel, scale: tuple[int, int], target: float | None) -> Row:
    batch, loops = scale
    ours, bare = (cycle(batches(batch)).__next__ for _ in range(2))
    session = model.engine.session
    for _ in range(3):
        model.predict(ours())
    pair = paired(
        lambda: model.predict(ours()), lambda: session.run(None, bare()), 41, loops=loops, clock=time.thread_time
    )
    return compared(title, pair.a_s * 1e6, "us", floor=pair.b_s * 1e6, ratio=pair.ratio, at_most=target)


def _processes() -> Iterator[Row]:
    with tempfile.TemporaryDirectory() as text:
        folder = Path(text)
        python = environment(folder / "installed")
        for name in ("gbdt", "forest"):
            raw = trained(name)
            graph, layout = folder / f"{name}.onnx", write_layout(folder / name, *bundle(raw))
            graph.write_bytes(raw)
            run_script = partial(_Script, python=python, byte_code=folder / "byte-code")
            bare, alone = run_script(BARE, graph), run_script(BUNDLE, layout)
            with joined_device(folder / f"{name}-state", raw) as state:
                floor_mb, serving_mb = bare.resident_mb(), run_script(BUNDLE + SERVING, layout).resident_mb()
                at_work_mb = run_script(ENROLLED + AT_WORK, state).resident_mb()
                if name == "gbdt":
                    enrolled = run_script(ENROLLED, state)
                    yield from _starts({"one bundle": alone, "an enrolled agent": enrolled}, bare)
            for what, mb in (("one bundle, paho and HTTP", serving_mb), ("an enrolled agent at work", at_work_mb)):
                title = f"resident: {what}, {name}, over bare onnxruntime"
                yield Row(title, mb, "MB", floor_mb, mb / floor_mb, "<= floor + 12 MB", mb - floor_mb <= 12)


def _starts(ours: Mapping[str, _Script], bare: _Script) -> Iterator[Row]:
    for title, script in ours.items():
        script.seconds(), bare.seconds()  # makes the byte code
        pairs = [(script.seconds(), bare.seconds()) for _ in range(STARTS)]
        for clock, at in (("wall", 0), ("CPU", 1)):
            mine, floor = (statistics.median(side[at] for side in sides) * 1e3 for sides in zip(*pairs, strict=True))
            ratio = statistics.median(a[at] / b[at] for a, b in pairs)
            name = f"cold start to the first prediction: {title}, {clock}"
            yield compared(name, mine, "ms", floor=floor, ratio=ratio, at_most=1.6)


class _Script:
    def __init__(self, code: str, argument: Path, *, python: Path, byte_code: Path) -> None:
        self._python, self._code, self._argument = str(python), code, str(argument)
        plain = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
        self._environment = {**plain, "PYTHONPYCACHEPREFIX": str(byte_code)}

    def seconds(self) -> tuple[float, float]:
        """Return wall and CPU time of one run, from exec to the end of the first prediction."""
        began = time.perf_counter()
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        self._run(self._code + ENDED)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return time.perf_counter() - began, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime

    def resident_mb(self) -> float:
        self._run(self._code + TOLD)  # makes the byte code, which takes and scatters memory
        pages = [int(self._run(self._code + TOLD).split()[-1]) for _ in range(3)]
        return statistics.median(pages) * os.sysconf("SC_PAGE_SIZE") / 1e6

    def _run(self, code: str) -> str:
        # -P: the folder that this was started from may hold an http.py, as this one does
        command = [self._python, "-P", "-c", code, self._argument]
        return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=self._environment).stdout


def _installation() -> Iterator[Row]:
    for title, leave_out in (
        ("installed files, over onnxruntime and numpy", frozenset[str]()),
        ("the same without packages' tests and test data (Debian package)", frozenset({"tests", "test_data"})),
    ):
        floor = size_mb("onnxruntime", "numpy", leave_out=leave_out)
        ours = size_mb("shoal-agent", leave_out=leave_out)
        yield Row(title, ours, "MB", floor, ours / floor, "<= floor + 22 MB", ours - floor <= 22)


if __name__ == "__main__":
    run("agent", rows())
