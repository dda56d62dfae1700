"""Multi-layer perceptrons with several labels, as a formula; those of one label are skl2onnx's."""

from __future__ import annotations

from typing import Any

import numpy as np
from onnx import TensorProto

from shoal_converter.sources.formula import Formula

_ACTIVATIONS = {"relu": "Relu", "tanh": "Tanh"}


def is_multilabel(model: Any) -> bool:
    """Tell whether a fitted MLPClassifier gives several labels, each of them 0 or 1."""
    return bool(model._label_binarizer.y_type_.startswith("multilabel"))  # noqa: SLF001 - no public name


def multilabel_perceptron(f: Formula, model: Any) -> tuple[str, ...]:
    """Layer by layer ``a(x W + b)``; at the end the logistic function, and a label where it is above one half."""
    x = f.x
    for at, (weights, bias) in enumerate(zip(model.coefs_, model.intercepts_, strict=True)):
        x = f.affine(x, np.asarray(weights, dtype=np.float64), np.asarray(bias))
        if at < len(model.coefs_) - 1:
            x = _activated(f, x, model.activation)
    shares = f.logistic(x)
    return f.node("Cast", f.node("Greater", shares, 0.5), to=TensorProto.INT64), shares


def _activated(f: Formula, x: str, name: str) -> str:
    if name == "logistic":
        return f.logistic(x)
    return x if name == "identity" else f.node(_ACTIVATIONS[name], x)
