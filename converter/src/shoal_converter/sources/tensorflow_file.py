"""Files of Keras (.keras, .h5) and SavedModel folders of TensorFlow.

A file of Keras is read in its safe mode, which refuses code inside (Lambda layers); with the caller's trust also
without. Keras before 3.11.3 did not keep to that mode (CVE-2025-9905, CVE-2025-9906), so it needs that trust always.
A SavedModel is a program: its graph may read and write files, so it needs that trust always too
(https://www.tensorflow.org/security). Owns reading both; leaves exporting models of Keras to `keras_source`.
"""

from __future__ import annotations

import importlib
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from shoal_converter.errors import (
    LibraryMissingError,
    SampleError,
    SourceError,
    UntrustedPickleError,
)
from shoal_converter.sources.keras_source import first_line, read_keras
from shoal_converter.sources.tensor_model import Run, TensorModel, tensor_model
from shoal_converter.sources.tf2onnx_program import INSTALL, converted_saved_model

Array = npt.NDArray[Any]

_SIGNATURES = ("serving_default", "serve")
"""Signatures by which a SavedModel answers: TensorFlow's own name for it, and that of `keras.Model.export`."""

_SAFE_SINCE = (3, 11, 3)
"""Version of Keras whose safe mode holds for .h5 too (https://github.com/advisories/GHSA-36rr-ww3j-vrjv)."""


def is_saved_model(path: Path) -> bool:
    """Tell whether a path is a folder that TensorFlow wrote."""
    return (path / "saved_model.pb").is_file()


def read_keras_file(path: Path, *, trusted: bool = False) -> TensorModel:
    """Read a file of Keras.

    Args:
        path: The file.
        trusted: Whether code inside may run.

    Raises:
        LibraryMissingError: Keras, or what it computes with, is not installed.
        UntrustedPickleError: It holds code, or this Keras can't be kept from running any.
        SourceError: It can't be read, or needs classes that are not here.
        UnsupportedModelError: A layer has no form in ONNX.
    """
    keras = _imported("keras", path)
    if not trusted and _version(keras) < _SAFE_SINCE:
        raise UntrustedPickleError(
            f"Keras {keras.__version__} may run code that {path.name} holds, in its safe mode too (CVE-2025-9905)",
            hint="pip install --upgrade 'keras>=3.11.3'; or, if you know where the file comes from, add --trust",
        )
    try:
        model = keras.saving.load_model(path, compile=False, safe_mode=not trusted)
    except Exception as error:
        raise _unreadable(path, error, trusted=trusted) from error
    return read_keras(model, None)


def _version(keras: Any) -> tuple[int, ...]:
    return tuple(int(number) for number in re.findall(r"\d+", keras.__version__)[:3])


def _unreadable(path: Path, error: Exception, *, trusted: bool) -> SourceError:
    text = str(error)
    if "safe_mode" in text and not trusted:
        return UntrustedPickleError(
            f"{path.name} holds code (a Lambda layer), which Keras runs when it is loaded",
            hint="if you know where it comes from, add --trust",
        )
    if "Could not locate" in text or "Unknown layer" in text:
        return SourceError(
            f"{path.name} is made of classes that are not here: {first_line(error)}",
            hint="load it where they are, and give the model to pack() in Python",
        )
    return SourceError(
        f"Keras can't read {path.name}: {first_line(error)}",
        hint="model.save('model.keras') writes one; was it copied completely, and written by Keras 3?",
    )


def read_saved_model(path: Path) -> TensorModel:
    """Read a SavedModel: the graph of its serving signature.

    Raises:
        LibraryMissingError: TensorFlow or tf2onnx is not installed.
        SourceError: It can't be read, or has no signature for serving.
        UnsupportedModelError: An operation has no form in ONNX.
    """
    tensorflow = _imported("tensorflow", path)
    try:
        loaded = tensorflow.saved_model.load(str(path))
    except Exception as error:
        raise SourceError(
            f"TensorFlow can't read {path.name}: {first_line(error)}", hint="was the folder copied completely?"
        ) from error
    signatures = dict(getattr(loaded, "signatures", {}))
    name = next((name for name in _SIGNATURES if name in signatures), None)
    if name is None:
        raise SourceError(
            f"{path.name} has no signature {' or '.join(_SIGNATURES)}; it has {', '.join(signatures) or 'none'}",
            hint="tf.saved_model.save(model, path, signatures={'serving_default': function}), or model.export(path)",
        )
    signature, graph = signatures[name], converted_saved_model(path, name)

    def run(tensors: Mapping[str, Array]) -> dict[str, Array]:
        try:
            found = signature(**{name: tensorflow.constant(values) for name, values in tensors.items()})
        except Exception as error:
            raise SampleError(f"the model itself fails on the sample: {first_line(error)}") from error
        return {name: np.asarray(values) for name, values in found.items()}

    def truth(_: Any, _kept_alive: Any = loaded) -> Run:
        return run

    return tensor_model(graph, framework="tensorflow", run=truth)


def _imported(module: str, path: Path) -> Any:
    """Import a framework, quiet about what it is built with."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise LibraryMissingError(
            f"{path.name} needs {error.name or module}, which is not installed here", hint=INSTALL
        ) from error
