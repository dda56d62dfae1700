"""A heap of fixed size that keeps the smallest of what is pushed, many rows at once, as a Loop of ONNX.

scikit-learn keeps neighbours so: the largest kept stands at the root; what is smaller takes its place and sinks, past
the larger child each time, the left one of equals (``utils/_heap.pyx``). Only what enters the heap costs a turn of the
Loop: each turn looks for the next such entry of every row.
"""

from __future__ import annotations

import numpy as np
from onnx import GraphProto, TensorProto

from shoal_converter.sources.formula import Formula
from shoal_converter.sources.loop_body import ENDLESS, Body


def kept(f: Formula, values: str, count: int) -> tuple[str, str]:
    """Return what a heap keeps of each row: values and their places in it, both [T, count], in the heap's own order.

    Args:
        f: Where the nodes go.
        values: In the order in which they are pushed, [T, K], in double; infinite ones never enter.
        count: The heap's size, at most the number of finite values in each row.
    """
    rows = f.node("Slice", f.node("Shape", values), np.array([0]), np.array([1]))
    shape = f.node("Concat", rows, np.array([count]), axis=0)
    heap = f.node("Expand", np.inf, shape)
    places = f.node("Expand", np.int64(0), shape)
    nexts = f.node("Expand", np.int64(0), f.node("Concat", rows, np.array([1]), axis=0))
    some = f.node("Squeeze", f.node("Greater", rows, np.array([0])))
    body = _body(f.unique("heap"), count)
    result = f.several(4, "Loop", ENDLESS, some, heap, places, nexts, values, body=body)
    return result[0], result[1]


def _body(prefix: str, count: int) -> GraphProto:
    """Push the next entry of each row that is smaller than the heap's largest, and say whether there was any."""
    b = Body(prefix)
    b.given(TensorProto.INT64, [])
    b.given(TensorProto.BOOL, [])
    heap, places = b.given(TensorProto.DOUBLE, [None, count]), b.given(TensorProto.INT64, [None, count])
    nexts, values = b.given(TensorProto.INT64, [None, 1]), b.given(TensorProto.DOUBLE, [None, None])

    all_places = b.node("Range", np.int64(0), b.node("Squeeze", b.node("Shape", values, start=1)), np.int64(1))
    smaller = b.node("Less", values, b.node("Gather", heap, np.array([0]), axis=1))
    entering = b.node("And", smaller, b.node("GreaterOrEqual", all_places, nexts))
    marks = b.node("Cast", entering, to=TensorProto.INT32)
    at = b.node("ArgMax", marks, axis=1, keepdims=1)
    enters = b.node("Cast", b.node("GatherElements", marks, at, axis=1), to=TensorProto.BOOL)
    value = b.node("GatherElements", values, at, axis=1)
    new_heap, new_places = _sunk(b, (heap, places), (value, at), enters, count)

    b.give(b.node("Cast", b.node("ReduceMax", marks, keepdims=0), to=TensorProto.BOOL), TensorProto.BOOL, [])
    b.give(new_heap, TensorProto.DOUBLE, [None, count])
    b.give(new_places, TensorProto.INT64, [None, count])
    after = b.node("Where", enters, b.node("Add", at, np.int64(1)), nexts)
    b.give(after, TensorProto.INT64, [None, 1])
    b.give(values, TensorProto.DOUBLE, [None, None])
    return b.graph


def _sunk(b: Body, heap: tuple[str, str], entry: tuple[str, str], enters: str, count: int) -> tuple[str, str]:
    """Return the heap and its places with the entry at the root sunk to where it belongs, in rows where it enters."""
    values, places = heap
    value, place = entry
    padded = b.node("Concat", values, b.node("Expand", -np.inf, _shape(b, value, count + 1)), axis=1)
    slots = np.arange(count, dtype=np.int64)[np.newaxis]
    at = b.node("Mul", place, np.int64(0))
    new_values, new_places = values, places
    for _ in range(int(np.log2(count))):
        left = b.node("Add", b.node("Mul", at, np.int64(2)), np.int64(1))
        right = b.node("Add", left, np.int64(1))
        lefts, rights = (b.node("GatherElements", padded, side, axis=1) for side in (left, right))
        child = b.node("Where", b.node("GreaterOrEqual", lefts, rights), left, right)
        larger = b.node("Max", lefts, rights)
        sinks = b.node("And", enters, b.node("Less", value, larger))
        here = b.node("And", sinks, b.node("Equal", at, slots))
        risen = b.node("GatherElements", places, b.node("Min", child, np.int64(count - 1)), axis=1)
        new_values = b.node("Where", here, larger, new_values)
        new_places = b.node("Where", here, risen, new_places)
        at = b.node("Where", sinks, child, at)
    here = b.node("And", enters, b.node("Equal", at, slots))
    return b.node("Where", here, value, new_values), b.node("Where", here, place, new_places)


def _shape(b: Body, like: str, width: int) -> str:
    return b.node("Concat", b.node("Shape", like, end=1), np.array([width]), axis=0)
