"""tf2onnx, the converter of TensorFlow's graphs: its command line, run beside this process.

It is the one way that its makers document for a SavedModel (https://github.com/onnx/tensorflow-onnx), and it freezes
constants that a function captured, which its Python interface leaves as inputs of the graph.
"""

from __future__ import annotations

import importlib.util
import subprocess
import sys
import tempfile
from pathlib import Path

import onnx
from onnx.defs import has

from shoal_converter.errors import LibraryMissingError, UnsupportedModelError
from shoal_converter.onnx_graph.lowering import nodes_of

OPSET = 18
"""ai.onnx set to export to, the newest that tf2onnx 1.17 writes."""
INSTALL = "pip install 'shoal-converter[tensorflow]'"


def converted_saved_model(path: Path, signature: str) -> onnx.ModelProto:
    """Convert one signature of a SavedModel; inputs and outputs have the signature's names.

    Raises:
        LibraryMissingError: tf2onnx is not installed.
        UnsupportedModelError: An operation has no form in ONNX; says why.
    """
    if importlib.util.find_spec("tf2onnx") is None:
        raise LibraryMissingError("models of TensorFlow are exported by tf2onnx, which is not installed", hint=INSTALL)
    with tempfile.TemporaryDirectory(prefix="shoal-tf2onnx-") as folder:
        made = Path(folder) / "model.onnx"
        command = [sys.executable, "-P", "-m", "tf2onnx.convert", "--saved-model", str(path), "--output", str(made)]
        done = subprocess.run(
            [*command, "--signature_def", signature, "--opset", str(OPSET)], capture_output=True, text=True, check=False
        )
        if made.is_file():
            return _checked(onnx.load(made))
    said = [line.strip() for line in done.stderr.splitlines() if "rror: " in line or "Unsupported" in line]
    raise UnsupportedModelError(
        "graph",
        f"tf2onnx can't convert it: {(said or done.stderr.splitlines() or ['it says nothing'])[-1][:300]}",
        "replace that operation by ones that ONNX has; look up words and codes before the network",
    )


def _checked(graph: onnx.ModelProto) -> onnx.ModelProto:
    """Refuse what tf2onnx passes on as it was: operations of TensorFlow under the name of ONNX's own set."""
    unknown = sorted({node.op_type for node in nodes_of(graph.graph) if not node.domain and not has(node.op_type)})
    if unknown:
        raise UnsupportedModelError(
            f"operation {', '.join(unknown)}",
            "ONNX has no such operation",
            "take it out of the model: look up words and codes before the network, and feed their numbers",
        )
    return graph
