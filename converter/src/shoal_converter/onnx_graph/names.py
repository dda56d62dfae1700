"""Renaming of values in a graph and its nested graphs.

Owns the walk over every place where a value's name stands: node inputs and outputs, initialisers, graph inputs and
outputs, value infos, and the same inside the graphs of If, Loop and Scan, which see the names of the outer graph.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import onnx


def subgraphs(node: onnx.NodeProto) -> Iterator[onnx.GraphProto]:
    """Yield the graphs that a node holds, in the order of its attributes."""
    for attribute in node.attribute:
        if attribute.type == onnx.AttributeProto.GRAPH:
            yield attribute.g
        elif attribute.type == onnx.AttributeProto.GRAPHS:
            yield from attribute.graphs


def rename_values(graph: onnx.GraphProto, rename: Callable[[str], str]) -> None:
    """Rename every value of a graph in place; the empty name, an omitted argument, stays.

    Args:
        graph: Changed in place, nested graphs too.
        rename: Old name -> new name; must not map two names to one.
    """
    for node in graph.node:
        node.input[:] = [rename(name) if name else "" for name in node.input]
        node.output[:] = [rename(name) if name else "" for name in node.output]
        for inner in subgraphs(node):
            rename_values(inner, rename)
    for tensor in graph.initializer:
        tensor.name = rename(tensor.name)
    for sparse in graph.sparse_initializer:
        sparse.values.name = rename(sparse.values.name)
    for info in (*graph.input, *graph.output, *graph.value_info):
        info.name = rename(info.name)


def add_prefix(graph: onnx.GraphProto, taken: frozenset[str]) -> str:
    """Prefix every value's name so that none equals or begins like a name in `taken`; return the prefix."""
    prefix = "inner."
    while any(name.startswith(prefix) for name in taken):
        prefix = "_" + prefix
    rename_values(graph, lambda name: prefix + name)
    return prefix
