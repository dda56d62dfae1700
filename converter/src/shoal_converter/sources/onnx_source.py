"""ONNX models as sources: a path, bytes or a ModelProto, as anything may have exported them.

Owns reading (constants in files beside the model are embedded) and the truth that the bundle's model is compared with:
the graph as given, run by onnxruntime, or where that is too old for it by onnx's reference evaluator.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx

from shoal_converter.errors import SourceError
from shoal_converter.onnx_graph.canonical import MAX_IR_VERSION
from shoal_converter.onnx_runtime import Runner, RuntimeRefusedError
from shoal_converter.sources.tensor_model import Run, TensorModel, tensor_model

Array = npt.NDArray[Any]

SUFFIX = ".onnx"


def is_onnx(model: Any) -> bool:
    """Tell whether something is an ONNX model: a ModelProto, its bytes, or the path of a file."""
    if isinstance(model, (str, Path)):
        return Path(model).suffix.lower() == SUFFIX
    return isinstance(model, (bytes, onnx.ModelProto))


def read_onnx(source: Any) -> TensorModel:
    """Read an ONNX model.

    Args:
        source: Path, bytes or ModelProto.

    Raises:
        SourceError: There is no such file, it is no valid model, or constants beside it are not there.
        UnsupportedModelError: An operator, type or shape that devices don't take.
    """
    graph = _load(Path(source)) if isinstance(source, (str, Path)) else _parsed(source)
    try:
        onnx.checker.check_model(graph)
    except Exception as error:
        if not _only_foreign(graph):
            raise SourceError(f"it is no valid ONNX model: {_first_line(error)}", hint="export it anew") from error
    return tensor_model(graph, framework=_framework(graph), run=_truth)


def _load(path: Path) -> onnx.ModelProto:
    if not path.is_file():
        raise SourceError(f"there is no model file {path}", hint="onnx.save(model, path) writes one")
    try:
        return onnx.load(path)
    except FileNotFoundError as error:
        raise _external(path, error) from error
    except onnx.checker.ValidationError as error:
        raise _external(path, error) from error
    except Exception as error:
        raise SourceError(
            f"{path.name} is no ONNX model: {_first_line(error)}", hint="was it written and copied completely?"
        ) from error


def _external(path: Path, error: Exception) -> SourceError:
    return SourceError(
        f"{path.name} keeps constants in files beside it, which can't be read: {_first_line(error)}",
        hint="put those files into its folder (links and paths that leave it are refused), or save it as one file",
    )


def _parsed(source: bytes | onnx.ModelProto) -> onnx.ModelProto:
    if isinstance(source, onnx.ModelProto):
        return source
    try:
        return onnx.load_model_from_string(source)
    except Exception as error:
        raise SourceError(
            f"these bytes are no ONNX model: {_first_line(error)}", hint="give a path or bytes"
        ) from error


def _only_foreign(graph: onnx.ModelProto) -> bool:
    """Tell whether the checker may have failed for domains that it doesn't know; those are named later."""
    from shoal_converter.onnx_graph.lowering import KNOWN_DOMAINS  # noqa: PLC0415 - only then

    return any(entry.domain not in KNOWN_DOMAINS - {"com.microsoft"} for entry in graph.opset_import)


def _framework(graph: onnx.ModelProto) -> str:
    """Return what wrote the graph, as far as it says so."""
    producers = {
        "pytorch": "pytorch",
        "skl2onnx": "scikit-learn",
        "tf2onnx": "tensorflow",
        "OnnxMLTools": "onnxmltools",
    }
    return producers.get(graph.producer_name, "onnx")


def _truth(graph: onnx.ModelProto) -> Run:
    """Return the graph's own answers; the IR's number says nothing about them, and is lowered for old runtimes."""
    plain = onnx.ModelProto()
    plain.CopyFrom(graph)
    plain.ir_version = min(plain.ir_version, MAX_IR_VERSION)
    try:
        runner = Runner(plain.SerializeToString())
    except RuntimeRefusedError:
        return _evaluated(plain)
    return lambda tensors: runner.run(tensors, stacked=False)


def _evaluated(graph: onnx.ModelProto) -> Run:
    from onnx.reference import ReferenceEvaluator  # noqa: PLC0415 - rarely needed

    try:
        evaluator = ReferenceEvaluator(graph)
    except Exception as error:
        raise SourceError(
            f"neither onnxruntime nor onnx's reference evaluator runs this model: {_first_line(error)}",
            hint="export it with IR <= 10 and opset <= 21",
        ) from error
    names = [info.name for info in graph.graph.output]

    def run(tensors: Mapping[str, Array]) -> dict[str, Array]:
        try:
            found = evaluator.run(None, dict(tensors))
        except Exception as error:
            raise SourceError(f"onnx's reference evaluator fails on the sample: {_first_line(error)}") from error
        return {name: np.asarray(values) for name, values in zip(names, found, strict=True)}

    return run


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:300]
