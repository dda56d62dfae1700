"""Permutation importance: how much a model's answers suffer when one feature's values are shuffled among rows.

Breiman, Random Forests, 2001, section 10; the mean of three shuffles. With labels, the loss of accuracy or R²;
without, the share of answers that change, measured against the model's own. The shuffles are seeded, so equal inputs
give equal numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
Predict = Callable[[Mapping[str, Array]], Mapping[str, Array]]

MOST_ROWS = 1000
REPEATS = 3
_MOST_PREDICTIONS = 30_000


def permutation_importance(
    predict: Predict,
    tensors: Mapping[str, Array],
    features: Sequence[tuple[str, str, int]],
    *,
    truth: Array | None,
    seed: int = 0,
) -> tuple[dict[str, float], str]:
    """Measure every feature.

    Args:
        predict: The model.
        tensors: Input tensors [N, width]; at most `MOST_ROWS` rows are used, evenly spread.
        features: Name, tensor and column of each feature.
        truth: Labels or values of shape (N,), or none.
        seed: Of the shuffle.

    Returns:
        Importance by feature, never negative, and the name of the measure: ``accuracy``, ``r2``, ``label_agreement`` or
        ``output_agreement``.
    """
    rows = len(next(iter(tensors.values())))
    most = max(100, min(MOST_ROWS, _MOST_PREDICTIONS // (REPEATS * max(1, len(features)))))
    used = np.unique(np.linspace(0, rows - 1, min(rows, most)).astype(np.int64))
    part = {name: values[used] for name, values in tensors.items()}
    own = predict(part)
    labelled = None if truth is None else truth[used]
    measure, score = _measure(own, labelled)
    base = score(own)
    random = np.random.default_rng(seed)
    orders = [random.permutation(len(used)) for _ in range(REPEATS)]
    found = {}
    for name, tensor, column in features:
        losses = []
        for order in orders:
            shuffled = part[tensor].copy()
            columns = shuffled.reshape(len(shuffled), -1)  # a view: of [N] too
            columns[:, column] = columns[order, column]
            losses.append(base - score(predict({**part, tensor: shuffled})))
        found[name] = max(0.0, float(np.mean(losses)))
    return found, measure


def _measure(own: Mapping[str, Array], truth: Array | None) -> tuple[str, Callable[[Mapping[str, Array]], float]]:
    """Return the name and the function of a score of which more is better."""
    if "label" in own:
        label = own["label"]
        if truth is not None and truth.shape == label.shape:
            texts = truth.astype(np.int64) if label.dtype.kind in "iu" and truth.dtype.kind in "biuf" else truth
            return "accuracy", lambda found: float(np.mean(found["label"].astype(str) == texts.astype(str)))
        return "label_agreement", lambda found: float(np.mean(found["label"] == label))
    name = next(iter(own))
    flat = own[name].reshape(len(own[name]), -1).astype(np.float64)
    goal, measure = flat, "output_agreement"
    if name == "value" and truth is not None and truth.size == flat.size:
        goal, measure = truth.reshape(flat.shape).astype(np.float64), "r2"
    spread = float(((goal - goal.mean(axis=0)) ** 2).sum()) or 1.0

    def score(found: Mapping[str, Array]) -> float:
        return 1.0 - float(((found[name].reshape(flat.shape).astype(np.float64) - goal) ** 2).sum()) / spread

    return measure, score
