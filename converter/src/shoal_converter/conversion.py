"""One conversion: a fitted estimator and a sample in, canonical ONNX that provably answers alike out.

Owns the judgement. `attempts` says in which ways to export; the first that passes parity on the sample is the result.
When none does and the sample holds numbers that float32 can't, inputs in double are tried. None passes: the best one's
report goes into the error, with the first step at which it parts from the source.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx

from shoal_converter.attempts import Attempt, attempts, compares_in_double, flat_steps
from shoal_converter.domain.parity import ParityReport, Tolerance, compare
from shoal_converter.errors import ParityError, SampleError, UnsupportedModelError
from shoal_converter.onnx_graph.canonical import canonical_onnx
from shoal_converter.onnx_graph.interface import (
    InnerInput,
    OuterInput,
    OuterOutput,
    Shaping,
    with_true_output_types,
    wrap,
)
from shoal_converter.onnx_graph.joining import join
from shoal_converter.onnx_runtime import Runner, RuntimeRefusedError
from shoal_converter.probing import probes
from shoal_converter.rounding import culprit, lost_precision
from shoal_converter.sample import Column, Sample, make_sample
from shoal_converter.sources import inexact_settings
from shoal_converter.sources.estimator import Answer, answers, last_step, refuse_input
from shoal_converter.sources.middle import as_transformer
from shoal_converter.sources.sklearn_export import export
from shoal_protocol.bundle.schema import OutputSpec
from shoal_protocol.profile.quality import DataKind

Array = npt.NDArray[Any]
Options = Mapping[int, Mapping[str, Any]]

_PROBE_ROWS = 32
_FEW_ATTEMPTS = 2


@dataclass(frozen=True, eq=False)
class Conversion:
    """A converted model that passed parity.

    Attributes:
        onnx: Canonical bytes.
        attempt: How it was exported.
        report: The comparison.
        outputs: Name, type, shape, role and classes of each output.
        source: The source's outputs on the sample.
        found: The ONNX model's outputs on the sample.
    """

    onnx: bytes
    attempt: Attempt
    report: ParityReport
    outputs: tuple[OutputSpec, ...]
    source: Mapping[str, Array]
    found: Mapping[str, Array]


@dataclass(frozen=True, eq=False)
class Proof:
    """A converted model compared with its source on further rows.

    Attributes:
        sample: The rows in both forms.
        report: The comparison.
        found: The ONNX model's outputs on them.
    """

    sample: Sample
    report: ParityReport
    found: Mapping[str, Array]


def prove(model: Any, sample: Sample, conversion: Conversion, *, options: Options | None = None) -> Proof:
    """Compare a conversion with its source on rows that it was not made from.

    Raises:
        ParityError: It answers otherwise there; its data says ``validation``.
        SampleError: The source model refuses the rows.
    """
    source = {answer.name: answer.values for answer in answers(model, sample.source)}
    found = Runner(conversion.onnx).run(sample.tensors)
    report = compare(source, found, conversion.report.tolerance)
    if not report.passed:
        failed = replace(conversion, report=report, source=source, found=found)
        raise _parity_error(model, sample, failed, options, data="validation")
    return Proof(sample, report, found)


def convert_rows(
    model: Any,
    data: Any,
    *,
    options: Options | None = None,
    tolerance: Tolerance | None = None,
    float64_inputs: bool = False,
    progress: Callable[[str], None] | None = None,
) -> tuple[Sample, Conversion]:
    """Convert on rows as a caller gave them, with float32 inputs if they suffice, else with double ones.

    Args:
        model: scikit-learn estimator or pipeline.
        data: As `make_sample` takes it.
        options: skl2onnx's, ``{id(estimator): {...}}``.
        tolerance: What counts as equal.
        float64_inputs: Take double inputs from the start.
        progress: Called with one line when float32 does not suffice.

    Raises:
        UnsupportedModelError: No attempt gives a graph that runs.
        ParityError: Every graph answers otherwise than the source.
        SampleError: The sample doesn't fit the model.
    """
    refuse_input(model)
    if float64_inputs:
        double = make_sample(data, model=model, float_dtype="float64")
        return double, convert(model, double, options=options, tolerance=tolerance)
    sample = make_sample(data, model=model)
    feature = lost_precision(sample)
    if feature is None:
        return sample, convert(model, sample, options=options, tolerance=tolerance)
    if compares_in_double(model):
        if progress is not None:
            progress(f"taking float64 inputs: float32 rounds {feature!r}, and the model compares it with thresholds")
        double = make_sample(data, model=model, float_dtype="float64")
        return double, convert(model, double, options=options, tolerance=tolerance)
    try:  # what float32 can't hold is rarely cured by the later attempts, which cost as much as the first
        return sample, convert(model, sample, options=options, tolerance=tolerance, most=_FEW_ATTEMPTS)
    except ParityError:
        if progress is not None:
            progress(f"float32 inputs give other answers ({feature!r} loses most precision); trying float64 inputs")
    double = make_sample(data, model=model, float_dtype="float64")
    return double, convert(model, double, options=options, tolerance=tolerance)


def convert(
    model: Any,
    sample: Sample,
    *,
    options: Options | None = None,
    tolerance: Tolerance | None = None,
    most: int | None = None,
) -> Conversion:
    """Convert a fitted estimator and prove it on the sample.

    Args:
        model: scikit-learn estimator or pipeline.
        sample: Rows in both forms.
        options: skl2onnx's, ``{id(estimator): {...}}``.
        tolerance: What counts as equal.
        most: Stop when so many graphs ran and none was equal.

    Raises:
        UnsupportedModelError: No attempt gives a graph that runs.
        ParityError: Every graph answers otherwise than the source.
        SampleError: The source model itself refuses the sample.
    """
    tolerance = tolerance or Tolerance()
    truth = answers(model, sample.source)
    best: Conversion | None = None
    refusal: UnsupportedModelError | None = None
    ran = 0
    for attempt in attempts(model, sample):
        try:
            conversion = _try(model, sample, truth, attempt, options=options, tolerance=tolerance)
        except UnsupportedModelError as error:
            refusal = refusal or error
            continue
        if conversion.report.passed:
            conversion = _proven(model, sample, conversion)
        if conversion.report.passed:
            return conversion
        ran += 1
        if best is None or conversion.report.rows_off < best.report.rows_off:
            best = conversion
        if ran == most:
            break
    if best is None:
        raise refusal or UnsupportedModelError(type(model).__name__, "no way to export it", "report it with the model")
    raise _parity_error(model, sample, best, options)


def _proven(model: Any, sample: Sample, conversion: Conversion) -> Conversion:
    """Return the conversion with the first report on rows made from the sample's that it fails, or as it is."""
    runner = Runner(conversion.onnx)
    for probe in probes(sample):
        try:
            truth = answers(model, probe.source)
        except SampleError:
            continue
        source = {answer.name: answer.values for answer in truth}
        try:
            found = runner.run(probe.tensors)
        except RuntimeRefusedError:
            found = {}
        report = compare(source, found, conversion.report.tolerance)
        if not report.passed:
            return replace(conversion, report=replace(report, unseen=True))
    return conversion


def _inner_inputs(sample: Sample, attempt: Attempt) -> list[InnerInput]:
    def outer(column: Column) -> OuterInput:
        return OuterInput(column.tensor, column.dtype, sample.tensors[column.tensor].shape[1])

    if sample.form != "frame":
        column = sample.columns[0]
        return [InnerInput("rows", attempt.inner_dtype(column.dtype), (outer(column),))]
    if attempt.joined:
        dtype = attempt.inner_dtype(sample.columns[0].dtype)
        return [InnerInput("rows", dtype, tuple(outer(column) for column in sample.columns))]
    return [InnerInput(column.name, attempt.inner_dtype(column.dtype), (outer(column),)) for column in sample.columns]


def _inner_feed(sample: Sample, inputs: list[InnerInput], rows: int) -> dict[str, Array]:
    feed = {}
    for inner in inputs:
        parts = [sample.tensors[part.name][:rows] for part in inner.parts]
        dtype = object if inner.dtype == "string" else inner.dtype
        feed[inner.name] = np.concatenate([part.astype(dtype) for part in parts], axis=1)
    return feed


def _try(
    model: Any,
    sample: Sample,
    truth: tuple[Answer, ...],
    attempt: Attempt,
    *,
    options: Options | None,
    tolerance: Tolerance,
) -> Conversion:
    inputs = _inner_inputs(sample, attempt)
    widths = [(inner.name, inner.dtype, sum(part.width for part in inner.parts)) for inner in inputs]
    exported = _export_mixed(model, widths, options) if attempt.floats == "mixed" else export(model, widths, options)
    exported = with_true_output_types(exported)
    try:
        probe = Runner(exported.SerializeToString())
        inputs = [replace(inner, name=name) for inner, name in zip(inputs, probe.inputs, strict=True)]
        shapes = probe.run(_inner_feed(sample, inputs, _PROBE_ROWS))
        outputs = [
            _outer_output(
                answer, at, shapes[probe.outputs[at]], probe.output_types[at], rows=min(_PROBE_ROWS, sample.rows)
            )
            for at, answer in enumerate(truth[: len(probe.outputs)])
        ]
        raw = canonical_onnx(wrap(exported, inputs, outputs))
        found = Runner(raw).run(sample.tensors)
    except RuntimeRefusedError as error:
        raise UnsupportedModelError(
            type(last_step(model)).__name__,
            f"its converted form ({attempt.name}) does not run: {error.message}",
            "replace this step, or report it with the model",
        ) from error
    source = {answer.name: answer.values for answer in truth}
    report = compare(source, found, tolerance)
    specs = tuple(_output_spec(answer, found[answer.name]) for answer in truth if answer.name in found)
    return Conversion(raw, attempt, report, specs, source, found)


def _export_mixed(model: Any, widths: list[tuple[str, str, int]], options: Options | None) -> onnx.ModelProto:
    """Export the steps before the last in double, the last in float32, and join them."""
    from sklearn.pipeline import Pipeline  # noqa: PLC0415 - heavy

    *before, (_, last) = flat_steps(model)
    first = export(as_transformer(Pipeline(before)), widths, options)
    second = export(last, [("rows", "float32", _width(first))], options)
    return join(first, second)


def _width(model: onnx.ModelProto) -> int:
    """Return the number of columns that a graph of preprocessing gives, none where it isn't stated."""
    dims = model.graph.output[0].type.tensor_type.shape.dim
    return int(dims[1].dim_value) if len(dims) > 1 and dims[1].dim_value else 0


def _outer_output(answer: Answer, position: int, probe: Array, onnx_type: str, *, rows: int) -> OuterOutput:
    shaping: Shaping = "keep"
    width = probe.shape[1] if probe.ndim == 2 else None
    if onnx_type.startswith("seq("):
        shaping = "stack"
    elif answer.values.ndim == 1 and answer.name == "label":
        shaping = "flat"
    elif answer.values.ndim == 1:
        shaping = "second_column" if probe.size == 2 * rows and probe.ndim == 2 else "column"
    elif probe.ndim == 3:
        shaping = "cube"
    if answer.name == "label":
        text = "string" in onnx_type
        return OuterOutput(answer.name, position, "string" if text else "int64", shaping, width)
    return OuterOutput(answer.name, position, "float32", shaping, width)


def _output_spec(answer: Answer, found: Array) -> OutputSpec:
    dtype: Any = "string" if found.dtype.kind in "OUS" else str(found.dtype)
    shape: tuple[int | None, ...] = (None, *found.shape[1:])
    if found.ndim == 3:
        shape = (found.shape[0], None, found.shape[2])
    return OutputSpec(name=answer.name, dtype=dtype, shape=shape, role=answer.role, classes=answer.classes)


def _parity_error(
    model: Any, sample: Sample, best: Conversion, options: Options | None, *, data: DataKind = "sample"
) -> ParityError:
    step = first_diverging_step(model, sample, best, options)
    where = " on rows made by mixing the sample's" if best.report.unseen else ""
    if data == "validation":
        where = " on the validation data"
    loss = None if best.report.unseen else culprit(model, sample, best.source, best.report.tolerance)
    why = "" if loss is None else f". {loss.sentence()}"
    report = {**best.report.as_json(), "step": step, "attempt": best.attempt.name, "data": data}
    return ParityError(
        f"the ONNX model differs from its source at {step}{where}: {best.report.sentence()}{why}",
        step=step,
        report=report | ({} if loss is None else {"feature": loss.feature}),
        hint=inexact_settings.advice(model, sample.source) or _advice(best),
        data=data,
    )


def first_diverging_step(model: Any, sample: Sample, failed: Conversion, options: Options | None) -> str:
    """Name the first step of a pipeline after which the two differ, by converting its prefixes.

    The steps before the last are compared by their transformed rows; when all of them are equal, it is the last.
    """
    pipeline = getattr(model, "best_estimator_", model)
    if not hasattr(pipeline, "steps"):
        return type(last_step(model)).__name__
    tolerance = failed.report.tolerance
    for at in range(1, len(pipeline.steps)):
        prefix = pipeline[:at]
        name, step = pipeline.steps[at - 1]
        try:
            truth = answers(prefix, sample.source)
            part = _try(prefix, sample, truth, failed.attempt, options=options, tolerance=tolerance)
        except Exception:  # noqa: BLE001 - a diagnosis must not hide the fault that it explains
            return f"{name} ({type(step).__name__}) or after it"
        if not (part.report.passed and _proven(prefix, sample, part).report.passed):
            return f"step {name} ({type(step).__name__})"
    name, step = pipeline.steps[-1]
    return f"step {name} ({type(step).__name__})"


def _advice(best: Conversion) -> str:
    """Say what cures it, as options to add to the command: a stated tolerance when little is off, else another step."""
    report = best.report
    only_labels = all(output.name == "label" or not output.rows_off for output in report.outputs)
    comparable = not any(output.problem for output in report.outputs)
    if comparable and only_labels and report.label_flips <= report.rows * 0.01:
        share = -(-report.label_flips * 10000 // report.rows) / 100
        return (
            f"if so many flips are acceptable, add --max-label-flips {share:g}% "
            f"(in Python Tolerance(max_label_flips={share / 100:g})); else replace that step"
        )
    if comparable and not report.label_flips and report.max_rel < 0.01:
        near = _enough(report)
        return (
            f"if this is near enough, add --rtol {near[0]:g} --atol {near[1]:g} "
            f"(in Python Tolerance({near[0]:g}, {near[1]:g})); else replace that step"
        )
    return "its converter is not exact for these settings: replace that step, or leave it out"


def _enough(report: ParityReport) -> tuple[float, float]:
    """Return the relative and absolute tolerance, one digit rounded up, within which every number lies."""
    return _rounded_up(report.max_rel), _rounded_up(report.max_abs)


def _rounded_up(value: float) -> float:
    if value <= 0:
        return 0.0
    unit = 10.0 ** np.floor(np.log10(value))
    return float(f"{np.ceil(value / unit + 1e-9) * unit:.1g}")
