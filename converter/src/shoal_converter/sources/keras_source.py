"""Models of Keras 3 as sources.

Owns the export by Keras' own exporter (https://keras.io/api/models/model_saving_apis/export/): to a SavedModel, and on
by tf2onnx, where it computes with TensorFlow, to ONNX at once with another backend. Owns names for inputs and outputs
that don't change from one process to the next, and the truth: the model itself, run for inference. Keras is imported
only for its own models.
"""

from __future__ import annotations

import sys
import tempfile
import warnings
from collections.abc import Mapping
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx

from shoal_converter.errors import LibraryMissingError, SampleError, SourceError, UnsupportedModelError
from shoal_converter.onnx_graph.names import rename_values
from shoal_converter.sources.tensor_model import TensorModel, tensor_model
from shoal_converter.sources.tf2onnx_program import INSTALL, OPSET, converted_saved_model

Array = npt.NDArray[Any]


def is_keras(model: Any) -> bool:
    """Tell whether something is a model of Keras 3, without importing it."""
    keras = sys.modules.get("keras")
    return keras is not None and hasattr(keras, "Model") and isinstance(model, keras.Model)


def read_keras(model: Any, sample: Any) -> TensorModel:
    """Export a model.

    Args:
        model: Built; it is run for inference (no dropout, stored figures in normalisation).
        sample: One array, or arrays by the names of the inputs; rows first. Needed only where the model does not know
            its inputs, as one that subclasses `keras.Model` mostly doesn't.

    Raises:
        SampleError: The model does not know its inputs and there is no sample, or it fails on the sample.
        SourceError: It was never built.
        UnsupportedModelError: A layer can't be exported; says why.
        LibraryMissingError: tf2onnx or onnxscript is not installed.
    """
    import keras  # noqa: PLC0415 - heavy, optional

    if not model.built:
        raise SourceError("the model of Keras was never built", hint="train it, or call it once on a few rows")
    names, signature, structure = _inputs(model, sample)
    graph = _exported(model, names, signature)
    outputs = _output_names(model, [info.name for info in graph.graph.output])
    _rename(graph, outputs)

    def run(tensors: Mapping[str, Array]) -> dict[str, Array]:
        fed = [keras.ops.convert_to_tensor(tensors[name]) for name in names]
        try:
            found = model(keras.tree.pack_sequence_as(structure, fed), training=False)
        except Exception as error:
            raise SampleError(f"the model itself fails on the sample: {first_line(error)}") from error
        if not isinstance(found, Mapping):
            found = {f"output_{at}": leaf for at, leaf in enumerate(keras.tree.flatten(found))}
        return {outputs.get(name, name): keras.ops.convert_to_numpy(leaf) for name, leaf in found.items()}

    return tensor_model(graph, framework="keras", run=lambda _: run)


def _rename(graph: onnx.ModelProto, given: Mapping[str, str]) -> None:
    """Rename inputs and outputs; every other value gets out of their way."""
    kept = {info.name for info in (*graph.graph.input, *graph.graph.output)}
    rename_values(graph.graph, lambda name: given.get(name, name if name in kept else f"inner.{name}"))


def _distinct(names: list[str]) -> list[str]:
    """Return names of which none is twice, by numbering those that are."""
    found: list[str] = []
    for name in names:
        tries = (name if not number else f"{name}_{number}" for number in range(len(names) + 1))
        found.append(next(each for each in tries if each not in found))
    return found


def first_line(error: Exception) -> str:
    """Return the line of a framework's error that says why; TensorFlow's begin with a preamble of several."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    telling = [
        line for line in lines if not line.startswith(("Exception encountered", "Arguments received", "in user"))
    ]
    return (telling or lines or [type(error).__name__])[0][:300]


def _inputs(model: Any, sample: Any) -> tuple[list[str], Any, Any]:
    """Return the inputs' names, the signature to export with, and how the model takes several."""
    import keras  # noqa: PLC0415 - heavy, optional

    known = getattr(model, "inputs", None)
    if known:
        try:
            structure = model.input
        except AttributeError:  # of a Sequential that was loaded and never called
            structure = known[0]
        names = _distinct([_input_name(tensor) for tensor in keras.tree.flatten(structure)])
        specs = [
            keras.InputSpec(shape=tensor.shape, dtype=tensor.dtype, name=name)
            for name, tensor in zip(names, keras.tree.flatten(structure), strict=True)
        ]
        return names, [keras.tree.pack_sequence_as(structure, specs)], structure
    if sample is None:
        raise SampleError("this model of Keras does not know its inputs, so a sample is required", hint="give sample=X")
    arrays = {str(n): np.asarray(v) for n, v in sample.items()} if isinstance(sample, Mapping) else np.asarray(sample)
    flat = list(arrays.values()) if isinstance(arrays, dict) else [arrays]
    names = list(arrays) if isinstance(arrays, dict) else ["x"]
    specs = [
        keras.InputSpec(dtype=_fed(array), shape=(None, *array.shape[1:]), name=name)
        for name, array in zip(names, flat, strict=True)
    ]
    structure = dict(zip(names, specs, strict=True)) if isinstance(arrays, dict) else specs[0]
    return names, [structure], structure


def _fed(array: Array) -> str:
    return "float32" if array.dtype.kind == "f" else str(array.dtype)


def _input_name(tensor: Any) -> str:
    """Return the name of an input's layer: the author's, or one of the file; the tensor's own is a counter's."""
    try:
        return str(tensor._keras_history.operation.name)  # noqa: SLF001 - no public way to the layer of a KerasTensor
    except AttributeError:
        return str(tensor.name)


def _output_names(model: Any, exported: list[str]) -> dict[str, str]:
    """Return what outputs that Keras numbered are called by their layers; those of a mapping have names already."""
    numbered = [f"output_{at}" for at in range(len(exported))]
    names = [str(name) for name in getattr(model, "output_names", None) or []]
    if len(exported) == 1 and not names:
        names = [str(layer.name) for layer in getattr(model, "layers", [])[-1:]]
    return (
        dict(zip(numbered, _distinct(names), strict=True))
        if sorted(exported) == sorted(numbered) and len(names) == len(exported)
        else {}
    )


def _exported(model: Any, names: list[str], signature: Any) -> onnx.ModelProto:
    """Return the graph with the model's names for inputs and outputs."""
    import keras  # noqa: PLC0415 - heavy, optional

    with tempfile.TemporaryDirectory(prefix="shoal-keras-") as folder, redirect_stdout(sys.stderr):
        if keras.backend.backend() == "tensorflow":
            _export(model, Path(folder), signature, format="tf_saved_model")
            return converted_saved_model(Path(folder), "serving_default")
        path = Path(folder) / "model.onnx"
        _export(model, path, signature, format="onnx", opset_version=OPSET)
        graph = onnx.load(path)
    outputs = [f"output_{at}" for at in range(len(graph.graph.output))]
    _rename(graph, dict(zip((info.name for info in graph.graph.input), names, strict=True)))
    _rename(graph, dict(zip((info.name for info in graph.graph.output), outputs, strict=True)))
    return graph


def _export(model: Any, path: Path, signature: Any, **how: Any) -> None:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            model.export(path, input_signature=signature, verbose=False, **how)
    except ImportError as error:
        raise LibraryMissingError(f"exporting from Keras needs more: {first_line(error)}", hint=INSTALL) from error
    except Exception as error:
        raise UnsupportedModelError(
            "network",
            f"Keras can't export it: {first_line(error)}",
            "replace that layer by ones that ONNX has; look up words and codes before the network",
        ) from error
