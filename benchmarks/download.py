"""An update on its way: bytes as it is, compressed and as a patch; what that costs server and device.

Pairs of models as they follow each other in practice, as ONNX files. The floor of a form's bytes is the file itself;
that of a download's processor time is the barest client (urllib3 into a file, no hash), in the same child process and
run. Memory is what a download adds to the peak of that process. The network is loopback, so no time of it counts.
"""
# ruff: noqa: E402, PLC0415  (imports follow the path that they need; what trains is loaded where it trains)

from __future__ import annotations

import multiprocessing
import statistics
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path[:] = [path for path in sys.path if Path(path).resolve() != HERE] + [str(HERE), str(HERE.parent / "tests")]

import numpy as np

from frame import Row, compared, run
from places_to_download_from import Place
from shoal_agent.adapters.blob_store import FolderBlobStore
from shoal_protocol.bundle.codings import DCZ, IDENTITY, ZSTD, Encoder
from shoal_protocol.bundle.manifest import Descriptor
from shoal_protocol.canonical import sha256_digest

REPEATS = 3
LEVEL = 19
TARGETS = {"forest, 5% more rows": 0.12, "boosting, 20% more trees": 0.12, "conv net, last layer": 0.02}
"""Of the smaller form over the file; the others have none."""

MEASURED = ("forest, 5% more rows", "conv net, last layer", "conv net, all layers")
"""Whose times and memory are measured too."""


def rows() -> Iterator[Row]:
    with tempfile.TemporaryDirectory() as folder:
        for name, (old, new) in pairs().items():
            forms, seconds = {}, {}
            for coding, base in ((ZSTD, None), (DCZ, old)):
                begun = time.process_time()
                forms[coding] = coded(new, base)
                seconds[coding] = time.process_time() - begun
            size = len(new)
            yield compared(f"{name}: zstd", len(forms[ZSTD]), "B", floor=size)
            yield compared(f"{name}: patch", len(forms[DCZ]), "B", floor=size)
            smaller = min(map(len, forms.values()))
            yield compared(f"{name}: what travels", smaller, "B", floor=size, at_most=TARGETS.get(name))
            if name not in MEASURED:
                continue
            for coding, spent in seconds.items():
                yield compared(f"{name}: {coding}, server's time, once", spent, "s")
            for coding, (cpu_s, raw_s, peak) in measured(Path(folder), old, new, forms).items():
                title = f"{name}: {coding}, device's"
                yield compared(f"{title} time", 1e3 * cpu_s, "ms", floor=1e3 * raw_s)
                yield compared(f"{title} memory", peak / 1e6, "MB", floor=size / 1e6)


def coded(new: bytes, old: bytes | None) -> bytes:
    """Code as the server does."""
    encoder = Encoder(len(new), level=LEVEL, dictionary=None if old is None else (sha256_digest(old), old))
    return encoder.feed(new) + encoder.finish()


# Models ----------------------------------------------------------------------------------------------------------


def pairs() -> dict[str, tuple[bytes, bytes]]:
    """Return older and newer models."""
    conv = conv_weights()
    head = {**conv, "head": jittered(conv["head"], 0.1)}
    tuned = {name: jittered(weights, 0.01) for name, weights in conv.items()}
    half = [{name: weights.astype(np.float16) for name, weights in one.items()} for one in (conv, tuned)]
    return {
        "forest, 5% more rows": forests(),
        "boosting, 20% more trees": boosters(),
        "perceptron, two more epochs": perceptrons(),
        "conv net, last layer": (graph(conv), graph(head)),
        "conv net, all layers": (graph(conv), graph(tuned)),
        "conv net fp16, all layers": (graph(half[0]), graph(half[1])),
    }


def data(count: int) -> tuple[np.ndarray, np.ndarray]:
    """Return rows and classes."""
    from sklearn.datasets import make_classification

    x, y = make_classification(6000, 20, n_informative=10, n_classes=3, random_state=0)
    return x[:count].astype(np.float32), y[:count]


def exported(model: Any) -> bytes:
    """Convert an estimator."""
    from skl2onnx import to_onnx

    options = {id(model): {"zipmap": False}}
    raw: bytes = to_onnx(model, data(1)[0], options=options, target_opset={"": 17, "ai.onnx.ml": 3}).SerializeToString()
    return raw


def forests() -> tuple[bytes, bytes]:
    """Train one forest, and the same with more rows."""
    from sklearn.ensemble import RandomForestClassifier

    return tuple(
        exported(RandomForestClassifier(200, max_depth=12, random_state=0).fit(*data(count))) for count in (4000, 4200)
    )  # type: ignore[return-value]


def boosters() -> tuple[bytes, bytes]:
    """Train boosted trees, and go on for some more."""
    from sklearn.ensemble import GradientBoostingClassifier

    model = GradientBoostingClassifier(n_estimators=100, max_depth=4, warm_start=True, random_state=0).fit(*data(3000))
    old = exported(model)
    return old, exported(model.set_params(n_estimators=120).fit(*data(3000)))


def perceptrons() -> tuple[bytes, bytes]:
    """Train a network, and go on for two epochs."""
    from sklearn.neural_network import MLPClassifier

    model = MLPClassifier((512, 512), max_iter=20, random_state=0).fit(*data(4000))
    old = exported(model)
    return old, exported(model.set_params(warm_start=True, max_iter=2).fit(*data(4200)))


def conv_weights() -> dict[str, np.ndarray]:
    """Return the weights of a network of four convolutions and a head, as they are drawn at first (He et al. 2015).

    Trained weights are as hard to compress: their mantissas are noise too.
    """
    rng = np.random.default_rng(0)
    shapes = {f"conv{at}": (2 ** (at + 6), 2 ** (at + 5) if at else 3, 3, 3) for at in range(4)} | {"head": (512, 10)}
    return {
        name: rng.normal(0, np.sqrt(2 / np.prod(shape[1:])), shape).astype(np.float32) for name, shape in shapes.items()
    }


def jittered(weights: np.ndarray, share: float) -> np.ndarray:
    """Return weights after some training: each moved by a share of their spread."""
    moves = np.random.default_rng(1).normal(0, share * weights.std(), weights.shape)
    return (weights + moves).astype(weights.dtype)


def graph(weights: dict[str, np.ndarray]) -> bytes:
    """Return the network as an ONNX file."""
    from onnx import TensorProto, helper, numpy_helper

    kind = TensorProto.FLOAT16 if weights["head"].dtype == np.float16 else TensorProto.FLOAT
    nodes, flow = [], "x"
    for name in sorted(weights)[:-1]:
        nodes.append(helper.make_node("Conv", [flow, name], [f"{name}_out"], pads=[1, 1, 1, 1], strides=[2, 2]))
        nodes.append(helper.make_node("Relu", [f"{name}_out"], [f"{name}_relu"]))
        flow = f"{name}_relu"
    nodes.append(helper.make_node("GlobalAveragePool", [flow], ["pooled"]))
    nodes.append(helper.make_node("Flatten", ["pooled"], ["flat"]))
    nodes.append(helper.make_node("MatMul", ["flat", "head"], ["y"]))
    model = helper.make_graph(
        nodes,
        "conv",
        [helper.make_tensor_value_info("x", kind, [None, 3, 64, 64])],
        [helper.make_tensor_value_info("y", kind, [None, 10])],
        [numpy_helper.from_array(one, name) for name, one in weights.items()],
    )
    raw: bytes = helper.make_model(model, opset_imports=[helper.make_opsetid("", 17)]).SerializeToString()
    return raw


# The device ------------------------------------------------------------------------------------------------------


def measured(folder: Path, old: bytes, new: bytes, forms: dict[str, bytes]) -> dict[str, tuple[float, float, int]]:
    """Return, by coding, seconds of a download, of the barest download, and bytes added to the peak of memory.

    Each coding has a child process of its own, as memory that was freed is used again; the server is in this process.
    """
    held = Descriptor("x", FolderBlobStore(folder).put(old), len(old))
    blob = Descriptor("x", sha256_digest(new), len(new))
    context, found = multiprocessing.get_context("spawn"), {}
    for coding in (IDENTITY, ZSTD, DCZ):
        ours, theirs = context.Pipe()
        offered = {coding: forms[coding]} if coding in forms else {}
        with Place(new, etag='"a"', forms=offered) as place:
            child = context.Process(target=_device, args=(theirs, place.url, str(folder), held, blob), daemon=True)
            child.start()
            found[coding] = ours.recv()
            child.join()
    return found


def _device(pipe: Any, url: str, folder: str, base: Descriptor, blob: Descriptor) -> None:
    from shoal_agent.adapters.download import OciFetcher
    from shoal_agent.adapters.http_client import HttpClient
    from shoal_agent.adapters.sources import Sources
    from shoal_agent.adapters.transfer import Pace, Transfers
    from shoal_agent.ports import HeldBlob

    http = HttpClient(url)
    store = FolderBlobStore(Path(folder))
    transfers = Transfers(Pace(), clock=time.monotonic, pause=time.sleep)
    fetcher = OciFetcher(Sources(http, connect=HttpClient, clock=time.monotonic), transfers)
    held = HeldBlob(base, lambda: store.read(base.digest))
    path = f"/v2/m/blobs/{blob.digest}"

    def download() -> None:
        fetcher.blob("m", blob, store.part(blob.digest), cancelled=lambda: False, held=held)
        store.adopt(blob)

    def barest() -> None:
        with http.open("GET", path) as answer, (Path(folder) / "raw").open("wb", buffering=0) as file:
            while chunk := answer.read1(1 << 18):
                file.write(chunk)

    barest()
    before = _peak(reset=True)
    download()
    added = _peak() - before
    times: dict[Callable[[], None], list[float]] = {download: [], barest: []}
    for _ in range(REPEATS):
        for call, spent in times.items():
            begun = time.process_time()
            call()
            spent.append(time.process_time() - begun)
    pipe.send((statistics.median(times[download]), statistics.median(times[barest]), added))


def _peak(*, reset: bool = False) -> int:
    """Return the peak of resident memory in bytes, since it was reset last (proc(5), clear_refs)."""
    if reset:
        Path("/proc/self/clear_refs").write_text("5")
    status = Path("/proc/self/status").read_text()
    return 1024 * int(status.partition("VmHWM:")[2].split()[0])


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    run("download", rows())
