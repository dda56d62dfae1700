"""Looks at one hostile ONNX file in a process of its own, then prints what it found as one line of JSON.

Run as `python -I -m shoal_server.registry.onnx_child PATH MEMORY_BYTES CPU_SECONDS`. It limits itself before it reads a
byte of the file, never runs the model, and follows no reference to other files. `onnx_check` starts it.
"""

import json
import math
import os
import resource
import sys
from typing import Any

ALLOWED_DOMAINS = frozenset({"", "ai.onnx", "ai.onnx.ml", "com.microsoft"})
"""Operators that a plain onnxruntime has built in; anything else would need a library from somewhere."""

MAX_DEPTH = 16
MAX_NODES = 200_000
MAX_ELEMENTS = 2**28
"""Of one constant, as its shape says: a file of a hundred bytes can ask for a tensor of a terabyte."""


class Fault(Exception):  # noqa: N818 - an answer more than an error
    """A rule that the file breaks."""

    def __init__(self, rule: str, what: str) -> None:
        super().__init__(what)
        self.rule = rule


def look(path: str) -> dict[str, Any]:
    """Check a model file; returns the names of its inputs and outputs, or raises `Fault`."""
    import onnx  # noqa: PLC0415 - under the limits set by main, not before

    try:
        model = onnx.load(path, load_external_data=False)
    except Exception as error:
        raise Fault("onnx_parses", f"this is no ONNX file: {_short(error)}") from error
    if not model.graph.node and not model.graph.output:
        raise Fault("onnx_parses", "this is no ONNX file: it has no graph")
    nodes = 0
    for graph, depth in _graphs(model):
        if depth > MAX_DEPTH:
            raise Fault("onnx_depth", f"subgraphs are nested more than {MAX_DEPTH} deep")
        nodes += len(graph.node)
        if nodes > MAX_NODES:
            raise Fault("onnx_size", f"more than {MAX_NODES} nodes")
        _check_tensors(graph, onnx.TensorProto.EXTERNAL)
        _check_constants(graph, onnx)
    _check_domains(model)
    try:
        onnx.checker.check_model(model)
    except onnx.checker.ValidationError as error:
        raise Fault("onnx_valid", f"the ONNX checker says: {_short(error)}") from error
    constants = {tensor.name for tensor in model.graph.initializer}
    return {
        "inputs": [value.name for value in model.graph.input if value.name not in constants],
        "outputs": [value.name for value in model.graph.output],
        "ir_version": model.ir_version,
        "opsets": {opset.domain or "ai.onnx": opset.version for opset in model.opset_import},
    }


def _graphs(model: Any) -> Any:
    """Walk over the main graph, all subgraphs and functions (a function has nodes as a graph has)."""
    waiting = [(model.graph, 1), *((function, 1) for function in model.functions)]
    while waiting:
        graph, depth = waiting.pop()
        yield graph, depth
        for node in graph.node:
            for attribute in node.attribute:
                inner = [attribute.g] if attribute.HasField("g") else []
                waiting.extend((sub, depth + 1) for sub in (*inner, *attribute.graphs))


def _check_tensors(graph: Any, external: int) -> None:
    tensors = list(getattr(graph, "initializer", ()))
    for node in graph.node:
        for attribute in node.attribute:
            tensors.extend([attribute.t] if attribute.HasField("t") else [])
            tensors.extend(attribute.tensors)
    for tensor in tensors:
        if tensor.data_location == external or tensor.external_data:
            raise Fault("onnx_external_data", f"the tensor {tensor.name!r:.80} is in another file; put weights inside")


def _check_constants(graph: Any, onnx: Any) -> None:
    """Refuse constants whose shape is out of all proportion: dense, sparse, or made by ConstantOfShape."""
    dense = list(getattr(graph, "initializer", ()))
    sparse = list(getattr(graph, "sparse_initializer", ()))
    for node in graph.node:
        for attribute in node.attribute:
            dense.extend([attribute.t] if attribute.HasField("t") else [])
            sparse.extend([attribute.sparse_tensor] if attribute.HasField("sparse_tensor") else [])
            sparse.extend(attribute.sparse_tensors)
    for tensor in dense:
        _check_elements(tensor.name, tensor.dims)
    for tensor in sparse:
        _check_elements(tensor.values.name, tensor.dims)
    shapes = {tensor.name: tensor for tensor in dense if tensor.data_type == onnx.TensorProto.INT64}
    for node in graph.node:
        if node.op_type == "ConstantOfShape" and node.input and node.input[0] in shapes:
            _check_elements(node.output[0], onnx.numpy_helper.to_array(shapes[node.input[0]]).tolist())


def _check_elements(name: str, dims: Any) -> None:
    elements = math.prod(int(dim) for dim in dims)
    if any(int(dim) < 0 for dim in dims) or elements > MAX_ELEMENTS:
        shape = "x".join(str(dim) for dim in list(dims)[:8])
        raise Fault(
            "onnx_constants", f"the constant {name!r:.80} has the shape {shape}, more than {MAX_ELEMENTS} elements"
        )


def _check_domains(model: Any) -> None:
    own = {(function.domain, function.name) for function in model.functions}
    foreign = sorted(
        {
            f"{node.domain}::{node.op_type}"
            for graph, _ in _graphs(model)
            for node in graph.node
            if node.domain not in ALLOWED_DOMAINS and (node.domain, node.op_type) not in own
        }
    )
    if foreign:
        allowed = ", ".join(sorted(ALLOWED_DOMAINS - {""}))
        raise Fault("onnx_domains", f"operators {', '.join(foreign[:5])} are outside the allowed domains {allowed}")


def _short(error: Exception) -> str:
    return " ".join(str(error).split())[:300] or type(error).__name__


def main(path: str, memory_bytes: str, cpu_s: str) -> None:
    """Limit this process, look, and print the answer."""
    answers = os.fdopen(os.dup(1), "w")  # a library's own prints must not corrupt the answer
    os.dup2(2, 1)
    resource.setrlimit(resource.RLIMIT_DATA, (int(memory_bytes), int(memory_bytes)))
    resource.setrlimit(resource.RLIMIT_CPU, (int(cpu_s), int(cpu_s)))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    try:
        answer = {"ok": look(path)}
    except Fault as fault:
        answer = {"fault": {"rule": fault.rule, "what": str(fault)}}
    except MemoryError:
        answer = {"fault": {"rule": "onnx_memory", "what": "reading the model needs more memory than is allowed"}}
    answers.write(json.dumps(answer))
    answers.flush()


if __name__ == "__main__":
    main(*sys.argv[1:])
