"""A model's figures on labelled rows: from outputs and labels to the counts of `domain.quality`.

Owns which outputs a figure needs. A model with several outputs has none, nor has one that neither classifies nor
regresses.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from shoal_converter.domain.quality import classified, measured, segments
from shoal_converter.errors import SampleError
from shoal_converter.evidence import Evidence
from shoal_converter.sources.estimator import Task, label_texts
from shoal_protocol.bundle.schema import OutputSpec
from shoal_protocol.profile.quality import Quality, Segment

Array = npt.NDArray[Any]


def quality_of(evidence: Evidence, outputs: Sequence[OutputSpec], *, task: Task) -> Quality | None:
    """Return how right the model was, or none where labels or single outputs are missing."""
    texts = _labels(evidence, task)
    if texts is not None:
        spec = next(output for output in outputs if output.role == "label")
        name = next((output.name for output in outputs if output.role == "probabilities"), None)
        probabilities = None if name is None else evidence.found[name]
        classes = spec.classes or tuple(sorted(set(texts[1].tolist())))
        wide = probabilities is not None and probabilities.ndim == 2 and probabilities.shape[1] == len(classes)
        return classified(
            truth=texts[0],
            label=texts[1],
            classes=classes,
            probabilities=probabilities if wide else None,
            data=evidence.kind,
        )
    values = _values(evidence, task)
    return None if values is None else measured(truth=values[0], value=values[1], data=evidence.kind)


def segments_of(evidence: Evidence, groupings: Sequence[Sequence[str]], *, task: Task) -> tuple[Segment, ...]:
    """Return the accuracy, or mean absolute error, of each part of the rows.

    Raises:
        SampleError: There are no labels to judge by, or the model's answers can't be judged row by row.
    """
    if not groupings:
        return ()
    texts, values = _labels(evidence, task), _values(evidence, task)
    if texts is not None:
        metric, scores = "accuracy", (texts[0] == texts[1]).astype(np.float64)
    elif values is not None:
        metric, scores = "mean_absolute_error", np.abs(values[1] - values[0])
    else:
        names = ", ".join(name for names in groupings for name in names)
        raise SampleError(
            f"figures by {names} need labels or values of one output to judge by", hint="name them by --target (or y)"
        )
    return segments(evidence.columns, groupings, metric=metric, scores=scores)


def _labels(evidence: Evidence, task: Task) -> tuple[Array, Array] | None:
    """Return true and predicted labels as texts, or none."""
    label, truth = evidence.found.get("label"), evidence.truth
    if task != "classification" or truth is None or label is None or label.ndim != 1 or truth.shape != label.shape:
        return None
    return label_texts(truth, label), label.astype(str)


def _values(evidence: Evidence, task: Task) -> tuple[Array, Array] | None:
    """Return true and predicted values of shape (N,), or none."""
    value, truth = evidence.found.get("value"), evidence.truth
    if task != "regression" or truth is None or value is None or value.size != truth.size or truth.ndim != 1:
        return None
    return truth.astype(np.float64), value.reshape(-1).astype(np.float64)
