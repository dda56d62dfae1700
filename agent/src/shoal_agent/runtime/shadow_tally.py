"""Sums of how a shadow's answers compare with the active model's, until the window closes.

Owns comparing two answers to the same rows: by class where both models have classes, by number where both have one,
and by class probabilities. Leaves running the shadow to `shadow`.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from shoal_protocol.bundle.schema import ModelSchema
from shoal_protocol.profile.codec import LATENCIES, LATENCY_EDGES_US
from shoal_protocol.profile.grid import category_text
from shoal_protocol.profile.shadow import (
    DIFFERENCE_EDGES,
    DIFFERENCES,
    DIFFERENT,
    MAX_PAIRS,
    MAX_TEXT,
    OTHER,
    DifferenceSums,
    ShadowSums,
)

Array = npt.NDArray[Any]

_EDGES_NS = np.array(LATENCY_EDGES_US, dtype=np.int64) * 1000
_EDGES = np.array(DIFFERENCE_EDGES)


class Comparison:
    """Which tensors of two models are compared.

    Args:
        active: Schema of the model that answers.
        shadow: Schema of the model that does not.
    """

    def __init__(self, active: ModelSchema, shadow: ModelSchema) -> None:
        self._labels = _both(active, shadow, "label")
        self._numbers = _both(active, shadow, "value") or _both(active, shadow, "probabilities")

    def pairs(self, said: Mapping[str, Array], shadow_said: Mapping[str, Array]) -> list[tuple[str, str]] | None:
        """Return (active's class, shadow's class) of each row; none: the models have no classes."""
        if self._labels is None:
            return None
        mine, other = (_texts(answer[name]) for answer, name in zip((said, shadow_said), self._labels, strict=True))
        return list(zip(mine, other, strict=True))

    def differences(self, said: Mapping[str, Array], shadow_said: Mapping[str, Array]) -> Array | None:
        """Return shadow minus active, float64 one a row: of a single number signed, of several the largest one.

        None where there is nothing to subtract, as between models with different numbers of classes.
        """
        if self._numbers is None:
            return None
        mine, other = said[self._numbers[0]], shadow_said[self._numbers[1]]
        if mine.shape != other.shape or mine.dtype.kind not in "fiu" or other.dtype.kind not in "fiu":
            return None
        with np.errstate(invalid="ignore", over="ignore"):
            gaps = (other.astype(np.float64) - mine.astype(np.float64)).reshape(len(mine), -1)
        return gaps[:, 0] if gaps.shape[1] == 1 else np.abs(gaps).max(axis=1, initial=0.0)


class ShadowTally:
    """Sums of one window.

    Args:
        digest: Of the shadow.
        comparison: What is compared.
    """

    def __init__(self, digest: str, comparison: Comparison) -> None:
        self._digest = digest
        self._comparison = comparison
        self._lock = threading.Lock()
        self.has_ended = False
        """Whether nothing will be added any more."""
        self._begin()

    def compared(
        self, said: Mapping[str, Array], shadow_said: Mapping[str, Array], *, rows: int, elapsed_ns: tuple[int, int]
    ) -> None:
        """Take a call that both models answered.

        Args:
            said: Outputs of the active model.
            shadow_said: Outputs of the shadow, to the same rows.
            rows: Number of rows.
            elapsed_ns: Of the active model's call and of the shadow's.
        """
        pairs = self._comparison.pairs(said, shadow_said)
        gaps = self._comparison.differences(said, shadow_said)
        if pairs is not None:
            agreed = sum(mine == other for mine, other in pairs)
        else:
            agreed = int((gaps == 0).sum()) if gaps is not None else 0
        with self._lock:
            self._rows += rows
            self._agreed += agreed
            self._latency[[0, 1], np.searchsorted(_EDGES_NS, elapsed_ns)] += 1
            self._pairs.update(pairs or ())
            if gaps is not None:
                self._add(gaps)

    def dropped(self, rows: int) -> None:
        """Take rows that the shadow had no time for."""
        with self._lock:
            self._dropped += rows

    def failed(self) -> None:
        """Take a call on which the shadow failed."""
        with self._lock:
            self._errors += 1

    def close(self) -> ShadowSums:
        """Return the sums since the last call, and begin anew."""
        with self._lock:
            total, absolute, square = self._moments
            differences = DifferenceSums(self._n, total, absolute, square, tuple(self._counts.tolist()))
            sums = ShadowSums(
                self._digest,
                self._rows,
                self._agreed,
                self._dropped,
                self._errors,
                _bounded(self._pairs),
                differences if self._counts.any() else None,
                _trimmed(self._latency[0]),
                _trimmed(self._latency[1]),
            )
            self._begin()
        return sums

    def _begin(self) -> None:
        self._rows = self._agreed = self._dropped = self._errors = self._n = 0
        self._pairs: Counter[tuple[str, str]] = Counter()
        self._moments = [0.0, 0.0, 0.0]
        self._counts = np.zeros(DIFFERENCES, np.int64)
        self._latency = np.zeros((2, LATENCIES), np.int64)

    def _add(self, gaps: Array) -> None:
        wide = np.abs(gaps)
        cells = np.where(np.isnan(wide), DIFFERENCES - 1, np.searchsorted(_EDGES, wide))
        self._counts += np.bincount(cells, minlength=DIFFERENCES)
        finite = gaps[np.isfinite(gaps) & (wide < 1e100)]  # whose square is a number too
        self._n += len(finite)
        terms = (finite.sum(), np.abs(finite).sum(), (finite * finite).sum())
        self._moments = [old + float(new) for old, new in zip(self._moments, terms, strict=True)]


def _both(active: ModelSchema, shadow: ModelSchema, role: str) -> tuple[str, str] | None:
    mine, other = active.output(role), shadow.output(role)
    return (mine.name, other.name) if mine is not None and other is not None else None


def _texts(values: Array) -> list[str]:
    column = values.reshape(len(values), -1)[:, 0].tolist()
    return [_printable(value if type(value) is str else category_text(value)) for value in column]


def _printable(text: str) -> str:
    short = text[:MAX_TEXT]
    return short if short.isprintable() else ascii(short)[:MAX_TEXT]


def _bounded(pairs: Counter[tuple[str, str]]) -> tuple[tuple[str, str, int], ...]:
    """Return the most frequent pairs; the others are put together."""
    told: Counter[tuple[str, str]] = Counter()
    for at, ((mine, other), count) in enumerate(pairs.most_common()):
        told[(mine, other) if at < MAX_PAIRS else (OTHER, OTHER if mine == other else DIFFERENT)] += count
    return tuple((mine, other, count) for (mine, other), count in told.items())


def _trimmed(counts: Sequence[int] | Array) -> tuple[int, ...]:
    used = np.flatnonzero(counts)
    return tuple(int(count) for count in counts[: used[-1] + 1]) if len(used) else ()
