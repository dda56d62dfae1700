"""Bringing a foreign graph down to what every device runs: IR <= 10, ai.onnx <= 21, ai.onnx.ml 3.

A number alone is lowered where each operator is the same in the older set, which changes nothing by definition; else
onnx's version converter is asked, and whoever calls proves the result. Also takes off what is no computation: ZipMap
after a classifier, and a fixed number of rows.
"""

from __future__ import annotations

from collections.abc import Iterator

import onnx
from onnx import AttributeProto, TensorProto, helper

from shoal_converter.errors import UnsupportedModelError
from shoal_converter.onnx_graph.canonical import MAX_IR_VERSION, MAX_OPSETS
from shoal_converter.onnx_graph.names import subgraphs

KNOWN_DOMAINS = frozenset({"", "ai.onnx", "ai.onnx.ml", "com.microsoft"})
"""Domains whose operators every onnxruntime has; the registry lets no other in."""

_FIRST_IR_WITH_FREE_INITIALISERS = 4
_RANDOM = frozenset(
    {"RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike", "Multinomial", "Bernoulli"}
)


def nodes_of(graph: onnx.GraphProto) -> Iterator[onnx.NodeProto]:
    """Yield every node, those of nested graphs included."""
    for node in graph.node:
        yield node
        for inner in subgraphs(node):
            yield from nodes_of(inner)


def check_operators(model: onnx.ModelProto) -> None:
    """Refuse operators that devices don't have, or that answer otherwise each time.

    Raises:
        UnsupportedModelError: Names the operator.
    """
    for node in nodes_of(model.graph):
        if node.domain not in KNOWN_DOMAINS:
            raise UnsupportedModelError(
                f"{node.domain}.{node.op_type}",
                f"operator {node.op_type} of the domain {node.domain!r} needs a library that devices don't have",
                "export the model with standard ONNX operators only (ai.onnx, ai.onnx.ml)",
            )
        if node.op_type in _RANDOM and not node.domain:
            raise UnsupportedModelError(
                node.op_type,
                "it draws at random, so that no device can be held to an answer",
                "export the model for inference: model.eval(), without sampling",
            )
    if model.graph.sparse_initializer:
        raise UnsupportedModelError("sparse_initializer", "sparse constants", "export the model with dense constants")


def lowered(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return the model with IR and operator sets that every device runs; the argument is not changed.

    Raises:
        UnsupportedModelError: An operator has no form in them; names it.
    """
    out = onnx.ModelProto()
    out.CopyFrom(model)
    if out.functions:
        from onnx import inliner  # noqa: PLC0415 - rarely needed

        out = inliner.inline_local_functions(out)
    check_operators(out)
    _free_initialisers(out)
    out.ir_version = max(_FIRST_IR_WITH_FREE_INITIALISERS, min(out.ir_version, MAX_IR_VERSION))
    for domain, most in MAX_OPSETS.items():
        out = _lowered_domain(out, domain, most)
    return out


def _free_initialisers(model: onnx.ModelProto) -> None:
    """Take initialisers out of the inputs, where old exporters listed them; they are constants."""
    constants = {tensor.name for tensor in model.graph.initializer}
    kept = [info for info in model.graph.input if info.name not in constants]
    del model.graph.input[:]
    model.graph.input.extend(kept)


def _lowered_domain(model: onnx.ModelProto, domain: str, most: int) -> onnx.ModelProto:
    entry = next((e for e in model.opset_import if (e.domain or "ai.onnx") == (domain or "ai.onnx")), None)
    if entry is None or entry.version <= most:
        return model
    newer = _changed_since(model.graph, domain, version=entry.version, most=most)
    if not newer:
        entry.version = most
        return model
    name, why = newer[0], f"needs {domain or 'ai.onnx'} {entry.version}, devices run up to {most}"
    round_ = f"export the model with opset {most} (torch.onnx.export(…, opset_version={most}))"
    if domain:
        raise UnsupportedModelError(name, why, f"export the model with {domain} {most}")
    try:
        from onnx import version_converter  # noqa: PLC0415 - rarely needed

        return version_converter.convert_version(model, most)
    except Exception as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[-1][:200]
        raise UnsupportedModelError(name, f"{why}, and onnx can't convert it: {reason}", round_) from error


def _changed_since(graph: onnx.GraphProto, domain: str, *, version: int, most: int) -> list[str]:
    """Return the operators that a newer set defines otherwise than the one that devices run, in order of appearance."""
    found: dict[str, None] = {}
    for node in nodes_of(graph):
        if (node.domain or "ai.onnx") != (domain or "ai.onnx"):
            continue
        try:
            since = onnx.defs.get_schema(node.op_type, version, domain).since_version
        except onnx.defs.SchemaError as error:
            raise UnsupportedModelError(
                node.op_type, f"{domain or 'ai.onnx'} {version} has no such operator", "export the model anew"
            ) from error
        if since > most:
            found.setdefault(node.op_type)
    return list(found)


def without_zipmap(model: onnx.ModelProto) -> dict[str, tuple[str, ...]]:
    """Give the tensors under ZipMap in its place, under its output's name; return the class texts by output."""
    graph = model.graph
    classes: dict[str, tuple[str, ...]] = {}
    for node in [each for each in graph.node if each.op_type == "ZipMap"]:
        texts = _class_texts(node)
        classes[node.output[0]] = texts
        at = list(graph.node).index(node)
        graph.node[at].CopyFrom(helper.make_node("Identity", [node.input[0]], [node.output[0]]))
        for info in graph.output:
            if info.name == node.output[0]:
                info.CopyFrom(helper.make_tensor_value_info(info.name, TensorProto.FLOAT, [None, len(texts)]))
    return classes


def classifier_classes(model: onnx.ModelProto) -> tuple[str, ...] | None:
    """Return the class texts of the one classifier of ai.onnx.ml in a graph, or none."""
    found = {texts for node in model.graph.node if node.op_type.endswith("Classifier") if (texts := _class_texts(node))}
    return next(iter(found)) if len(found) == 1 else None


def _class_texts(node: onnx.NodeProto) -> tuple[str, ...]:
    for attribute in node.attribute:
        if attribute.name in {"classlabels_int64s", "classlabels_ints"} and attribute.type == AttributeProto.INTS:
            return tuple(str(value) for value in attribute.ints)
        if attribute.name == "classlabels_strings" and attribute.type == AttributeProto.STRINGS:
            return tuple(value.decode() for value in attribute.strings)
    return ()


def fixed_rows(model: onnx.ModelProto) -> int | None:
    """Return the number of rows that the inputs prescribe, or none where it is free."""
    sizes = {
        info.type.tensor_type.shape.dim[0].dim_value for info in model.graph.input if info.type.tensor_type.shape.dim
    }
    return next(iter(sizes)) if len(sizes) == 1 and sizes != {0} else None


def with_free_rows(model: onnx.ModelProto) -> None:
    """Let inputs and outputs have any number of rows."""
    for info in (*model.graph.input, *model.graph.output):
        dims = info.type.tensor_type.shape.dim
        if dims:
            dims[0].Clear()
            dims[0].dim_param = "N"
    del model.graph.value_info[:]
