"""Where double precision is computed and where it is rounded.

scikit-learn computes preprocessing in float64 and casts to float32 exactly once, before its trees compare a value with
a threshold. A graph exported in double therefore has to round at the same place; one exported in float32 rounds at
every step, and a value near a threshold then falls to the other side.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

TREE_OPERATORS = frozenset({"TreeEnsembleClassifier", "TreeEnsembleRegressor"})
_TENSOR = "_as_tensor"


def single_trees(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return a model exported in double with its tree ensembles in float32 behind one cast.

    For estimators that cast to float32 themselves; the histogram-based ones compare in float64 and must stay as they
    are. A threshold t is rounded down to float32, since for a float32 value v: v <= t exactly when v <= floor32(t).
    """
    out = onnx.ModelProto()
    out.CopyFrom(model)
    nodes: list[onnx.NodeProto] = []
    rounded: dict[str, str] = {}
    for node in out.graph.node:
        changed = onnx.NodeProto()
        changed.CopyFrom(node)
        if node.op_type in TREE_OPERATORS and _in_double(node):
            source = node.input[0]
            if source not in rounded:
                rounded[source] = f"{source}.float32"
                nodes.append(helper.make_node("Cast", [source], [rounded[source]], to=TensorProto.FLOAT))
            changed.input[0] = rounded[source]
            _single_attributes(changed)
        nodes.append(changed)
    del out.graph.node[:]
    out.graph.node.extend(nodes)
    return out


def floor32(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float32]:
    """Return the largest float32 that is not above each value."""
    single = values.astype(np.float32)
    above = single.astype(np.float64) > values
    single[above] = np.nextafter(single[above], np.float32(-np.inf))
    return single


def _in_double(node: onnx.NodeProto) -> bool:
    modes = {mode for a in node.attribute if a.name == "nodes_modes" for mode in a.strings}
    return modes <= {b"BRANCH_LEQ", b"LEAF"} and any(
        a.name.endswith(_TENSOR) and a.t.data_type == TensorProto.DOUBLE for a in node.attribute
    )


def _single_attributes(node: onnx.NodeProto) -> None:
    plain: list[onnx.AttributeProto] = []
    for attribute in node.attribute:
        if not attribute.name.endswith(_TENSOR):
            plain.append(attribute)
            continue
        values = numpy_helper.to_array(attribute.t).astype(np.float64)
        name = attribute.name.removesuffix(_TENSOR)
        single = floor32(values) if name == "nodes_values" else values.astype(np.float32)
        plain.append(helper.make_attribute(name, single.tolist()))
    copies = [onnx.AttributeProto.FromString(attribute.SerializeToString()) for attribute in plain]
    del node.attribute[:]
    node.attribute.extend(copies)
