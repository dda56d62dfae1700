"""The bundle's reference: on which grids a device counts, and what the training data looked like on them.

Owns which streams a model has: one for each input feature (few distinct integers and texts as categories, all else on a
numeric grid), and of the outputs the label's categories, the confidence or score, or the value. A parent's grids are
inherited for streams of the same name, tensor and kind, so that versions stay comparable.
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
from shoal_protocol.bundle.schema import FieldSpec, OutputSpec
from shoal_protocol.profile.grid import (
    CategoricalGrid,
    Grid,
    NumericGrid,
    fit_categorical,
    fit_numeric,
    unit_interval_grid,
)
from shoal_protocol.profile.profile import ProfileSpec, Stream, derived, summarise
from shoal_protocol.profile.reference import Reference

Array = npt.NDArray[Any]

MAX_STREAMS = 256
_MAX_MEASURED = 2048
_MAX_INTEGER_CATEGORIES = 32
_CALIBRATION_BINS = 64


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
    features = [(field.name, field.tensor, field.column or 0) for field in fields]
    if len(features) > _MAX_MEASURED:
        features = []
    importance, metric = permutation_importance(predict, judged.tensors, features, truth=judged.truth)
    counted = _counted(fields, importance)
    streams = [_input_stream(field, tensors) for field in counted] + _output_streams(outputs, found)
    if parent is not None:
        streams = [_inherited(stream, parent.spec) for stream in streams]
    spec = ProfileSpec(tuple(_unique(streams)))
    used = {stream.tensor for stream in spec.streams}
    profile = summarise(spec, {name: values for name, values in {**tensors, **found}.items() if name in used})
    return Reference(
        spec,
        profile,
        importance={field.name: importance[field.name] for field in counted if field.name in importance},
        metric=metric,
        metrics={} if judged.truth is None else metrics_of(task, judged.truth, judged.found),
        calibration=_calibration(outputs, judged.found, judged.truth),
        validation=profiled.kind == "validation",
        quality=quality_of(judged, outputs, task=task),
        segments=segments_of(judged, groupings, task=task),
        sources=_sources(profiled, judged, split=bool(groupings)),
    )


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


def _input_stream(field: FieldSpec, tensors: Mapping[str, Array]) -> Stream:
    values = tensors[field.tensor][:, field.column or 0]
    return Stream(field.name, "input", _input_grid(values), field.tensor, field.column)


def _input_grid(values: Array) -> Grid:
    if values.dtype.kind in "OUS":
        return fit_categorical(values)
    if values.dtype.kind in "iu" and len(np.unique(values)) <= _MAX_INTEGER_CATEGORIES:
        return fit_categorical(values)
    return fit_numeric(values)


def _output_streams(outputs: Sequence[OutputSpec], found: Mapping[str, Array]) -> list[Stream]:
    streams: list[Stream] = []
    for output in outputs:
        values = found[output.name]
        if output.role == "label" and values.ndim == 1:
            grid = CategoricalGrid(tuple(sorted(output.classes))) if output.classes else fit_categorical(values)
            streams.append(Stream("label", "output", grid, output.name))
        elif output.role == "probabilities" and values.ndim == 2:
            streams.append(Stream("confidence", "output", unit_interval_grid(), output.name, None, "row_max"))
            if values.shape[1] == 2:
                streams.append(Stream("score", "output", unit_interval_grid(), output.name, 1))
        elif output.role == "scores" and values.ndim == 2:
            derive: Any = "value" if values.shape[1] == 1 else "row_max"
            column = 0 if values.shape[1] == 1 else None
            streams.append(_numeric("score", output.name, column, derive, values))
        elif output.role in {"value", "other"} and values.ndim == 2:
            names = ["value"] if values.shape[1] == 1 else [f"value{at}" for at in range(min(values.shape[1], 16))]
            streams += [_numeric(name, output.name, at, "value", values) for at, name in enumerate(names)]
    return streams


def _numeric(name: str, tensor: str, column: int | None, derive: Any, values: Array) -> Stream:
    raw = Stream(name, "output", NumericGrid(0.0, 1.0), tensor, column, derive)
    return replace(raw, grid=fit_numeric(derived(raw, values)))


def _inherited(stream: Stream, parent: ProfileSpec) -> Stream:
    at = parent.index.get(stream.name)
    if at is None:
        return stream
    old = parent.streams[at]
    same = (old.kind, old.tensor, old.column, old.derive) == (stream.kind, stream.tensor, stream.column, stream.derive)
    return replace(stream, grid=old.grid) if same and type(old.grid) is type(stream.grid) else stream


def _unique(streams: Sequence[Stream]) -> list[Stream]:
    """Give an output's stream another name where a feature has the same."""
    taken: set[str] = set()
    out = []
    for stream in streams:
        name = stream.name
        while name in taken:
            name = f"output.{name}"
        taken.add(name)
        out.append(replace(stream, name=name))
    return out


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
