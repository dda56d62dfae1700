"""Smaller forms of a graph: floats in half precision, weights and activations as 8-bit integers.

Owns calling onnxruntime's own tools with settings that devices run well; whether a form is near enough and pays is not
judged here. Inputs and outputs keep their names and types. Weights are quantised symmetrically per channel, since
asymmetric ones cost a correction at every product.
"""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import onnx

from shoal_converter.onnx_graph.canonical import canonical_onnx

Array = npt.NDArray[Any]
Form = Literal["fp16", "int8", "int8-dynamic"]

FORMS: tuple[Form, ...] = ("fp16", "int8", "int8-dynamic")
QUANTISED = ("Conv", "MatMul", "Gemm")
_CALIBRATION_ROWS = 2048
_CALIBRATION_BLOCK = 64


def operators(model: bytes) -> frozenset[str]:
    """Return the operators of a graph."""
    return frozenset(node.op_type for node in onnx.load_model_from_string(model).graph.node)


def smaller(model: bytes, form: Form, tensors: Mapping[str, Array]) -> bytes:
    """Return another form of a model, in canonical bytes.

    Args:
        model: Canonical ONNX model in float32.
        form: Which one: ``int8`` is static, with quantise and dequantise nodes; ``int8-dynamic`` measures activations
            at every call.
        tensors: Rows that show the range of activations, for ``int8``.
    """
    with tempfile.TemporaryDirectory(prefix="shoal-variant-") as folder, _silent():
        given, made = Path(folder) / "given.onnx", Path(folder) / "made.onnx"
        given.write_bytes(model)
        if form == "fp16":
            found = _half(given)
        elif form == "int8":
            _static(given, made, tensors)
            found = onnx.load(made)
        else:
            _dynamic(given, made)
            found = onnx.load(made)
    return canonical_onnx(found)


def _half(given: Path) -> onnx.ModelProto:
    from onnxruntime.transformers.float16 import convert_float_to_float16  # noqa: PLC0415 - heavy

    found: onnx.ModelProto = convert_float_to_float16(onnx.load(given), keep_io_types=True)
    return found


def _dynamic(given: Path, made: Path) -> None:
    from onnxruntime.quantization import QuantType, quantize_dynamic  # noqa: PLC0415 - heavy

    quantize_dynamic(given, made, op_types_to_quantize=["MatMul", "Gemm"], weight_type=QuantType.QInt8)


def _static(given: Path, made: Path, tensors: Mapping[str, Array]) -> None:
    from onnxruntime.quantization import QuantFormat, QuantType, quantize_static  # noqa: PLC0415 - heavy

    quantize_static(
        given,
        made,
        _Reader(tensors),
        quant_format=QuantFormat.QDQ,
        op_types_to_quantize=list(QUANTISED),
        activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8,
        per_channel=True,
    )


class _Reader:
    """Hands calibration rows to onnxruntime, block by block (its protocol: `get_next` until none)."""

    def __init__(self, tensors: Mapping[str, Array]) -> None:
        rows = len(next(iter(tensors.values())))
        used = np.unique(np.linspace(0, rows - 1, min(rows, _CALIBRATION_ROWS)).astype(np.int64))
        blocks = [used[start : start + _CALIBRATION_BLOCK] for start in range(0, len(used), _CALIBRATION_BLOCK)]
        self._feeds = iter([{name: values[block] for name, values in tensors.items()} for block in blocks])

    def get_next(self) -> dict[str, Array] | None:
        """Return the next block."""
        return next(self._feeds, None)

    def __iter__(self) -> Iterator[dict[str, Array]]:
        return self._feeds

    def __len__(self) -> int:
        return _CALIBRATION_ROWS


@contextmanager
def _silent() -> Iterator[None]:
    """Keep the tools' advice to the root logger from the user, who can't follow it here."""
    import onnxruntime as ort  # noqa: PLC0415 - heavy

    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    ort.set_default_logger_severity(4)
    try:
        yield
    finally:
        logging.disable(before)
        ort.set_default_logger_severity(2)
