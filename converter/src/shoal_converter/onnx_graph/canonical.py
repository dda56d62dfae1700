"""One byte form for equal ONNX models.

Exporters name and order things by chance (hash seeds, object ids). Here nodes are put into the order of a depth-first
walk from the outputs, values are renamed by that order, initialisers stand in order of first use as raw data, and all
that does not affect the result is dropped: names of nodes, docs, producer, value infos, metadata. Names of graph inputs
and outputs are kept, since they are the model's interface.

Invariant: the result depends on the structure only; canonicalising twice changes nothing.
"""

from __future__ import annotations

import onnx
from onnx import numpy_helper

from shoal_converter.onnx_graph.names import rename_values, subgraphs

MAX_IR_VERSION = 10
MAX_OPSETS = {"": 21, "ai.onnx.ml": 3}


def canonicalise(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return an equal model in canonical form; the argument is not changed."""
    out = onnx.ModelProto()
    out.CopyFrom(model)
    if out.functions:
        out = _inlined(out)
    graph = out.graph
    _sort_nodes(graph)
    _rename(graph)
    _strip_graph(graph, name="main")
    _strip_model(out)
    return out


def canonical_onnx(model: onnx.ModelProto) -> bytes:
    """Return the canonical bytes of a model."""
    raw: bytes = canonicalise(model).SerializeToString(deterministic=True)
    return raw


def _inlined(model: onnx.ModelProto) -> onnx.ModelProto:
    """Replace local functions by their bodies, so that no operator domain of an exporter remains."""
    from onnx import inliner  # noqa: PLC0415 - rarely needed

    return inliner.inline_local_functions(model)


def _used_outside(node: onnx.NodeProto) -> list[str]:
    """Return the names that a node reads: its inputs, then what its nested graphs take from outside, in order."""
    names = list(node.input)
    for inner in subgraphs(node):
        names.extend(_free_names(inner))
    return list(dict.fromkeys(name for name in names if name))


def _free_names(graph: onnx.GraphProto) -> list[str]:
    own = {info.name for info in graph.input} | {tensor.name for tensor in graph.initializer}
    own |= {name for node in graph.node for name in node.output}
    read = [name for node in graph.node for name in _used_outside(node)] + [info.name for info in graph.output]
    return [name for name in dict.fromkeys(read) if name not in own]


def _sort_nodes(graph: onnx.GraphProto) -> None:
    """Order nodes by a depth-first walk from the graph's outputs and drop those that no output needs.

    Iterative, because a forest exported node by node is deeper than Python's stack.
    """
    for node in graph.node:
        for inner in subgraphs(node):
            _sort_nodes(inner)
    producer = {name: at for at, node in enumerate(graph.node) for name in node.output if name}
    done: dict[int, None] = {}
    for wanted in graph.output:
        stack: list[tuple[str, bool]] = [(wanted.name, False)]
        while stack:
            name, ready = stack.pop()
            at = producer.get(name)
            if at is None or at in done:
                continue
            if ready:
                done[at] = None
                continue
            stack.append((name, True))
            stack.extend((source, False) for source in reversed(_used_outside(graph.node[at])))
    nodes = [onnx.NodeProto.FromString(graph.node[at].SerializeToString()) for at in done]
    del graph.node[:]
    graph.node.extend(nodes)


class _Names:
    """New names by order of appearance: ``c0`` for a constant, ``t1`` for what a node gives."""

    def __init__(self, kept: set[str]) -> None:
        self._kept = kept
        self._given = {name: name for name in kept}
        self._number = 0

    def give(self, name: str, letter: str) -> None:
        if not name or name in self._given:
            return
        while f"{letter}{self._number}" in self._kept:
            self._number += 1
        self._given[name] = f"{letter}{self._number}"
        self._number += 1

    def of(self, name: str) -> str:
        return self._given.get(name, name)


def _rename(graph: onnx.GraphProto) -> None:
    names = _Names({info.name for info in (*graph.input, *graph.output)})
    _collect(graph, names)
    rename_values(graph, names.of)


def _collect(graph: onnx.GraphProto, names: _Names) -> None:
    constants = {tensor.name for tensor in graph.initializer}
    for info in graph.input:
        names.give(info.name, "t")
    for node in graph.node:
        for name in _used_outside(node):
            if name in constants:
                names.give(name, "c")
        for inner in subgraphs(node):
            _collect(inner, names)
        for name in node.output:
            names.give(name, "t")
    for info in graph.output:
        names.give(info.name, "c")


def _strip_graph(graph: onnx.GraphProto, *, name: str) -> None:
    graph.name = name
    graph.doc_string = ""
    del graph.value_info[:]
    del graph.metadata_props[:]
    del graph.quantization_annotation[:]
    for info in (*graph.input, *graph.output):
        info.doc_string = ""
        del info.metadata_props[:]
    for node in graph.node:
        node.name = ""
        node.doc_string = ""
        del node.metadata_props[:]
        attributes = sorted(node.attribute, key=lambda attribute: attribute.name)
        del node.attribute[:]
        node.attribute.extend(attributes)
        for attribute in node.attribute:
            attribute.doc_string = ""
            if attribute.type == onnx.AttributeProto.TENSOR:
                attribute.t.CopyFrom(_plain_tensor(attribute.t, ""))
        for inner in subgraphs(node):
            _strip_graph(inner, name="inner")
    _order_initialisers(graph)


def _order_initialisers(graph: onnx.GraphProto) -> None:
    used = [name for node in graph.node for name in _used_outside(node)] + [info.name for info in graph.output]
    rank = {name: at for at, name in enumerate(dict.fromkeys(used))}
    tensors = [_plain_tensor(tensor, tensor.name) for tensor in graph.initializer if tensor.name in rank]
    del graph.initializer[:]
    graph.initializer.extend(sorted(tensors, key=lambda tensor: rank[tensor.name]))


def _plain_tensor(tensor: onnx.TensorProto, name: str) -> onnx.TensorProto:
    if tensor.data_type == onnx.TensorProto.STRING:
        plain = onnx.TensorProto(dims=tensor.dims, data_type=tensor.data_type, string_data=tensor.string_data)
        plain.name = name
        return plain
    return numpy_helper.from_array(numpy_helper.to_array(tensor), name)


def _strip_model(model: onnx.ModelProto) -> None:
    model.producer_name = ""
    model.producer_version = ""
    model.domain = ""
    model.model_version = 0
    model.doc_string = ""
    del model.metadata_props[:]
    versions: dict[str, int] = {}
    for entry in model.opset_import:
        domain = "" if entry.domain == "ai.onnx" else entry.domain
        versions[domain] = max(versions.get(domain, 0), entry.version)
    used = _domains(model.graph)
    del model.opset_import[:]
    for domain in sorted(used):
        model.opset_import.append(onnx.helper.make_opsetid(domain, versions.get(domain, MAX_OPSETS.get(domain, 1))))


def _domains(graph: onnx.GraphProto) -> set[str]:
    found = {""}
    for node in graph.node:
        if node.domain == "ai.onnx":
            node.domain = ""
        found.add(node.domain)
        for inner in subgraphs(node):
            found |= _domains(inner)
    return found
