"""Estimators of closed form that stand alone: tensor sketches and kernel densities."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from shoal_converter.sources.formula import Formula
from shoal_converter.sources.neighbours import Metric

_MOST_COMPONENTS = 1024


def polynomial_count_sketch(f: Formula, model: Any) -> tuple[str, ...]:
    """Circular convolution of the degree's count sketches, by discrete Fourier transforms (Pham and Pagh, KDD 2013).

    Raises:
        RuntimeError: So many components that the transform's matrices would not fit a device.
    """
    count = model.n_components
    if count > _MOST_COMPONENTS:
        raise RuntimeError(f"n_components={count} needs too large a graph; up to {_MOST_COMPONENTS} are written")
    features = model.n_features_in_
    angles = -2 * np.pi * np.outer(np.arange(count), np.arange(count)) / count
    cosines, sines = np.cos(angles), np.sin(angles)
    real, imaginary = "", ""
    for places, signs in zip(model.indexHash_, model.bitHash_, strict=True):
        scatter = np.zeros((len(places), count))
        scatter[np.arange(len(places)), places] = signs
        slope = np.sqrt(model.gamma) * scatter[:features]
        shift = np.sqrt(model.coef0) * scatter[features] if model.coef0 != 0 else np.zeros(count)
        a, b = f.affine(f.x, slope @ cosines, shift @ cosines), f.affine(f.x, slope @ sines, shift @ sines)
        if not real:
            real, imaginary = a, b
            continue
        real, imaginary = (
            f.node("Sub", f.node("Mul", real, a), f.node("Mul", imaginary, b)),
            f.node("Add", f.node("Mul", real, b), f.node("Mul", imaginary, a)),
        )
    back = f.node("Add", f.node("MatMul", real, cosines / count), f.node("MatMul", imaginary, sines / count))
    return (back,)


def kernel_density(f: Formula, model: Any) -> tuple[str, ...]:
    """``log(sum w k(|x - p| / h)) - log(norm)`` of the gaussian, tophat, epanechnikov, exponential and linear kernels.

    Raises:
        RuntimeError: Another kernel or metric, or a tolerance, with which scikit-learn itself only approximates.
    """
    powers = {"euclidean": 2.0, "manhattan": 1.0, "chebyshev": np.inf}
    if model.metric not in powers or model.atol or model.rtol or model.metric_params:
        raise RuntimeError("only metrics without parameters, and atol=0 and rtol=0, have an exact form in ONNX")
    width = float(model.bandwidth_)
    data = np.asarray(model.tree_.data, dtype=np.float64)
    metric = Metric(powers[model.metric], direct=True)
    far = f.node("Div", metric.length(f, metric.reduced(f, f.x, data)), width)
    weights = np.ones(len(data)) if model.tree_.sample_weight is None else np.asarray(model.tree_.sample_weight)
    logs = f.node("Add", _log_kernel(f, model.kernel, far), np.log(weights)[np.newaxis])
    most = f.node("ReduceMax", logs, np.array([1]), keepdims=1)
    most = f.node("Where", f.node("IsInf", most), 0.0, most)
    total = f.node("Add", f.node("Log", f.total(f.node("Exp", f.node("Sub", logs, most)))), most)
    norm = math.log(weights.sum()) + _log_norm(model.kernel, data.shape[1]) + data.shape[1] * math.log(width)
    return (f.node("Sub", total, norm),)


def _log_kernel(f: Formula, name: str, far: str) -> str:
    if name == "gaussian":
        return f.node("Mul", f.node("Mul", far, far), -0.5)
    if name == "exponential":
        return f.node("Neg", far)
    inside = f.node("Less", far, 1.0)
    shapes = {"tophat": lambda: f.number(inside), "linear": lambda: f.node("Sub", 1.0, far)}
    shapes["epanechnikov"] = lambda: f.node("Sub", 1.0, f.node("Mul", far, far))
    if name not in shapes:
        raise RuntimeError(f"the kernel {name!r} has no form in ONNX")
    value = f.node("Where", inside, shapes[name](), 1.0)
    return f.node("Where", inside, f.node("Log", value), -np.inf)


def _log_norm(name: str, size: int) -> float:
    """Return the logarithm of a kernel's volume at width 1 (scikit-learn's `_log_kernel_norm`)."""

    def ball(n: int) -> float:
        return 0.5 * n * math.log(math.pi) - math.lgamma(0.5 * n + 1)

    def sphere(n: int) -> float:
        return math.log(2 * math.pi) + ball(n - 1)

    factors = {
        "gaussian": lambda: 0.5 * size * math.log(2 * math.pi),
        "tophat": lambda: ball(size),
        "epanechnikov": lambda: ball(size) + math.log(2.0 / (size + 2.0)),
        "exponential": lambda: sphere(size - 1) + math.lgamma(size),
        "linear": lambda: ball(size) - math.log(size + 1.0),
    }
    return factors[name]()
