"""Random graphs: whatever order and names an exporter chooses, the canonical bytes and the answers are the same."""

from __future__ import annotations

import random

import numpy as np
import onnx
import onnxruntime as ort
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from shoal_converter.onnx_graph.canonical import canonical_onnx
from shoal_converter.onnx_graph.names import add_prefix

UNARY = ["Relu", "Neg", "Abs", "Tanh"]
BINARY = ["Add", "Sub", "Max"]

Plan = list[tuple[int, int, int]]
"""One entry a node: which operator, and which earlier values it reads (0 is the input, 1 a constant)."""


def build(plan: Plan, *, order: int, salt: str) -> onnx.ModelProto:
    shuffled = random.Random(order)
    names = ["x", f"{salt}constant"]
    waiting = []
    for at, (operator, first, second) in enumerate(plan):
        reads = [names[first % len(names)], names[second % len(names)]]
        name = f"{salt}{shuffled.randrange(10**9)}_{at}"
        kind = (UNARY + BINARY)[operator % (len(UNARY) + len(BINARY))]
        waiting.append(helper.make_node(kind, reads if kind in BINARY else reads[:1], [name], name=salt + name))
        names.append(name)
    waiting.append(helper.make_node("Add", [names[-1], "x"], ["value"]))
    nodes, known = [], {"x", f"{salt}constant"}
    while waiting:  # any order in which every node comes after what it reads
        ready = [node for node in waiting if set(node.input) <= known]
        node = shuffled.choice(ready)
        waiting.remove(node)
        nodes.append(node)
        known |= set(node.output)
    graph = helper.make_graph(
        nodes,
        salt or "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [None])],
        [helper.make_tensor_value_info("value", TensorProto.FLOAT, [None])],
        [numpy_helper.from_array(np.array([0.5], dtype=np.float32), f"{salt}constant")],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)


plans = st.lists(st.tuples(st.integers(0, 6), st.integers(0, 40), st.integers(0, 40)), min_size=1, max_size=12)


@settings(max_examples=60, deadline=None)
@given(plan=plans, order=st.integers(0, 10**6), salt=st.sampled_from(["", "t", "c0", "z_", "value_"]))
def test_order_and_names_do_not_count(plan: Plan, order: int, salt: str) -> None:
    plain, other = build(plan, order=0, salt="a"), build(plan, order=order, salt=salt)
    raw = canonical_onnx(plain)
    assert canonical_onnx(other) == raw
    assert canonical_onnx(onnx.load_model_from_string(raw)) == raw


@settings(max_examples=25, deadline=None)
@given(plan=plans, order=st.integers(0, 10**6))
def test_answers_do_not_change(plan: Plan, order: int) -> None:
    model = build(plan, order=order, salt="n")
    x = np.array([-2.0, 0.0, 0.25, 3.0], dtype=np.float32)
    before, after = (
        ort.InferenceSession(m).run(None, {"x": x})[0] for m in (model.SerializeToString(), canonical_onnx(model))
    )
    assert np.array_equal(before, after)


@given(taken=st.frozensets(st.text(alphabet="_iner.x", max_size=12), max_size=6))
def test_a_prefix_never_meets_a_name_that_is_taken(taken: frozenset[str]) -> None:
    model = build([(0, 0, 0)], order=0, salt="")
    prefix = add_prefix(model.graph, taken)
    names = {name for node in model.graph.node for name in (*node.input, *node.output)}
    assert all(name.startswith(prefix) for name in names)
    assert not names & taken
