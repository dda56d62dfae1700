"""Which of equally near training rows scikit-learn takes as neighbours.

On data of few digits the last neighbour is often as far as the next row. scikit-learn then keeps whom its heap keeps:
the rows are visited in the order of a tree's boxes (or of the training data, by brute force), one that is nearer than
the farthest kept takes its place, and the heap's shape decides which of equals that is. So the visit is repeated here,
in a Loop, and only for those rows of a call that have such a tie; without one the Loop ends before it begins.

Sources: scikit-learn's ``neighbors/_binary_tree.pxi.tp`` (``_query_single_depthfirst``), ``utils/_heap.pyx`` and
``metrics/_pairwise_distances_reduction/_argkmin.pyx.tp``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from onnx import TensorProto

from shoal_converter.sources.formula import Formula
from shoal_converter.sources.heap import kept

Array = npt.NDArray[Any]

_CHUNK = 256
"""Training rows that brute force takes at a time; each thread gets neighbouring chunks."""


@dataclass(frozen=True)
class Last:
    """How the search comes to its last neighbour.

    Attributes:
        count: Number of neighbours, less than `total`.
        total: Number of training rows.
        order: Gives the order in which they are visited, [T, K], for rows [T, F]; none: by brute force, as they are.
    """

    count: int
    total: int
    order: Callable[[str], str] | None


def settled(f: Formula, x: str, reduced: str, nearest: tuple[str, str], last: Last) -> str:
    """Return the places of the neighbours, [N, count], ties at the last one decided as scikit-learn decides them.

    Args:
        f: Where the nodes go.
        x: The rows, [N, F].
        reduced: Their distances to every training row, or a power of them, [N, K].
        nearest: The smallest ``count + 1`` distances and their places, ascending.
        last: How the training rows are visited.
    """
    least, places = nearest
    count = last.count
    same = f.node("Equal", f.columns(least, [count - 1]), f.columns(least, [count]))
    tied = f.node("Transpose", f.node("NonZero", f.flat(same)))  # [T, 1]
    distances = f.node("GatherND", reduced, tied)
    if last.order is None:
        chosen = _by_chunks(f, distances, last)
    else:
        visited = last.order(f.node("GatherND", x, tied))
        slots = kept(f, f.node("GatherElements", distances, visited, axis=1), count)[1]
        chosen = f.node("GatherElements", visited, slots, axis=1)
    _, ascending = f.smallest(f.node("GatherElements", distances, chosen, axis=1), count)
    chosen = f.node("GatherElements", chosen, ascending, axis=1)
    return f.node("ScatterND", f.columns(places, range(count)), tied, chosen)


def visits(f: Formula, tree: Any, bounds: str) -> str:
    """Return the training rows in the order in which a tree visits them, [N, K].

    The nearer child of a node comes first, the left one of equals. So a child begins where its node does if it comes
    first, else after the other's rows. The children of node ``i`` are ``2 i + 1`` and ``2 i + 2``, and all leaves stand
    on the last level.

    Args:
        f: Where the nodes go.
        tree: scikit-learn's KDTree or BallTree.
        bounds: The least (power of the) distance that each node's rows may have, [N, nodes].
    """
    _, own_order, nodes, _ = (np.asarray(part) for part in tree.get_arrays())
    sizes = (nodes["idx_end"] - nodes["idx_start"]).astype(np.float64)
    begins = f.node("Mul", f.columns(bounds, [0]), 0.0)  # the root's
    for level in range(int(np.log2(len(nodes)))):
        lefts = np.arange(2**level - 1, 2 ** (level + 1) - 1) * 2 + 1
        right_first = f.number(f.node("Greater", f.columns(bounds, lefts), f.columns(bounds, lefts + 1)))
        left = f.node("Mul", right_first, sizes[np.newaxis, lefts + 1])
        right = f.node("Mul", f.node("Sub", 1.0, right_first), sizes[np.newaxis, lefts])
        pair = [f.node("Unsqueeze", f.node("Add", begins, each), np.array([2])) for each in (left, right)]
        begins = f.node("Reshape", f.node("Concat", *pair, axis=2), np.array([-1, 2 * len(lefts)]))
    leaves = nodes[len(nodes) // 2 :]
    leaf, rank = np.empty(len(own_order), dtype=np.int64), np.empty(len(own_order))
    for at, node in enumerate(leaves):
        rows = own_order[node["idx_start"] : node["idx_end"]]
        leaf[rows], rank[rows] = at, np.arange(len(rows))
    ranks = f.node("Cast", f.node("Add", f.columns(begins, leaf), rank), to=TensorProto.INT64)
    places = f.node("Add", f.node("Mul", ranks, np.int64(0)), np.arange(len(own_order))[np.newaxis])
    return f.node("ScatterElements", ranks, ranks, places, axis=1)


def _by_chunks(f: Formula, distances: str, last: Last) -> str:
    """Return whom brute force keeps: each thread has a heap of its own, and they are poured into one at the end.

    So scikit-learn's answer depends on how many processors it may use; it is that of the machine that converts.
    """
    count, total = last.count, last.total
    parts = _parts(total)
    if len(parts) == 1:
        return kept(f, distances, count)[1]
    widest = max(len(part) for part in parts)
    padded = np.array([[*part, *[total] * (widest - len(part))] for part in parts])
    endless = f.node("Pad", distances, np.array([0, 0, 0, 1]), np.inf)
    split = f.node("Reshape", f.columns(endless, padded.ravel()), np.array([-1, widest]))
    heaps, places = kept(f, split, count)
    starts = np.array([[part.start] for part in parts])[np.newaxis]
    places = f.node("Add", f.node("Reshape", places, np.array([-1, len(parts), count])), starts)
    heaps, places = (f.node("Reshape", each, np.array([-1, len(parts) * count])) for each in (heaps, places))
    return f.node("GatherElements", places, kept(f, heaps, count)[1], axis=1)


def _parts(total: int) -> list[range]:
    """Return the training rows of each thread; OpenMP gives the first ones a chunk more where they don't divide."""
    from sklearn.utils._openmp_helpers import _openmp_effective_n_threads  # noqa: PLC0415 - heavy

    chunks = max(1, -(-total // _CHUNK))
    threads = min(chunks, int(_openmp_effective_n_threads()))
    ends = np.cumsum([chunks // threads + (at < chunks % threads) for at in range(threads)]) * _CHUNK
    return [range(int(start), min(int(end), total)) for start, end in zip([0, *ends[:-1]], ends, strict=True)]
