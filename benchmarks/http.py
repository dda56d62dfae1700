"""The local HTTP interface against what no server could beat: a bare socket reply plus the raw run.

Both servers are children of their own, with the same model and one connection: ours, and a loop that receives a request
of the same size, runs the model with onnxruntime as it is, and sends an answer of the same size without reading or
writing a word of it. Repeats are interleaved; the ratio is that of the medians of each round.

With ``--peers`` MLServer serves the same model over the same protocol in the same run, from an environment of its own,
because it pins other versions than ours (and runs on Python 3.9 to 3.12 only)::

    python3 -m venv .venv-mlserver && .venv-mlserver/bin/pip install mlserver onnxruntime
    make bench BENCH=http BENCH_ARGS=--peers

Its runtime is the least there is: decode the tensor, run the session with one thread, encode the outputs; no workers of
its own, no logging of requests.
"""
# ruff: noqa: A005, E402

from __future__ import annotations

import sys
from pathlib import Path

HERE = str(Path(__file__).parent)
if sys.path[0] == HERE:  # this folder last, else this file would hide the standard library's http
    sys.path.append(sys.path.pop(0))

import http.client
import json
import multiprocessing
import socket
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection

import numpy as np

from frame import Row, compared, run
from models import FEATURES, load, sample, trained
from shoal_agent.runtime.slots import SlotTable
from shoal_agent.serving.api import Api
from shoal_agent.serving.http import LocalServer
from shoal_agent.serving.listen import Listen

ROUNDS = 15
CALLS = 300
PEER = Path(__file__).parent.parent / ".venv-mlserver" / "bin" / "python"

PEER_RUNTIME = """
import onnxruntime
from mlserver import MLModel
from mlserver.codecs import NumpyCodec
from mlserver.types import InferenceResponse

class Graph(MLModel):
    async def load(self):
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        raw = open(self.settings.parameters.uri, "rb").read()
        self.session = onnxruntime.InferenceSession(raw, options, providers=["CPUExecutionProvider"])
        self.names = [output.name for output in self.session.get_outputs()]
        return True

    async def predict(self, payload):
        feeds = {tensor.name: NumpyCodec.decode_input(tensor) for tensor in payload.inputs}
        outputs = zip(self.names, self.session.run(self.names, feeds))
        return InferenceResponse(
            model_name=self.name, outputs=[NumpyCodec.encode_output(name, array) for name, array in outputs]
        )
"""


def rows() -> Iterator[Row]:
    context = multiprocessing.get_context("spawn")
    x = sample(1)
    requests = {"JSON": _json_request(x), "binary": _binary_request(x), "rows": _rows_request(x)}
    with tempfile.TemporaryDirectory() as folder:
        for name in ("linear", "gbdt"):
            ours = _Child(context, _serve_ours, trained(name), folder)
            for form, place in (("JSON", "TCP"), ("binary", "TCP"), ("rows", "TCP"), ("JSON", "Unix socket")):
                request = requests[form]
                call = _client(ours.facts[place], request)
                answer = call()
                assert answer.startswith(b"HTTP/1.1 200"), answer
                bare = _Child(context, _serve_bare, trained(name), (folder, place, answer))
                value, floor, ratio = _p50(call, _client(bare.facts[place], request))
                bare.stop()
                title = f"{name}, {form}, {place}, p50"
                yield compared(title, value * 1e6, "us", floor=floor * 1e6, ratio=ratio, at_most=3.0)
            if "--peers" in sys.argv:
                yield from _beside_mlserver(name, ours.facts["TCP"], requests["JSON"], Path(folder))
            ours.stop()


def _beside_mlserver(name: str, address: str, request: bytes, folder: Path) -> Iterator[Row]:
    """Ours and MLServer, the same request, interleaved."""
    title = f"{name}, JSON, TCP, p50, over MLServer"
    if not PEER.is_file():
        yield Row(f"{title} (not installed: see the head of this file)", 0.0, "us")
        return
    peer = _MlServer(trained(name), folder)
    try:
        call, other = (_until_whole(_connected(place), request) for place in (address, peer.address))
        ours, theirs = json.loads(call().partition(b"\r\n\r\n")[2]), json.loads(other().partition(b"\r\n\r\n")[2])
        assert ours["outputs"][0]["data"] == theirs["outputs"][0]["data"], (ours, theirs)
        value, floor, ratio = _p50(call, other)
        yield compared(title, value * 1e6, "us", floor=floor * 1e6, ratio=ratio, at_most=0.125)
    finally:
        peer.stop()


class _MlServer:
    """MLServer with one model, in a process and an environment of its own."""

    def __init__(self, model: bytes, folder: Path) -> None:
        place = folder / "mlserver"
        place.mkdir(exist_ok=True)
        (place / "model.onnx").write_bytes(model)
        (place / "graph_runtime.py").write_text(PEER_RUNTIME)
        ports = [_free_port() for _ in range(3)]
        names = ("http_port", "grpc_port", "metrics_port")
        quiet = {"host": "127.0.0.1", "debug": False, "parallel_workers": 0, "metrics_endpoint": None}
        (place / "settings.json").write_text(json.dumps({**quiet, **dict(zip(names, ports, strict=True))}))
        runtime = {"implementation": "graph_runtime.Graph", "parameters": {"uri": str(place / "model.onnx")}}
        (place / "model-settings.json").write_text(json.dumps({"name": "quality", **runtime}))
        self.address = f"http://127.0.0.1:{ports[0]}"
        self._process = subprocess.Popen(
            [str(PEER.with_name("mlserver")), "start", str(place)],
            cwd=place,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        self._wait(ports[0])

    def _wait(self, port: int) -> None:
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline and self._process.poll() is None:
            try:
                client = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
                client.request("GET", "/v2/models/quality/ready")
                if client.getresponse().status == 200:
                    return
            except OSError:
                time.sleep(0.2)
        self.stop()
        raise RuntimeError("MLServer did not start")

    def stop(self) -> None:
        self._process.terminate()
        self._process.wait(30)


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


class _Child:
    """A server in a process of its own; `facts` is what it says when it is ready."""

    def __init__(
        self, context: multiprocessing.context.SpawnContext, serve: Callable[..., None], *args: object
    ) -> None:
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=serve, args=(theirs, *args), daemon=True)
        self._process.start()
        self.facts: dict[str, str] = self._pipe.recv()

    def stop(self) -> None:
        self._pipe.send(None)
        self._process.join(10)


def _serve_ours(pipe: Connection, model: bytes, folder: str) -> None:
    slots = SlotTable()
    slots.install("quality", load(model, spec=True))
    tcp, unix = Listen("127.0.0.1", 0), Listen(path=Path(folder) / f"ours-{time.monotonic_ns()}.sock")
    servers = [LocalServer(Api(slots, hosts=listen.hosts).answerer, listen) for listen in (tcp, unix)]
    pipe.send(dict(zip(("TCP", "Unix socket"), [server.start() for server in servers], strict=True)))
    pipe.recv()
    for server in servers:
        server.stop()


def _serve_bare(pipe: Connection, model: bytes, setting: tuple[str, str, bytes]) -> None:
    folder, place, answer = setting
    session = load(model, spec=False).engine.session
    feeds = {"x": sample(1)}
    if place == "TCP":
        listener = socket.create_server(("127.0.0.1", 0))
        pipe.send({place: f"http://127.0.0.1:{listener.getsockname()[1]}"})
    else:
        listener = socket.socket(socket.AF_UNIX)
        path = f"{folder}/bare-{time.monotonic_ns()}.sock"
        listener.bind(path)
        listener.listen()
        pipe.send({place: f"unix:{path}"})
    connection, _ = listener.accept()
    if place == "TCP":
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    with listener, connection:
        while connection.recv(65536):
            session.run(None, feeds)
            connection.sendall(answer)


def _p50(call: Callable[[], object], floor: Callable[[], object]) -> tuple[float, float, float]:
    pairs = []
    for at in range(ROUNDS):
        first, second = (call, floor) if at % 2 == 0 else (floor, call)
        times = {first: _median(first), second: _median(second)}
        pairs.append((times[call], times[floor]))
    values, floors = zip(*pairs, strict=True)
    return statistics.median(values), statistics.median(floors), statistics.median(a / b for a, b in pairs)


def _median(call: Callable[[], object]) -> float:
    times = []
    for _ in range(CALLS):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def _client(address: str, request: bytes) -> Callable[[], bytes]:
    connection = _connected(address)

    def call() -> bytes:
        connection.sendall(request)
        return connection.recv(65536)

    return call


def _until_whole(connection: socket.socket, request: bytes) -> Callable[[], bytes]:
    """Return what sends a request and reads until the answer is whole, which MLServer sends in two parts."""

    def call() -> bytes:
        connection.sendall(request)
        answer = connection.recv(65536)
        while (end := answer.find(b"\r\n\r\n")) < 0 or len(answer) < end + 4 + _content_length(answer[:end]):
            answer += connection.recv(65536)
        return answer

    return call


def _content_length(head: bytes) -> int:
    return int(head.lower().partition(b"content-length:")[2].partition(b"\r\n")[0])


def _connected(address: str) -> socket.socket:
    if address.startswith("unix:"):
        connection = socket.socket(socket.AF_UNIX)
        connection.connect(address.removeprefix("unix:"))
        return connection
    host, _, port = address.removeprefix("http://").rpartition(":")
    connection = socket.create_connection((host, int(port)))
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return connection


def _request(path: str, body: bytes, **headers: str) -> bytes:
    lines = [f"POST {path} HTTP/1.1", "Host: 127.0.0.1", "User-Agent: bench", "Accept: */*"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return ("\r\n".join([*lines, f"Content-Length: {len(body)}"]) + "\r\n\r\n").encode() + body


def _json_request(x: np.ndarray) -> bytes:
    tensor = {"name": "x", "shape": list(x.shape), "datatype": "FP32", "data": x.ravel().tolist()}
    return _request("/v2/models/quality/infer", json.dumps({"inputs": [tensor]}).encode())


def _binary_request(x: np.ndarray) -> bytes:
    tensor = {"name": "x", "shape": list(x.shape), "datatype": "FP32", "parameters": {"binary_data_size": x.nbytes}}
    head = json.dumps({"inputs": [tensor], "parameters": {"binary_data_output": True}}).encode()
    return _request("/v2/models/quality/infer", head + x.tobytes(), Inference_Header_Content_Length=str(len(head)))


def _rows_request(x: np.ndarray) -> bytes:
    return _request("/v1/predict", json.dumps([{f"x{at}": float(x[0, at]) for at in range(FEATURES)}]).encode())


if __name__ == "__main__":
    run("http", rows())
