"""A whole converted estimator inside the formula of another one.

An estimator around others (a chain, an error-correcting code, a round of imputation) asks each of them in turn and goes
on with what they say. Each is converted on its own, in double, and its nodes are put among those of the outer one under
names of their own.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import onnx

from shoal_converter.onnx_graph.interface import with_true_output_types
from shoal_converter.onnx_graph.names import rename_values
from shoal_converter.sources.estimator import last_step
from shoal_converter.sources.formula import Formula
from shoal_converter.sources.linear import decision, is_linear_classifier

Export = Callable[[Any, list[tuple[str, str, int]]], onnx.ModelProto]


class Inner:
    """Estimators inside one formula.

    Args:
        formula: Where the nodes go.
        export: Converts one estimator, given the name, dtype and width of its inputs.
    """

    def __init__(self, formula: Formula, export: Export) -> None:
        self._formula, self._export = formula, export

    def value(self, model: Any, x: str, width: int) -> str:
        """Return a regressor's values or a transformer's rows, [N, C]."""
        return self._formula.as_columns(self._outputs(model, x, width)[0])

    def label(self, model: Any, x: str, width: int) -> str:
        """Return a classifier's labels as they are, [N]."""
        return self._formula.flat(self._outputs(model, x, width, cast=False)[0])

    def probabilities(self, model: Any, x: str, width: int) -> str:
        """Return a classifier's probabilities, [N, C]."""
        if not hasattr(model, "predict_proba"):
            raise RuntimeError(f"{type(model).__name__} inside gives no probabilities")
        return self._outputs(model, x, width)[1]

    def decision(self, model: Any, x: str, width: int) -> str:
        """Return a binary classifier's decision function, [N, 1].

        Raises:
            RuntimeError: It gives probabilities, and has no score that a graph can hold.
        """
        if is_linear_classifier(model):
            return decision(self._formula, model, x)
        if hasattr(model, "predict_proba"):
            raise RuntimeError(f"the scores of {type(last_step(model)).__name__} have no form in ONNX")
        return self._formula.as_columns(self._outputs(model, x, width)[1])

    def _outputs(self, model: Any, x: str, width: int, *, cast: bool = True) -> list[str]:
        graph = with_true_output_types(self._export(model, [("rows", "float64", width)])).graph
        formula = self._formula
        prefix = formula.unique("inner") + "."
        rename_values(graph, lambda name: prefix + name)
        formula.insert(graph, x)
        names = [info.name for info in graph.output]
        return [formula.as_double(name, info) if cast else name for name, info in zip(names, graph.output, strict=True)]
