"""onnxruntime, opened the one way that Shoal allows: from bytes, with explicit threads, without telemetry.

Owns the session's options and what the graph says of its tensors. Models are loaded from bytes and never from a path,
because a path would let external-data references reach other files. Thread counts are always set: the default spins
all cores (5.3 ms of CPU per prediction at 200 Hz, against 0.11).
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from shoal_agent.runtime.errors import ModelLoadError

Array = npt.NDArray[Any]

_DTYPES = {
    "tensor(float)": "float32",
    "tensor(double)": "float64",
    "tensor(float16)": "float16",
    "tensor(int64)": "int64",
    "tensor(int32)": "int32",
    "tensor(int16)": "int16",
    "tensor(int8)": "int8",
    "tensor(uint8)": "uint8",
    "tensor(bool)": "bool",
    "tensor(string)": "string",
}


@dataclass(frozen=True)
class GraphTensor:
    """An input or output of the graph; none in the shape stands for any size."""

    name: str
    dtype: str
    shape: tuple[int | None, ...]

    @property
    def is_static(self) -> bool:
        """Whether a row of it is numbers of a fixed count."""
        return self.dtype != "string" and len(self.shape) > 0 and None not in self.shape[1:]


def import_onnxruntime() -> Any:
    """Import onnxruntime with its telemetry off: its wheels since 1.29 would start a thread and open a connection."""
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"
    import onnxruntime  # noqa: PLC0415  (costs 60 ms; --help must not pay)

    return onnxruntime


class Engine:
    """One onnxruntime session.

    Args:
        model: The ONNX file's bytes.
        threads: Threads within an operator; 1 starts none.

    Raises:
        ModelLoadError: onnxruntime refuses the model, or it has inputs or outputs that are no tensors.
    """

    def __init__(self, model: bytes, *, threads: int = 1) -> None:
        runtime = import_onnxruntime()
        options = runtime.SessionOptions()
        options.intra_op_num_threads = max(1, threads)
        options.inter_op_num_threads = 1
        options.execution_mode = runtime.ExecutionMode.ORT_SEQUENTIAL
        options.log_severity_level = 3
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        try:
            self.session = runtime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        except Exception as error:
            raise ModelLoadError(
                f"onnxruntime {runtime.__version__} refuses the model: {error}",
                hint="convert it again with shoal-convert, or update onnxruntime on this device",
            ) from error
        self.inputs = tuple(_tensor(meta) for meta in self.session.get_inputs())
        self.outputs = tuple(_tensor(meta) for meta in self.session.get_outputs())
        self.output_names = [output.name for output in self.outputs]

    def run(self, feeds: Mapping[str, Array]) -> Sequence[Array]:
        """Run the graph; onnxruntime itself validates names, dtypes and shapes and raises its own errors."""
        outputs: Sequence[Array] = self.session.run(self.output_names, feeds)
        return outputs


def zeros(tensor: GraphTensor, rows: int = 1) -> Array:
    """Return an input of zeros (or empty texts), every open size being `rows` in front and 1 elsewhere."""
    first, *rest = tensor.shape or (1,)
    shape = (first or rows, *(size or 1 for size in rest)) if tensor.shape else ()
    if tensor.dtype == "string":
        return np.full(shape, "", dtype=object)
    return np.zeros(shape, dtype=tensor.dtype)


def _tensor(meta: Any) -> GraphTensor:
    dtype = _DTYPES.get(meta.type)
    if dtype is None:
        raise ModelLoadError(
            f"{meta.name!r} is a {meta.type}; a bundle's inputs and outputs are tensors of {', '.join(_DTYPES)}",
            hint="convert it with shoal-convert, which leaves no maps or sequences",
        )
    return GraphTensor(meta.name, dtype, tuple(size if isinstance(size, int) else None for size in meta.shape))
