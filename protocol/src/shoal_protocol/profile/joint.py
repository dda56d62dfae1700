"""Joint features: weighted sums of several numeric streams, which see correlations change that no single stream shows.

Owns their arithmetic. A joint feature is computed from the *cells* in which its sources fall: these are already there,
bounded whatever a value is, and on the scale (linear or asinh) that suits the feature. Cells and weights are whole
numbers, whose sums are exact in float64: so a row's value is the same on every machine, in any order and batch.

    value = sum over sources of weight * (cell - center), divided by 2^20; a missing source adds nothing
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from shoal_protocol.profile.grid import MISSING

Cells: TypeAlias = npt.NDArray[Any]

UNIT = 2.0**20
MOST_SOURCES = 256
_LARGEST_WEIGHT = 2**24
_LARGEST_CENTER = 4096


def joint_values(cells: Cells, centers: npt.NDArray[np.float64], weights: npt.NDArray[np.float64]) -> npt.NDArray[Any]:
    """Return joint features of rows.

    Args:
        cells: Fine cells of the sources, shape (rows, sources).
        centers: Whole numbers, shape (sources,); what a cell is compared with.
        weights: Whole numbers, shape (joints, sources).

    Returns:
        float32 of shape (joints, rows).
    """
    away = cells - centers
    away[cells == MISSING] = 0.0
    return np.asarray((weights @ away.T / UNIT).astype(np.float32))


def loads(params: Mapping[str, Any], *, most: int = 3) -> list[str]:
    """Return the sources with the largest weights, the largest first, a negative one with a minus sign.

    >>> loads({"streams": ["a", "b", "c"], "weights": [10, -500, 0]})
    ['-b', 'a']
    """
    ranked = sorted(zip(params["streams"], params["weights"], strict=True), key=lambda pair: -abs(pair[1]))
    return [f"-{name}" if weight < 0 else str(name) for name, weight in ranked[:most] if weight]


def check_joint(params: Mapping[str, Any], sources: Sequence[str], seen: dict[str, int]) -> None:
    """Check the parameters of a joint feature.

    Args:
        params: ``streams``, ``weights`` and ``centers``.
        sources: Names of the streams that may be joined: numeric, and read off one column.
        seen: The center of each source so far, which all joint features of a spec must share; new ones are added.

    Raises:
        ValueError: One is missing, of another length, no whole number or out of range, or names no such stream.
    """
    names, weights, centers = params["streams"], params["weights"], params["centers"]
    if not 0 < len(names) == len(weights) == len(centers) <= MOST_SOURCES or len(set(names)) != len(names):
        raise ValueError(f"a joint feature has {len(names)} streams, {len(weights)} weights, {len(centers)} centers")
    if any(int(w) != w or abs(w) > _LARGEST_WEIGHT for w in weights):
        raise ValueError("a joint feature's weights must be whole numbers up to 2^24")
    if any(int(c) != c or not 0 <= c < _LARGEST_CENTER for c in centers):
        raise ValueError("a joint feature's centers must be cells")
    if any(seen.setdefault(name, center) != center for name, center in zip(names, centers, strict=True)):
        raise ValueError("a stream has several centers")
    unknown = sorted(set(names) - set(sources))
    if unknown:
        raise ValueError(f"a joint feature is made of {unknown[:3]}, which are no numeric streams of one column")
