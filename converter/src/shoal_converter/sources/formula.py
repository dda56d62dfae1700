"""Writing a closed formula as ONNX nodes, inside a conversion of skl2onnx.

Owns constants, names and types: a formula is computed in double whatever the estimator is fed with, as scikit-learn
does, and its results are cast to the type that the conversion declared.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from onnx import TensorProto, numpy_helper

Array = npt.NDArray[Any]


class Formula:
    """Nodes of one estimator.

    Attributes:
        inputs: Names of its inputs, those of numbers cast to double.
    """

    def __init__(self, scope: Any, operator: Any, container: Any, *, read_inputs: bool = True) -> None:
        self._scope, self._operator, self._container = scope, operator, container
        self.inputs = [self._as_double(variable) for variable in operator.inputs] if read_inputs else []

    @property
    def x(self) -> str:
        """The first input, [N, F]."""
        return self.inputs[0]

    def const(self, values: Any) -> str:
        """Add a constant; floats become double, texts stay texts."""
        array = np.asarray(values)
        array = array.astype(object) if array.dtype.kind in "OUS" else array
        array = array.astype(np.float64) if array.dtype.kind == "f" else array
        name: str = self._scope.get_unique_variable_name("constant")
        tensor = numpy_helper.from_array(array, name)
        self._container.initializers.append(tensor)
        return name

    def node(self, operation: str, *inputs: Any, **attributes: Any) -> str:
        """Add a node; inputs are names of values, or numbers and arrays, which become constants."""
        result: str = self._scope.get_unique_variable_name(operation.lower())
        names = [given if isinstance(given, str) else self.const(given) for given in inputs]
        self._container.add_node(
            operation, names, [result], name=self._scope.get_unique_operator_name(operation), **attributes
        )
        return result

    def affine(self, x: str, slope: Array, shift: Any) -> str:
        """Return ``x @ slope + shift``."""
        return self.node("Add", self.node("MatMul", x, slope), np.asarray(shift, dtype=np.float64))

    def total(self, x: str) -> str:
        """Return the sum of each row, [N, 1]."""
        return self.node("ReduceSum", x, np.array([1]), keepdims=1)

    def squared_distances(self, x: str, points: Array) -> str:
        """Return squared Euclidean distances to points, [N, K], as scikit-learn computes them: ``x² - 2xp + p²``."""
        points = np.asarray(points, dtype=np.float64)
        own = self.total(self.node("Mul", x, x))
        cross = self.affine(x, -2.0 * points.T, (points**2).sum(axis=1))
        return self.node("Max", self.node("Add", own, cross), np.float64(0))

    def columns(self, x: str, indices: Any) -> str:
        """Return some columns."""
        return self.node("Gather", x, np.asarray(indices, dtype=np.int64), axis=1)

    def nearest(self, distances: str) -> str:
        """Return the index of each row's smallest entry, the first of equals, [N]."""
        return self.node("ArgMin", distances, axis=1, keepdims=0)

    def largest(self, scores: str) -> str:
        """Return the index of each row's largest entry, the first of equals, [N]."""
        return self.node("ArgMax", scores, axis=1, keepdims=0)

    def labels(self, classes: Any, index: str) -> str:
        """Return the classes at indices: texts stay texts, all else becomes int64."""
        classes = np.asarray(classes)
        classes = classes.astype(str) if classes.dtype.kind in "OUS" else classes.astype(np.int64)
        return self.node("Gather", classes, index)

    def give(self, *results: str) -> None:
        """State the results, in the order of the operator's outputs."""
        for variable, result in zip(self._operator.outputs, results, strict=True):
            kind = _element_type(variable.type)
            name = self._scope.get_unique_operator_name("Result")
            if kind == TensorProto.STRING:
                self._container.add_node("Identity", [result], [variable.full_name], name=name)
            else:
                self._container.add_node("Cast", [result], [variable.full_name], to=kind, name=name)

    def _as_double(self, variable: Any) -> str:
        name: str = variable.full_name
        if _element_type(variable.type) == TensorProto.STRING:
            return name
        return self.node("Cast", name, to=TensorProto.DOUBLE)


def _element_type(kind: Any) -> int:
    from skl2onnx.common import data_types  # noqa: PLC0415 - heavy

    types = {
        data_types.DoubleTensorType: TensorProto.DOUBLE,
        data_types.Int64TensorType: TensorProto.INT64,
        data_types.StringTensorType: TensorProto.STRING,
    }
    return types.get(type(kind), TensorProto.FLOAT)
