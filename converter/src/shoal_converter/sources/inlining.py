"""A whole converted estimator inside the formula of another one.

An estimator around others (a chain, an error-correcting code, a round of imputation) asks each of them in turn and goes
on with what they say. Each is converted on its own, in double, and its nodes are put among those of the outer one under
names of their own.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import onnx

from shoal_converter.onnx_graph.interface import with_true_output_types
from shoal_converter.onnx_graph.names import rename_values
from shoal_converter.sources.estimator import last_step
from shoal_converter.sources.formula import Formula
from shoal_converter.sources.middle import as_transformer

Options = Mapping[int, Mapping[str, Any]]
Export = Callable[[Any, list[tuple[str, str, int]], Options | None], onnx.ModelProto]
Decision = Callable[[Formula, "Inner", Any, str | None], str]
"""Writes the scores of a classifier of one kind, about some rows or what the outer one is given."""


class Inner:
    """Estimators inside one formula.

    Args:
        formula: Where the nodes go.
        export: Converts one estimator, given the name, dtype and width of its inputs.
        decision_of: Tells how the scores of a classifier are computed that gives probabilities as well.

    Each method asks one estimator: about rows `x` of so many columns, or, without, about what the outer one is given.
    """

    def __init__(self, formula: Formula, export: Export, decision_of: Callable[[Any], Decision | None]) -> None:
        self._formula, self._export, self._decision_of = formula, export, decision_of

    def value(self, model: Any, x: str | None = None, width: int = 0) -> str:
        """Return a regressor's values or a transformer's rows, [N, C]."""
        return self._formula.as_columns(self._outputs(model, x, width)[0])

    def label(self, model: Any, x: str | None = None, width: int = 0) -> str:
        """Return a classifier's labels as they are, [N]."""
        return self._formula.flat(self._outputs(model, x, width, cast=False)[0])

    def probabilities(self, model: Any, x: str | None = None, width: int = 0) -> str:
        """Return a classifier's probabilities, [N, C]."""
        if not hasattr(model, "predict_proba"):
            raise RuntimeError(f"{type(model).__name__} inside gives no probabilities")
        return self._outputs(model, x, width)[1]

    def decision(self, model: Any, x: str | None = None, width: int = 0) -> str:
        """Return a classifier's decision function, [N, 1] for two classes, else [N, C].

        Raises:
            RuntimeError: It gives probabilities, and has no score that a graph can hold.
        """
        if hasattr(model, "best_estimator_"):
            return self.decision(model.best_estimator_, x, width)
        if type(model).__name__ == "FrozenEstimator":
            return self.decision(model.estimator, x, width)
        if hasattr(model, "steps"):
            before, last = model[:-1], model.steps[-1][1]
            rows = self.value(as_transformer(before), x, width) if before.steps else x
            return self.decision(last, rows, width if rows is x else last.n_features_in_)
        form = self._decision_of(model)
        if form is not None:
            return form(self._formula, self, model, x)
        if hasattr(model, "predict_proba"):
            raise RuntimeError(f"the scores of {type(last_step(model)).__name__} have no form in ONNX")
        return self.given_scores(model, x, width)

    def given_scores(self, model: Any, x: str | None = None, width: int = 0) -> str:
        """Return the scores that a classifier without probabilities gives, [N, 1] for two classes, else [N, C]."""
        scores = self._formula.as_columns(self._outputs(model, x, width)[1])
        return self._formula.columns(scores, [-1]) if len(model.classes_) == 2 else scores

    def scores(self, model: Any) -> str:
        """Return the decision function where there is one, else the probabilities, of two classes the second's."""
        if hasattr(model, "decision_function"):
            return self.decision(model)
        shares = self.probabilities(model)
        return self._formula.columns(shares, [1]) if len(model.classes_) == 2 else shares

    def raw_scores(self, model: Any, x: str | None = None, width: int = 0) -> str:
        """Return a boosting framework's scores to the last digit, [N, 1] for two classes, else [N, C]."""
        scores = self._outputs(model, x, width, options={id(model): {"raw_scores": True, "exactly": True}})[1]
        return self._formula.columns(scores, [1]) if len(model.classes_) == 2 else scores

    def matrix(self) -> str:
        """Return all inputs as one tensor."""
        inputs = self._formula.inputs
        return inputs[0] if len(inputs) == 1 else self._formula.node("Concat", *inputs, axis=1)

    def _outputs(
        self, model: Any, x: str | None, width: int, *, cast: bool = True, options: Options | None = None
    ) -> list[str]:
        """Convert an estimator and put it here; fed with `x`, or with all inputs of the outer estimator."""
        formula = self._formula
        given = formula.given() if x is None else [("rows", x, "float64", width)]
        inputs = [(name, dtype, wide) for name, _, dtype, wide in given]
        graph = with_true_output_types(self._export(model, inputs, options)).graph
        prefix = formula.unique("inner") + "."
        rename_values(graph, lambda name: prefix + name)
        formula.insert(graph, [value for _, value, _, _ in given])
        names = [info.name for info in graph.output]
        return [formula.as_double(name, info) if cast else name for name, info in zip(names, graph.output, strict=True)]
