"""Kernels between rows and fixed points, as formulas; scikit-learn's `pairwise_kernels` by name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from shoal_converter.sources.formula import Formula

Array = npt.NDArray[Any]


def kernel(formula: Formula, x: str, points: Array, name: Any, settings: Mapping[str, Any]) -> str:
    """Return k(x, point), [N, K].

    Args:
        formula: Where the nodes go.
        x: Rows, [N, F].
        points: [K, F].
        name: ``rbf``, ``linear``, ``poly``, ``polynomial``, ``sigmoid``, ``cosine`` or ``laplacian``.
        settings: ``gamma``, ``degree`` and ``coef0``; none means scikit-learn's default.

    Raises:
        RuntimeError: Another kernel, or a function of the user's own.
    """
    points = np.asarray(points, dtype=np.float64)
    gamma = settings.get("gamma")
    gamma = 1.0 / points.shape[1] if gamma is None else float(gamma)
    coef0 = settings.get("coef0")
    coef0 = 1.0 if coef0 is None else float(coef0)
    degree = settings.get("degree")
    degree = 3.0 if degree is None else float(degree)
    if name == "rbf":
        return formula.node("Exp", formula.node("Mul", formula.squared_distances(x, points), -gamma))
    if name == "linear":
        return formula.node("MatMul", x, points.T)
    if name in {"poly", "polynomial"}:
        return formula.node("Pow", formula.affine(x, gamma * points.T, coef0), degree)
    if name == "sigmoid":
        return formula.node("Tanh", formula.affine(x, gamma * points.T, coef0))
    if name == "cosine":
        norms = np.linalg.norm(points, axis=1, keepdims=True)
        own = formula.node("Sqrt", formula.total(formula.node("Mul", x, x)))
        own = formula.node("Where", formula.node("Equal", own, 0.0), 1.0, own)
        return formula.node("Div", formula.node("MatMul", x, (points / np.where(norms == 0, 1, norms)).T), own)
    if name == "laplacian":
        apart = formula.node("Sub", formula.node("Unsqueeze", x, np.array([1])), points[np.newaxis])
        sums = formula.node("ReduceSum", formula.node("Abs", apart), np.array([2]), keepdims=0)
        return formula.node("Exp", formula.node("Mul", sums, -gamma))
    raise RuntimeError(f"the kernel {name!r} has no form in ONNX")
