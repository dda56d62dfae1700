"""MLServer with one model, for the benchmark of the local HTTP interface.

It pins other versions than ours, so it has an environment of its own (and runs on Python 3.9 to 3.12 only)::

    python3 -m venv .venv-mlserver && .venv-mlserver/bin/pip install mlserver onnxruntime

Its runtime is the least there is: decode the tensor, run the session with one thread, encode the outputs; no workers of
its own, no logging of requests.
"""

from __future__ import annotations

import http.client
import json
import socket
import subprocess
import time
from pathlib import Path

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


class MlServer:
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
