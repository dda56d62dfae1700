"""One byte form for equal graphs."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper

from shoal_converter.onnx_graph.canonical import canonical_onnx, canonicalise


def two_branches(
    names: list[str], *, swapped: bool, producer: str = "", opsets_reversed: bool = False
) -> onnx.ModelProto:
    """(x + a) * relu(x), with whatever names and order of nodes an exporter may choose."""
    a, total, positive, constant = names
    nodes = [
        helper.make_node("Add", ["x", constant], [total], name=f"node-{a}", doc_string="made by chance"),
        helper.make_node("Relu", ["x"], [positive], name="relu"),
        helper.make_node("Neg", ["x"], ["dead"], name="nobody needs this"),
    ]
    if swapped:
        nodes.reverse()
    nodes.append(helper.make_node("Mul", [total, positive], ["value"]))
    graph = helper.make_graph(
        nodes,
        f"graph {a}",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [None, 1])],
        [helper.make_tensor_value_info("value", TensorProto.FLOAT, [None, 1])],
        [
            helper.make_tensor("unused", TensorProto.FLOAT, [1], [5.0]),
            helper.make_tensor(constant, TensorProto.FLOAT, [1], [1.5])
            if swapped
            else numpy_helper.from_array(np.array([1.5], dtype=np.float32), constant),
        ],
        value_info=[helper.make_tensor_value_info(total, TensorProto.FLOAT, [None, 1])],
    )
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid("ai.onnx.ml", 3), helper.make_opsetid("", 18)]
    if opsets_reversed:
        opsets.reverse()
    return helper.make_model(graph, opset_imports=opsets, ir_version=8, producer_name=producer)


def test_names_order_and_decoration_do_not_count() -> None:
    plain = two_branches(["a", "b", "c", "d"], swapped=False)
    other = two_branches(["q", "zz", "y", "x9"], swapped=True, producer="somebody", opsets_reversed=True)
    assert plain.SerializeToString() != other.SerializeToString()
    assert canonical_onnx(plain) == canonical_onnx(other)


def test_a_weight_counts() -> None:
    plain = two_branches(["a", "b", "c", "d"], swapped=False)
    other = two_branches(["a", "b", "c", "d"], swapped=False)
    other.graph.initializer[1].CopyFrom(numpy_helper.from_array(np.array([1.25], dtype=np.float32), "d"))
    assert canonical_onnx(plain) != canonical_onnx(other)


def test_the_result_runs_alike_and_is_a_fixed_point() -> None:
    model = two_branches(["a", "b", "c", "d"], swapped=True)
    raw = canonical_onnx(model)
    x = np.array([[-2.0], [3.0]], dtype=np.float32)
    before, after = (ort.InferenceSession(m).run(None, {"x": x})[0] for m in (model.SerializeToString(), raw))
    assert np.array_equal(before, after)
    assert canonical_onnx(onnx.load_model_from_string(raw)) == raw


def test_the_interface_keeps_its_names_and_dead_nodes_go() -> None:
    graph = canonicalise(two_branches(["a", "b", "c", "d"], swapped=False)).graph
    assert [info.name for info in graph.input] == ["x"]
    assert [info.name for info in graph.output] == ["value"]
    assert "Neg" not in [node.op_type for node in graph.node]
    assert len(graph.initializer) == 1
    assert not any(node.name or node.doc_string for node in graph.node)


def test_an_interface_that_uses_our_names_does_not_collide() -> None:
    model = two_branches(["a", "b", "c", "d"], swapped=False)
    model.graph.input[0].name = "c0"
    for node in model.graph.node:
        node.input[:] = ["c0" if name == "x" else name for name in node.input]
    raw = canonical_onnx(model)
    found = ort.InferenceSession(raw).run(None, {"c0": np.array([[2.0]], dtype=np.float32)})[0]
    assert found.tolist() == [[7.0]]


@pytest.mark.parametrize("names", [("then_a", "else_a"), ("p", "q")])
def test_graphs_inside_nodes_see_the_outer_names(names: tuple[str, str]) -> None:
    def branch(name: str, operator: str) -> onnx.GraphProto:
        node = helper.make_node(operator, ["shared"], [name])
        return helper.make_graph([node], name, [], [helper.make_tensor_value_info(name, TensorProto.FLOAT, [None])])

    nodes = [
        helper.make_node("Abs", ["x"], ["shared"]),
        helper.make_node(
            "If", ["flag"], ["y"], then_branch=branch(names[0], "Neg"), else_branch=branch(names[1], "Exp")
        ),
    ]
    inputs = [
        helper.make_tensor_value_info("x", TensorProto.FLOAT, [None]),
        helper.make_tensor_value_info("flag", TensorProto.BOOL, []),
    ]
    graph = helper.make_graph(nodes, "g", inputs, [helper.make_tensor_value_info("y", TensorProto.FLOAT, [None])])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    raw = canonical_onnx(model)
    found = ort.InferenceSession(raw).run(None, {"x": np.array([-3.0], np.float32), "flag": np.array(True)})[0]
    assert found.tolist() == [-3.0]
    assert raw == canonical_onnx(onnx.load_model_from_string(raw))


def test_the_order_of_attributes_does_not_count() -> None:
    def gemm(*, backwards: bool) -> onnx.ModelProto:
        node = helper.make_node("Gemm", ["x", "x"], ["value"], alpha=0.5, beta=2.0, transB=1)
        if backwards:
            attributes = list(node.attribute)[::-1]
            del node.attribute[:]
            node.attribute.extend(attributes)
        info = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [None, None]) for name in ("x", "value")]
        graph = helper.make_graph([node], "g", info[:1], info[1:])
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)

    assert gemm(backwards=True).SerializeToString() != gemm(backwards=False).SerializeToString()
    assert canonical_onnx(gemm(backwards=True)) == canonical_onnx(gemm(backwards=False))
