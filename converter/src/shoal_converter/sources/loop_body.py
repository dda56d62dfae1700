"""The body of a Loop of ONNX: a graph whose nodes have names that nothing outside has."""

from __future__ import annotations

from typing import Any

import numpy as np
from onnx import GraphProto, helper, numpy_helper

ENDLESS = np.int64(2**62)
"""Turns of a Loop that its condition ends; skl2onnx sorts no node that leaves an input out."""


class Body:
    """Nodes of the Loop's body, under names that nothing outside has."""

    def __init__(self, prefix: str) -> None:
        self.graph = GraphProto(name=prefix)
        self._prefix, self._number = prefix, 0

    def name(self) -> str:
        """Return a name that nothing has yet."""
        self._number += 1
        return f"{self._prefix}.{self._number}"

    def given(self, kind: int, shape: list[Any]) -> str:
        """Add an input of an element type and a shape."""
        name = self.name()
        self.graph.input.append(helper.make_tensor_value_info(name, kind, shape))
        return name

    def node(self, operation: str, *inputs: Any, **attributes: Any) -> str:
        """Add a node; inputs are names, or numbers and arrays, whose type stays as it is."""
        name = self.name()
        names = [each if isinstance(each, str) else self._const(each) for each in inputs]
        self.graph.node.append(helper.make_node(operation, names, [name], **attributes))
        return name

    def give(self, value: str, kind: int, shape: list[Any]) -> None:
        """Add an output."""
        name = self.node("Identity", value)
        self.graph.output.append(helper.make_tensor_value_info(name, kind, shape))

    def _const(self, value: Any) -> str:
        name = self.name()
        self.graph.initializer.append(numpy_helper.from_array(np.asarray(value), name))
        return name
