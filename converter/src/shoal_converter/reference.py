"""The bundle's reference: on which grids a device counts, and what the training data looked like on them.

Owns how the reference is put together; which streams a model has is in `streams`, what they have in common in
`joint_features`. A parent's grids are inherited for streams of the same name, tensor and kind, so that versions stay
comparable.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from shoal_converter.domain.importance import Predict, permutation_importance
from shoal_converter.evidence import Evidence
from shoal_converter.figures import quality_of, segments_of
from shoal_converter.sources.estimator import Task, label_texts, metrics_of
from shoal_converter.sources.tensor_roles import by_role
from shoal_protocol.bundle.schema import FieldSpec, OutputSpec
from shoal_protocol.profile.joint_fitting import joint_streams
from shoal_protocol.profile.profile import ProfileSpec, summarise
from shoal_protocol.profile.reference import ANSWERS, Reference, answers_of
from shoal_protocol.profile.streams import (
    inherited,
    input_streams,
    is_scalar,
    output_streams,
    uncounted_streams,
    uniquely_named,
)

Array = npt.NDArray[Any]

MAX_STREAMS = 256
_MAX_MEASURED = 2048
_CALIBRATION_BINS = 64
_MOST_BY_ANSWER = 50_000
"""Counts by answer; more would make a bundle large: 10 answers of 150 features are so many."""


def build_reference(
    *,
    task: Task,
    fields: Sequence[FieldSpec],
    outputs: Sequence[OutputSpec],
    predict: Predict,
    profiled: Evidence,
    judged: Evidence,
    groupings: Sequence[Sequence[str]] = (),
    parent: Reference | None = None,
) -> Reference:
    """Make the reference of a model from its sample, or better from data that it has not seen.

    Args:
        task: What the model is for.
        fields: Input features; of more than 256 the most important are counted, over 2,048 none is measured.
        outputs: Its outputs.
        predict: The ONNX model.
        profiled: The rows whose distribution the fleet is compared with.
        judged: The rows, labelled if possible, that all other figures are of.
        groupings: Columns of `judged` by which its figures are split, each one or several together.
        parent: The reference whose grids are inherited.

    Raises:
        SampleError: Figures by column are wanted, and there are no labels.
    """
    tensors, found = profiled.tensors, profiled.found
    judged = replace(judged, found=by_role(judged.found, outputs))
    features = [(f.name, f.tensor, f.column or 0) for f in fields if is_scalar(f, tensors[f.tensor])]
    features = features if len(features) <= _MAX_MEASURED else []
    truth = judged.truth if task != "other" else None  # a ranker's values are no such labels
    importance, metric = permutation_importance(
        lambda rows: by_role(predict(rows), outputs), judged.tensors, features, truth=truth
    )
    counted = _counted(fields, importance)
    streams = [stream for field in counted for stream in input_streams(field, tensors[field.tensor])]
    streams += uncounted_streams(fields, counted, tensors) + output_streams(outputs, found, rows=profiled.rows)
    if parent is not None:
        streams = [inherited(stream, parent.spec) for stream in streams]
    streams = uniquely_named(streams)
    joint = joint_streams(streams, tensors, parent=parent.spec if parent else None)
    inputs, answers = ([s for s in streams if s.kind == kind] for kind in ("input", "output"))
    spec = ProfileSpec((*inputs, *joint, *answers))
    used = {stream.tensor for stream in spec.streams}
    rows = {name: values for name, values in {**tensors, **found}.items() if name in used}
    return Reference(
        spec,
        summarise(spec, rows),
        importance={field.name: importance[field.name] for field in counted if field.name in importance},
        metric=metric,
        metrics={} if judged.truth is None else metrics_of(task, judged.truth, judged.found),
        calibration=_calibration(outputs, judged.found, judged.truth),
        validation=profiled.kind == "validation",
        quality=quality_of(judged, outputs, task=task),
        segments=segments_of(judged, groupings, task=task),
        sources=_sources(profiled, judged, split=bool(groupings)),
        by_answer=_by_answer(spec, rows),
    )


def _by_answer(spec: ProfileSpec, rows: Mapping[str, Array]) -> tuple[tuple[int, ...], ...] | None:
    """Count the rows of each answer by themselves, so that another mix of answers can be told from other values."""
    answers = answers_of(spec)
    if len(answers) < 2 or len(answers) * spec.size > _MOST_BY_ANSWER:
        return None
    stream = spec.streams[spec.index[ANSWERS]]
    said = stream.grid.cells_of(rows[stream.tensor]).reshape(-1) - 2
    parts = ({name: np.asarray(x)[said == at] for name, x in rows.items()} for at in range(len(answers)))
    return tuple(tuple(summarise(spec, part).cells.tolist()) for part in parts)


def _sources(profiled: Evidence, judged: Evidence, *, split: bool) -> dict[str, str]:
    sources: dict[str, str] = {"profile": profiled.kind, "importance": judged.kind}
    if judged.truth is not None:
        sources["metrics"] = judged.kind
    return {**sources, "segments": judged.kind} if split else sources


def _counted(fields: Sequence[FieldSpec], importance: Mapping[str, float]) -> list[FieldSpec]:
    if len(fields) <= MAX_STREAMS:
        return list(fields)
    ranked = sorted(range(len(fields)), key=lambda at: (-importance.get(fields[at].name, 0.0), at))[:MAX_STREAMS]
    return [fields[at] for at in sorted(ranked)]


def _calibration(
    outputs: Sequence[OutputSpec], found: Mapping[str, Array], truth: Array | None
) -> tuple[float | None, ...] | None:
    """Return for each of 64 bins of confidence the share of correct answers, or none where no row fell."""
    label = found.get("label")
    probabilities = next((found[o.name] for o in outputs if o.role == "probabilities"), None)
    if truth is None or label is None or probabilities is None or probabilities.ndim != 2 or truth.shape != label.shape:
        return None
    right = label_texts(truth, label) == label.astype(str)
    bins = np.minimum((probabilities.max(axis=1) * _CALIBRATION_BINS).astype(int), _CALIBRATION_BINS - 1)
    counts = np.bincount(bins, minlength=_CALIBRATION_BINS)
    hits = np.bincount(bins, weights=right, minlength=_CALIBRATION_BINS)
    return tuple(float(hit / n) if n else None for hit, n in zip(hits, counts, strict=True))
