"""Running an ONNX model here, as a device would: onnxruntime on one CPU thread.

Owns the session's options: telemetry is off, and onnxruntime's own log is silent, because errors carry what it says.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from shoal_converter.errors import ConverterError

Array = npt.NDArray[Any]
_BLOCK = 4096


class RuntimeRefusedError(ConverterError):
    """onnxruntime can't load the model or run it on these rows."""

    code = "runtime"


class Runner:
    """A loaded model.

    Raises:
        RuntimeRefusedError: onnxruntime refuses it.
    """

    def __init__(self, model: bytes, *, threads: int = 1) -> None:
        import onnxruntime as ort  # noqa: PLC0415 - heavy

        ort.disable_telemetry_events()
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 4
        try:
            self._session = ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        except Exception as error:
            raise RuntimeRefusedError(f"onnxruntime can't load the model: {_first_line(error)}") from error
        self.inputs = tuple(given.name for given in self._session.get_inputs())
        self.outputs = tuple(output.name for output in self._session.get_outputs())
        self.output_types = tuple(output.type for output in self._session.get_outputs())

    def run(self, tensors: Mapping[str, Array], *, stacked: bool = True) -> dict[str, Array]:
        """Return every output on all rows, computed in blocks.

        Args:
            tensors: Inputs by name, rows first.
            stacked: Whether an output of three axes is a stack [K, N, C], whose rows are its second axis.

        Raises:
            RuntimeRefusedError: onnxruntime fails on them.
        """
        rows = len(next(iter(tensors.values())))
        blocks = [self._block(tensors, start) for start in range(0, rows, _BLOCK)]
        if len(blocks) == 1:
            return blocks[0]
        return {
            name: np.concatenate([block[name] for block in blocks], axis=int(stacked and blocks[0][name].ndim == 3))
            for name in self.outputs
        }

    def _block(self, tensors: Mapping[str, Array], start: int) -> dict[str, Array]:
        feed = {name: values[start : start + _BLOCK] for name, values in tensors.items()}
        try:
            found = self._session.run(None, feed)
        except Exception as error:
            raise RuntimeRefusedError(f"onnxruntime fails on the sample: {_first_line(error)}") from error
        return {name: np.asarray(values) for name, values in zip(self.outputs, found, strict=True)}


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:300]
