"""Writing a closed formula as ONNX nodes, inside a conversion of skl2onnx.

Owns constants, names and types: a formula is computed in double whatever the estimator is fed with, as scikit-learn
does, and its results are cast to the type that the conversion declared.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from onnx import GraphProto, TensorProto, ValueInfoProto, numpy_helper

from shoal_converter.frame_columns import MISSING_TEXT

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

    def exact(self, values: Array) -> str:
        """Add a constant whose type stays as it is."""
        name: str = self._scope.get_unique_variable_name("constant")
        self._container.initializers.append(numpy_helper.from_array(np.asarray(values), name))
        return name

    def node(self, operation: str, *inputs: Any, **attributes: Any) -> str:
        """Add a node; inputs are names of values, or numbers and arrays, which become constants."""
        result: str = self._scope.get_unique_variable_name(operation.lower())
        names = [given if isinstance(given, str) else self.const(given) for given in inputs]
        self._container.add_node(
            operation, names, [result], name=self._scope.get_unique_operator_name(operation), **attributes
        )
        return result

    def several(self, count: int, operation: str, *inputs: Any, **attributes: Any) -> tuple[str, ...]:
        """Add a node of several outputs."""
        results = tuple(self._scope.get_unique_variable_name(operation.lower()) for _ in range(count))
        names = [given if isinstance(given, str) else self.const(given) for given in inputs]
        self._container.add_node(
            operation, names, list(results), name=self._scope.get_unique_operator_name(operation), **attributes
        )
        return results

    def widths(self) -> list[tuple[str, int, bool]]:
        """Return each input, its number of columns, and whether it holds texts."""
        return [
            (name, int(each.type.shape[1]), element_type(each.type) == TensorProto.STRING)
            for name, each in zip(self.inputs, self._operator.inputs, strict=True)
        ]

    def holds_texts(self, at: int) -> bool:
        """Tell whether an input holds texts."""
        return element_type(self._operator.inputs[at].type) == TensorProto.STRING

    def whole(self, at: int) -> str | None:
        """Return an input of whole numbers as it is, int64 and not cast; none where it holds something else."""
        variable = self._operator.inputs[at]
        return str(variable.full_name) if element_type(variable.type) == TensorProto.INT64 else None

    def numbers(self, texts: str) -> str:
        """Return numbers that were written as texts, in double."""
        return self.node("Cast", texts, to=TensorProto.DOUBLE)

    def whole_place(self, x: str, categories: Any) -> str:
        """Return the same as `place` for int64, which double can't tell apart beyond 2**53."""
        keys = np.asarray(categories).astype(np.int64).tolist()
        table: dict[str, Any] = {"keys_int64s": keys, "values_int64s": list(range(len(keys)))}
        return self.node("LabelEncoder", x, op_domain="ai.onnx.ml", op_version=2, default_int64=len(keys), **table)

    def place(self, x: str, categories: Any) -> str:
        """Return the place of each value of one column, [N, 1], among its categories; unseen ones get the next."""
        values = list(np.asarray(categories).tolist())
        gaps = [value is None or value != value for value in values]  # noqa: PLR0124 - NaN
        if any(isinstance(value, str) for value in values) or all(gaps):
            texts = [MISSING_TEXT if gap else value for gap, value in zip(gaps, values, strict=True)]
            places = list(range(len(texts)))
            table: dict[str, Any] = {"keys_strings": texts, "values_int64s": places, "default_int64": len(texts)}
            return self.node("LabelEncoder", x, op_domain="ai.onnx.ml", op_version=2, **table)
        numbers = np.array([np.nan if gap else float(value) for gap, value in zip(gaps, values, strict=True)])
        same = self.node("Equal", x, numbers[np.newaxis])
        if any(gaps):
            same = self.node("Or", same, self.node("And", self.node("IsNaN", x), np.array([gaps])))
        seen = self.number(same)
        none = self.node("Add", self.node("Mul", self.total(seen), 0.0), 0.5)
        return self.node("ArgMax", self.node("Concat", seen, none, axis=1), axis=1, keepdims=1)

    def unique(self, name: str) -> str:
        """Return a name that nothing has yet."""
        return str(self._scope.get_unique_variable_name(name))

    def given(self) -> list[tuple[str, str, str, int]]:
        """Return the inputs as they were named, their values, element types (texts or double) and widths (0: any)."""
        found = []
        for value, variable in zip(self.inputs, self._operator.inputs, strict=True):
            shape = variable.type.shape
            dtype = "string" if element_type(variable.type) == TensorProto.STRING else "float64"
            found.append((str(variable.raw_name), value, dtype, int(shape[1] or 0) if len(shape) > 1 else 0))
        return found

    def insert(self, graph: GraphProto, fed: Sequence[str]) -> None:
        """Add another graph's nodes, whose names nothing here has.

        Args:
            graph: The other one.
            fed: Values for its inputs, in order.
        """
        container = self._container
        container.initializers.extend(graph.initializer)
        for value, info in zip(fed, graph.input, strict=True):
            container.add_node("Identity", [value], [info.name], name=self._scope.get_unique_operator_name("Inner"))
        for node in graph.node:
            node.name = self._scope.get_unique_operator_name(node.op_type)
            container.nodes.append(node)
            container.node_domain_version_pair_sets.add((node.domain, container.target_opset_any_domain(node.domain)))

    def as_double(self, name: str, info: ValueInfoProto) -> str:
        """Return a value cast to double unless it holds texts."""
        if info.type.tensor_type.elem_type == TensorProto.STRING:
            return name
        return self.node("Cast", name, to=TensorProto.DOUBLE)

    def as_columns(self, x: str) -> str:
        """Return [N] as [N, 1]; [N, C] stays."""
        count = self.node("Slice", self.node("Shape", x), np.array([0]), np.array([1]))
        return self.node("Reshape", x, self.node("Concat", count, np.array([-1]), axis=0))

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
        cross = self.node("Add", own, self.node("MatMul", x, -2.0 * points.T))
        norms = np.einsum("ij,ij->i", points, points)
        return self.node("Max", self.node("Add", cross, norms), np.float64(0))

    def logistic(self, x: str) -> str:
        """Return ``1 / (1 + exp(-x))``, exact also where it is nearly 0."""
        decay = self.node("Exp", self.node("Neg", self.node("Abs", x)))
        above = self.node("Div", 1.0, self.node("Add", 1.0, decay))
        return self.node("Where", self.node("GreaterOrEqual", x, 0.0), above, self.node("Mul", decay, above))

    def smallest(self, values: str, count: int) -> tuple[str, str]:
        """Return each row's smallest entries in ascending order and their places, both [N, count]; ties: the first."""
        least, places = self.several(2, "TopK", values, np.array([count]), axis=1, largest=0, sorted=1)
        return least, places

    def number(self, truth: str) -> str:
        """Return 1 for true and 0 for false, in double."""
        return self.node("Cast", truth, to=TensorProto.DOUBLE)

    def flat(self, x: str) -> str:
        """Return [N, 1] as [N]."""
        return self.node("Reshape", x, np.array([-1]))

    def columns(self, x: str, indices: Any) -> str:
        """Return some columns."""
        return self.node("Gather", x, np.asarray(indices, dtype=np.int64), axis=1)

    def nearest(self, distances: str) -> str:
        """Return the index of each row's smallest entry, the first of equals, [N]."""
        return self.node("ArgMin", distances, axis=1, keepdims=0)

    def largest(self, scores: str) -> str:
        """Return the index of each row's largest entry, the first of equals, [N]."""
        return self.node("ArgMax", scores, axis=1, keepdims=0)

    def solved(self, matrix: str, right: str, size: int) -> str:
        """Return the solution of a small positive definite system in each row, by elimination without pivots.

        Args:
            matrix: [N, size, size].
            right: [N, size, 1].
            size: Number of unknowns; the graph grows with it.
        """
        joined = self.node("Concat", matrix, right, axis=2)
        for at in range(size):
            row = self.node("Gather", joined, np.array([at]), axis=1)
            column = self.node("Gather", joined, np.array([at]), axis=2)
            pivot = self.node("Div", row, self.node("Gather", column, np.array([at]), axis=1))
            others = self.node("Sub", column, np.eye(size)[:, [at]])
            joined = self.node("Sub", joined, self.node("MatMul", others, pivot))
        return self.node("Gather", joined, np.array([size]), axis=2)

    def labels(self, classes: Any, index: str) -> str:
        """Return the classes at indices: texts stay texts, all else becomes int64."""
        classes = np.asarray(classes)
        classes = classes.astype(str) if classes.dtype.kind in "OUS" else classes.astype(np.int64)
        return self.node("Gather", classes, index)

    def give(self, *results: str) -> None:
        """State the results, in the order of the operator's outputs."""
        for variable, result in zip(self._operator.outputs, results, strict=True):
            kind = element_type(variable.type)
            name = self._scope.get_unique_operator_name("Result")
            if kind == TensorProto.STRING:
                self._container.add_node("Identity", [result], [variable.full_name], name=name)
            else:
                self._container.add_node("Cast", [result], [variable.full_name], to=kind, name=name)

    def _as_double(self, variable: Any) -> str:
        name: str = variable.full_name
        if element_type(variable.type) == TensorProto.STRING:
            return name
        return self.node("Cast", name, to=TensorProto.DOUBLE)


def element_type(kind: Any) -> int:
    """Return ONNX's number of a skl2onnx type."""
    from skl2onnx.common import data_types  # noqa: PLC0415 - heavy

    types = {
        data_types.DoubleTensorType: TensorProto.DOUBLE,
        data_types.Int64TensorType: TensorProto.INT64,
        data_types.StringTensorType: TensorProto.STRING,
    }
    return types.get(type(kind), TensorProto.FLOAT)
