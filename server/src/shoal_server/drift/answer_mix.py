"""Whether another mix of a classifier's answers explains that its inputs drift: more of one class, or another sensor.

When more of one class comes, all features that tell classes apart move, and no sensor is to blame. A bundle counts the
reference's rows of each answer by themselves; what the change of the answers' shares lets expect of each feature's mean
contrasts is compared with what was seen. Pure.

A sensor that ages changes the answers as well, so it is not enough that one feature moved as expected: most of what
moved in all of them together must be explained.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np

from shoal_protocol.profile.reference import ANSWERS, Reference, answers_of
from shoal_server.drift.scores import CONTRASTS, Basis
from shoal_server.statistics.layout import Floats
from shoal_server.statistics.words import percent

MIX_OF_ANSWERS = "mix of answers"
"""With these words a cause begins that is nobody's fault."""

_LEAST_MOVED = 0.08
"""Share of rows whose answer must be another one, or the mix explains nothing."""

_LEAST_ROWS = 20
_TOGETHER, _ALONE = 0.6, 0.5


@dataclass(frozen=True, eq=False)
class AnswerMix:
    """What a bundle knows of its answers; K of them, F streams.

    Attributes:
        answers: Their names.
        cells: Where they are counted.
        scores: Mean contrasts of the reference's rows of each answer, shape (K, F, 4).
        known: Of how many rows, shape (K,).
    """

    answers: tuple[str, ...]
    cells: slice
    scores: Floats
    known: Floats

    @classmethod
    def of(cls, reference: Reference, basis: Basis) -> AnswerMix | None:
        """Read a reference; none where it doesn't count by answer."""
        if reference.by_answer is None:
            return None
        spec = reference.spec
        whole = spec.slice(ANSWERS)
        where = slice(whole.start + 2, whole.stop)
        counts = np.array(reference.by_answer, dtype=np.int64)
        rows = counts[:, where].sum(axis=1).astype(np.float64)
        return cls(answers_of(spec), where, basis.scores(counts)[..., :CONTRASTS], rows)

    def explained(self, before: Floats, now: Floats, *, basis: Basis, drifting: Collection[int]) -> Explained | None:
        """Compare what the mix of answers lets expect with what was seen.

        Args:
            before: Counts or shares when nothing was wrong, shape (size,).
            now: The same of the scope that changed.
            basis: Of the bundle.
            drifting: Places of the input streams that drift there; all of them are explained together.

        Returns:
            None where the mix explains nothing.
        """
        mixes = [side[self.cells] / max(float(side[self.cells].sum()), 1e-300) for side in (before, now)]
        moved = np.where(self.known >= min(_LEAST_ROWS, self.known.max()), mixes[1] - mixes[0], 0.0)
        if np.abs(moved).sum() / 2 < _LEAST_MOVED or not drifting:
            return None
        places = sorted(drifting)
        old, new = basis.scores(np.stack([before, now]))[..., :CONTRASTS]
        seen, expected = new - old, np.tensordot(moved, self.scores, axes=1)
        left = ((seen - expected)[places] ** 2).sum() / max(float((seen[places] ** 2).sum()), 1e-300)
        if left > 1 - _TOGETHER:
            return None
        most = np.argsort(-np.abs(moved))[:2]
        first, second = (
            f"{self.answers[at]!r} went from {percent(mixes[0][at])} to {percent(mixes[1][at])}" for at in most
        )
        words = f"{MIX_OF_ANSWERS}: {first}, {second}, and inputs moved as that lets expect"
        return Explained(seen, expected, words)


@dataclass(frozen=True, eq=False)
class Explained:
    """What was seen, and what the mix of answers lets expect; contrasts of shape (F, 4), and the cause in words."""

    seen: Floats
    expected: Floats
    words: str

    def cause(self, stream: int) -> str:
        """Return the words where a stream moved as the mix lets expect; empty where it did not."""
        seen, expected = self.seen[stream], self.expected[stream]
        left = float(((seen - expected) ** 2).sum())
        return self.words if left < (1 - _ALONE) * float((seen**2).sum()) else ""
