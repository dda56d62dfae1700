"""Proving a model over named tensors: it must answer as its source does, and for each row as for that row alone.

Owns the comparison on the sample and on validation data. Rows are computed alone too, since devices answer them in
batches of any size. Leaves what a model is to `sources.tensor_model`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from shoal_converter.attempts import Attempt
from shoal_converter.conversion import Conversion, Proof
from shoal_converter.domain.parity import ParityReport, Tolerance, compare
from shoal_converter.errors import ParityError, UnsupportedModelError
from shoal_converter.onnx_runtime import Runner, RuntimeRefusedError
from shoal_converter.sample import Sample
from shoal_converter.sources.tensor_model import TensorModel
from shoal_protocol.profile.quality import DataKind

Array = npt.NDArray[Any]

_ALONE = 8


def converted(model: TensorModel, data: Any, *, tolerance: Tolerance) -> tuple[TensorModel, Sample, Conversion]:
    """Prove the graph on the sample; return the model with the meaning of its outputs, the rows, and the proof.

    Raises:
        SampleError: The sample doesn't fit.
        UnsupportedModelError: The graph doesn't run, or gives outputs that don't lie row by row.
        ParityError: It answers otherwise than the source, or otherwise for a row alone.
    """
    sample = model.sample(data)
    source = model.run(sample.tensors)
    runner = _runner(model)
    found = _found(runner, sample.tensors)
    _check_rows(found, sample.rows)
    model = model.known(found)
    report = _compared(model, source, found, tolerance)
    if not report.passed:
        _check_steady(model, source, model.run(sample.tensors), tolerance)
        raise _parity(model, report)
    _check_alone(model, runner, sample, found, tolerance)
    double = any(column.dtype == "float64" for column in sample.columns)
    floats: Literal["float32", "float64"] = "float64" if double else "float32"
    attempt = Attempt(floats, source=model.framework)
    return model, sample, Conversion(model.onnx, attempt, report, model.outputs, source, found)


def proven(model: TensorModel, data: Any, conversion: Conversion) -> Proof:
    """Prove a converted model on further rows.

    Raises:
        SampleError: They don't fit.
        ParityError: It answers otherwise there; its data says ``validation``.
    """
    sample = model.sample(data)
    found = _found(_runner(model), sample.tensors)
    report = _compared(model, model.run(sample.tensors), found, conversion.report.tolerance)
    if not report.passed:
        raise _parity(model, report, data="validation")
    return Proof(sample, report, found)


def _runner(model: TensorModel) -> Runner:
    try:
        return Runner(model.onnx)
    except RuntimeRefusedError as error:
        raise _does_not_run(error) from error


def _found(runner: Runner, tensors: Mapping[str, Array]) -> dict[str, Array]:
    try:
        return runner.run(tensors, stacked=False)
    except RuntimeRefusedError as error:
        raise _does_not_run(error) from error


def _does_not_run(error: RuntimeRefusedError) -> UnsupportedModelError:
    return UnsupportedModelError(
        "graph",
        f"as devices would run it, {error.message}",
        "if its number of rows is fixed, export it with a free first axis (dynamic axes); else export it anew",
    )


def _check_rows(found: Mapping[str, Array], rows: int) -> None:
    for name, values in found.items():
        if values.ndim == 0 or len(values) != rows:
            raise UnsupportedModelError(
                f"output {name}",
                f"its shape is {values.shape} for {rows} rows, so it does not say something of each row",
                "leave this output out when exporting, or export it with rows as its first axis",
            )


def _compared(
    model: TensorModel, source: Mapping[str, Array], found: Mapping[str, Array], tolerance: Tolerance
) -> ParityReport:
    label = next((output.name for output in model.outputs if output.role == "label"), None)
    texts = {output.name for output in model.outputs if output.dtype == "string"}

    def named(outputs: Mapping[str, Array]) -> dict[str, Array]:
        return {"label" if name == label or name in texts else name: outputs[name] for name in found if name in outputs}

    return compare(named(source), named(found), tolerance)


def _check_steady(
    model: TensorModel, first: Mapping[str, Array], second: Mapping[str, Array], tolerance: Tolerance
) -> None:
    """Tell a source that answers by chance from a conversion that is wrong."""
    if not _compared(model, first, second, tolerance).passed:
        raise UnsupportedModelError(
            f"{model.framework} graph",
            "the source itself answers otherwise each time that it is asked",
            "export it for inference (eval mode: without dropout), and without sampling inside",
        )


def _check_alone(
    model: TensorModel, runner: Runner, sample: Sample, found: Mapping[str, Array], tolerance: Tolerance
) -> None:
    rows = np.unique(np.linspace(0, sample.rows - 1, min(_ALONE, sample.rows)).astype(np.int64))
    singles = [_found(runner, sample.take(row)) for row in rows.reshape(-1, 1)]
    alone = {name: np.concatenate([single[name] for single in singles]) for name in found}
    report = _compared(model, {name: values[rows] for name, values in found.items()}, alone, tolerance)
    if not report.passed:
        raise UnsupportedModelError(
            "graph",
            f"its answer for a row depends on the rows beside it: {report.sentence()}",
            "export the model for inference (eval mode: normalisation with stored figures), rows as first axis",
        )


def _parity(model: TensorModel, report: ParityReport, *, data: DataKind = "sample") -> ParityError:
    where = " on the validation data" if data == "validation" else ""
    step = f"{model.framework} graph"
    return ParityError(
        f"the bundle's model differs from the {model.framework} model as given{where}: {report.sentence()}",
        step=step,
        report={**report.as_json(), "step": step, "data": data},
        hint="if this is near enough, state it by --rtol and --atol; else export it with IR <= 10 and opset <= 21",
        data=data,
    )
