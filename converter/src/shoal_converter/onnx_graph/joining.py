"""Two graphs in a row, with one cast between them.

scikit-learn computes preprocessing in float64 and casts to float32 exactly once, before its trees compare a value with
a threshold. A graph that is exported in float32 as a whole rounds at every step, and a value near a threshold then
falls to the other side. So the steps before the last are exported in double, the last in float32, and joined here.
"""

from __future__ import annotations

import onnx
from onnx import TensorProto, helper

from shoal_converter.onnx_graph.names import rename_values


def join(first: onnx.ModelProto, second: onnx.ModelProto) -> onnx.ModelProto:
    """Return a model that feeds the first's only output, cast to float32, into the second's only input.

    Args:
        first: Any inputs, one output.
        second: One float32 input, any outputs.
    """
    out = onnx.ModelProto()
    out.CopyFrom(first)
    last = onnx.ModelProto()
    last.CopyFrom(second)
    inputs = {info.name for info in out.graph.input}
    rename_values(out.graph, lambda name: name if name in inputs else f"first.{name}")
    rename_values(last.graph, lambda name: f"second.{name}")
    source, target = out.graph.output[0].name, last.graph.input[0].name
    out.graph.node.append(helper.make_node("Cast", [source], [target], to=TensorProto.FLOAT))
    out.graph.node.extend(last.graph.node)
    for node in out.graph.node:
        node.name = ""  # both graphs may have used the same ones
    out.graph.initializer.extend(last.graph.initializer)
    del out.graph.output[:]
    out.graph.output.extend(last.graph.output)
    del out.graph.value_info[:]
    out.functions.extend(last.functions)
    _merge_opsets(out, last)
    return out


def _merge_opsets(out: onnx.ModelProto, last: onnx.ModelProto) -> None:
    versions: dict[str, int] = {}
    for entry in (*out.opset_import, *last.opset_import):
        versions[entry.domain] = max(versions.get(entry.domain, 0), entry.version)
    del out.opset_import[:]
    out.opset_import.extend(helper.make_opsetid(domain, version) for domain, version in sorted(versions.items()))
    out.ir_version = max(out.ir_version, last.ir_version)
