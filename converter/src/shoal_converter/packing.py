"""From a trained model and a sample to a verified, reproducible bundle: the shell around the pure parts.

Owns the order of work: convert and prove, choose golden rows, make the reference, write the documents, compute the
digest, state where it comes from. Everything inside the digest is made from the arguments alone; time, host and paths
go into the statements beside it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import onnx

from shoal_converter.bundle import Bundle
from shoal_converter.card import model_card
from shoal_converter.contract import agreed
from shoal_converter.conversion import Conversion, Options, Proof, convert_rows, prove
from shoal_converter.domain.golden import golden_rows
from shoal_converter.domain.parity import Tolerance
from shoal_converter.errors import ParityError, SampleError
from shoal_converter.evidence import Evidence, as_fed
from shoal_converter.lineage import gather, measurement_statement, parity_statement, provenance_statement
from shoal_converter.onnx_runtime import Runner
from shoal_converter.reference import build_reference
from shoal_converter.sample import Sample, make_sample
from shoal_converter.sbom import sbom_statement
from shoal_converter.sources.estimator import framework_of, missing_allowed, task_of, unknown_allowed
from shoal_converter.sources.kinds import checked_model, rows_in
from shoal_converter.sources.tensor_model import TensorModel
from shoal_converter.tensor_proof import converted, proven
from shoal_converter.variants import Built, build_variants, cost_of, here, variant_line
from shoal_protocol.bundle.layout import (
    BUNDLE_JSON,
    LICENSE,
    MODEL_ONNX,
    README,
    REFERENCE_JSON,
    SCHEMA_JSON,
    golden_input,
    golden_output,
)
from shoal_protocol.bundle.schema import BundleInfo, Golden, ModelSchema, Runtime, Variant, encode_document
from shoal_protocol.bundle.tensors import encode_tensor
from shoal_protocol.canonical import canonical_bytes, sha256_digest
from shoal_protocol.errors import CallerError
from shoal_protocol.profile.grid import FEW_VALUES
from shoal_protocol.profile.reference import Reference, encode_reference
from shoal_protocol.refs import parse_ref

Array = npt.NDArray[Any]
Progress = Callable[[str], None]

_MOST_REFERENCE_ROWS = 100_000
_FEW_ROWS = 100


@dataclass(frozen=True, kw_only=True)
class PackOptions:
    """What a caller may choose.

    Attributes:
        tolerance: What counts as equal to the source.
        float64_inputs: Feed floats in double from the start; else only where float32 gives other answers.
        converter_options: skl2onnx's, ``{id(estimator): {...}}``.
        about: The author's words for the model card, Markdown.
        licence: Text of the model's licence.
        gates: Default gates for rollouts.
        lineage: Added to the provenance: parameters, run ids.
        source: The model's file, for the provenance.
        validation: Rows that the model has never seen, in the sample's form: parity is proven on them too, and the
            reference profile, calibration, importance and all figures are of them.
        validation_y: Their labels or values.
        segments: Columns by which figures are split, by name, one value for each row that is judged: of the validation
            data where it has labels, else of the sample. They need not be features.
        segment_by: Which of them together; each alone, if not given.
        variants: Forms to build beside the canonical one: ``fp16``, ``int8``, ``int8-dynamic`` or ``auto``.
        latency_budget_ms: Declared: p95 of one row that a device may take, milliseconds.
        memory_budget_bytes: Declared: what the model may need beside interpreter and runtime.
        contract: What the features' values must be: ``{"fields": {"age": {"range": [0, 120], "missing": 0.01}}}``.
    """

    tolerance: Tolerance = field(default_factory=Tolerance)
    float64_inputs: bool = False
    converter_options: Options | None = None
    about: str = ""
    licence: str = ""
    gates: Mapping[str, Any] | None = None
    lineage: Mapping[str, str] | None = None
    source: Path | None = None
    validation: Any = None
    validation_y: Any = None
    segments: Mapping[str, Any] | None = None
    segment_by: tuple[tuple[str, ...], ...] = ()
    variants: tuple[str, ...] = ()
    latency_budget_ms: float | None = None
    memory_budget_bytes: int | None = None
    contract: Mapping[str, Any] | None = None


def to_onnx(model: Any, sample: Any, options: Options | None = None) -> bytes:
    r"""Convert a fitted estimator to canonical ONNX that is proven to answer alike on the sample.

    Args:
        model: Fitted estimator or pipeline of scikit-learn, or with its interface; a booster of XGBoost or LightGBM,
            or a CatBoost model; an ONNX model (path, bytes or ModelProto); a
            Module or ExportedProgram of PyTorch.
        sample: Rows like those that it was trained on: a 2-D array gives one ``[N, F]`` input ``x``, a list of texts
            one ``[N, 1]``, a pandas DataFrame one ``[N, 1]`` input a column (float32, int64 or string). Inputs
            are float64 only where float32 ones give other answers. For an ONNX model arrays by the names of its inputs,
            or one array; its inputs and outputs keep their names and types.
        options: skl2onnx's, ``{id(estimator): {...}}``.

    Returns:
        A serialised ONNX model (IR <= 10, ai.onnx <= 21, ai.onnx.ml 3). Outputs are tensors, the label first and named
        ``label``, then ``probabilities`` or ``scores``; a regressor gives ``value``, a transformer ``transformed``.

    Raises:
        UnsupportedModelError: A step has no exact form in ONNX; names the step and a way round.
        ParityError: The ONNX model answers otherwise than its source; names the first step that differs.
        SampleError: The sample is missing or doesn't fit.
        SourceError: The model is no fitted estimator.

    >>> from sklearn.linear_model import LinearRegression
    >>> model = LinearRegression().fit([[0.0], [1.0]], [1.0, 3.0])
    >>> to_onnx(model, [[0.0], [1.0], [2.0]])[:1]
    b'\x08'
    """
    model = checked_model(model, sample)
    if isinstance(model, TensorModel):
        return converted(model, sample, tolerance=Tolerance())[2].onnx
    return convert_rows(model, sample, options=options)[1].onnx


def pack(
    model: Any,
    *,
    sample: Any,
    tag: str,
    y: Any = None,
    output: Path | str | None = None,
    parent: Bundle | Path | str | None = None,
    options: PackOptions | None = None,
    progress: Progress | None = None,
) -> Bundle:
    """Turn a fitted estimator into a bundle.

    Args:
        model: As `to_onnx` takes it.
        sample: Rows like those that it was trained on; see `to_onnx`. They prove parity, give the golden rows, and
            their distribution becomes the reference that the fleet is compared with.
        tag: ``name:version``, for example ``quality:1.4.0``.
        y: Labels or values of the sample's rows: makes accuracy, calibration and importance mean something.
        output: Folder, or file ending in ``.tar``, to write the bundle to.
        parent: An earlier version, or where it is: its grids are inherited, so that the two stay comparable.
        options: Everything else.
        progress: Called with one line for each step.

    Raises:
        UnsupportedModelError: A step has no exact form in ONNX; names the step and a way round.
        ParityError: The ONNX model answers otherwise than its source.
        SampleError: The sample or the labels are missing or don't fit.
        SourceError: The model is no fitted estimator.
        CallerError: The tag is no ``name:version``.
        OutputExistsError: Something is at `output`.
    """
    tell = progress or (lambda _: None)
    options = options or PackOptions()
    name, version = parse_tag(tag)
    model = checked_model(model, sample)
    truth = check_truth(y, rows_in(model, sample), classification=task_of(model) == "classification")
    tell(f"converting {framework_of(model) if isinstance(model, TensorModel) else type(model).__name__}")
    model, rows, conversion, validation = _converted(model, sample, options, tell)
    tell(f"parity: {conversion.report.sentence()}")
    if validation is not None:
        tell(f"parity on the validation data: {validation.report.sentence()}")
    if rows.rows < _FEW_ROWS:
        tell(f"{rows.rows} rows prove little, and are a weak reference for drift: give {_FEW_ROWS} or more")
    if rows.rows < FEW_VALUES:
        tell("so few rows show no distribution: wide equal cells are counted, for the fleet's first windows to fill")
    tell("measuring the reference and the importance of features")
    older = Bundle.open(parent) if isinstance(parent, (str, Path)) else parent
    work = _Work(model, rows, truth, conversion, validation, older, options)
    work, measured = _measured(work, tell)
    info = _info(work, name=name, version=version)
    files = _files(work, info, tell)
    bundle = Bundle.build(files, config=_config(info, files), annotations=_annotations(info))
    bundle = _stated(bundle, work, measured)
    tell(f"digest {bundle.digest}")
    if output is not None:
        bundle = replace(bundle, path=bundle.write(output))
    return bundle


def _converted(
    model: Any, sample: Any, options: PackOptions, tell: Progress
) -> tuple[Any, Sample, Conversion, Proof | None]:
    """Convert by the model's kind; a model over tensors knows the meaning of its outputs only then."""
    if not isinstance(model, TensorModel):
        return model, *_proven(model, sample, options, tell)
    model, rows, conversion = converted(model, sample, tolerance=options.tolerance)
    validation = None if options.validation is None else proven(model, options.validation, conversion)
    return model, rows, conversion, validation


def _proven(model: Any, sample: Any, options: PackOptions, tell: Progress) -> tuple[Sample, Conversion, Proof | None]:
    """Convert, and prove the result on the validation data too; what fails only there is tried with double inputs."""

    def converted(*, double: bool) -> tuple[Sample, Conversion, Proof | None]:
        rows, conversion = convert_rows(
            model,
            sample,
            options=options.converter_options,
            tolerance=options.tolerance,
            float64_inputs=double,
            progress=tell,
        )
        if options.validation is None:
            return rows, conversion, None
        dtype: Literal["float32", "float64"] = (
            "float64" if any(column.dtype == "float64" for column in rows.columns) else "float32"
        )
        unseen = as_fed(make_sample(options.validation, model=model, float_dtype=dtype), rows)
        return rows, conversion, prove(model, unseen, conversion, options=options.converter_options)

    try:
        return converted(double=options.float64_inputs)
    except ParityError as error:
        if options.float64_inputs or error.data.get("data") != "validation":
            raise
        tell(f"{error.message}; trying float64 inputs")
        return converted(double=True)


def parse_tag(tag: str) -> tuple[str, str]:
    """Split ``name:version``.

    Raises:
        CallerError: It is no such tag.
    """
    ref = parse_ref(tag)
    if ref.version is None:
        raise CallerError(f"{tag!r} names no version", hint="a bundle is packed under name:1.4.0; aliases come later")
    return ref.name, ref.version


def check_truth(y: Any, rows: int, *, classification: bool, what: str = "sample") -> Array | None:
    """Return labels or values as an array; `what` names the rows in what is said of them.

    Raises:
        SampleError: Another number than rows, or some are missing.
    """
    if y is None:
        return None
    truth = np.asarray(y)
    if truth.ndim == 2 and truth.shape[1] == 1:
        truth = truth.ravel()
    if len(truth) != rows:
        raise SampleError(
            f"y has {len(truth)} rows, the {what} has {rows}", hint="give the labels of exactly these rows"
        )
    if truth.dtype.kind == "f":
        missing = int(np.isnan(truth).reshape(rows, -1).any(axis=1).sum())
    elif truth.dtype.kind == "O":
        missing = sum(value is None or value != value for value in truth.ravel())  # noqa: PLR0124 - NaN
    else:
        missing = 0
    if missing:
        raise SampleError(
            f"y has no {'label' if classification else 'value'} in {missing} of {rows} rows",
            hint=f"leave those rows out of {what} and y, or leave y out",
        )
    return truth


@dataclass(frozen=True, eq=False)
class _Work:
    """What has been gathered once the conversion is proven."""

    model: Any
    rows: Sample
    truth: Array | None
    conversion: Conversion
    validation: Proof | None
    parent: Bundle | None
    options: PackOptions
    variants: tuple[Built, ...] = ()

    @property
    def profiled(self) -> Evidence:
        """The rows whose distribution becomes the reference: validation data if there is any."""
        return self._of_sample() if self.validation is None else self._of_validation(self.validation)

    @property
    def judged(self) -> Evidence:
        """The rows that figures are of: validation data, unless only the sample has labels."""
        only_sample = self.truth is not None and self.options.validation_y is None
        if self.validation is None or only_sample:
            return self._split(self._of_sample())
        return self._split(self._of_validation(self.validation))

    def _of_sample(self) -> Evidence:
        return Evidence("sample", self.rows.tensors, self.conversion.found, self.truth)

    def _of_validation(self, proof: Proof) -> Evidence:
        rows = proof.sample.rows
        truth = check_truth(
            self.options.validation_y, rows, classification=task_of(self.model) == "classification", what="validation"
        )
        return Evidence("validation", proof.sample.tensors, proof.found, truth)

    def _split(self, evidence: Evidence) -> Evidence:
        columns = {name: np.asarray(values) for name, values in (self.options.segments or {}).items()}
        wrong = [name for name, values in columns.items() if values.shape != (evidence.rows,)]
        if wrong:
            raise SampleError(
                f"the column {wrong[0]!r} to split by has shape {columns[wrong[0]].shape}; "
                f"the {evidence.kind} has {evidence.rows} rows",
                hint="give one value for each row that is judged",
            )
        return replace(evidence, columns=columns)

    @property
    def groupings(self) -> tuple[tuple[str, ...], ...]:
        """The columns to split figures by."""
        return self.options.segment_by or tuple((name,) for name in self.options.segments or {})

    @property
    def chosen(self) -> npt.NDArray[np.int64]:
        """The golden rows."""
        return golden_rows(self.rows.tensors, self.conversion.found)


def _files(work: _Work, info: BundleInfo, tell: Progress) -> dict[str, bytes]:
    runner = Runner(work.conversion.onnx)
    inputs = work.rows.field_specs(
        missing_allowed=missing_allowed(work.model), unknown_allowed=unknown_allowed(work.model)
    )
    schema = ModelSchema(
        tensors=work.rows.tensor_specs(),
        inputs=inputs,
        outputs=work.conversion.outputs,
        contract=agreed(work.options.contract, inputs, work.profiled.tensors, tell=tell),
    )
    reference = _reference(work, schema, runner)
    files = {
        **{variant.entry.path: variant.onnx for variant in work.variants},
        BUNDLE_JSON: encode_document(info),
        SCHEMA_JSON: encode_document(schema),
        MODEL_ONNX: work.conversion.onnx,
        REFERENCE_JSON: encode_reference(reference),
        README: model_card(info, schema, reference, about=work.options.about).encode(),
    }
    if work.options.licence:
        files[LICENSE] = work.options.licence.encode()
    golden = work.rows.take(work.chosen)
    for at, (tensor, values) in enumerate(golden.items()):
        files[golden_input(at)] = encode_tensor(tensor, values)
    for at, (tensor, values) in enumerate(runner.run(golden).items()):
        files[golden_output(at)] = encode_tensor(tensor, values)
    return files


def _reference(work: _Work, schema: ModelSchema, runner: Runner) -> Reference:
    return build_reference(
        task=task_of(work.model),
        fields=schema.inputs,
        outputs=schema.outputs,
        predict=runner.run,
        profiled=work.profiled.thinned(_MOST_REFERENCE_ROWS),
        judged=work.judged.thinned(_MOST_REFERENCE_ROWS),
        groupings=work.groupings,
        parent=work.parent.reference if work.parent else None,
    )


def _info(work: _Work, *, name: str, version: str) -> BundleInfo:
    conversion, options = work.conversion, work.options
    graph = onnx.load_model_from_string(conversion.onnx)
    tolerance = conversion.report.tolerance
    return BundleInfo(
        name=name,
        version=version,
        task=task_of(work.model),
        framework=framework_of(work.model),
        converter={
            "name": "shoal-converter",
            "version": metadata.version("shoal-converter"),
            "options": {"attempt": conversion.attempt.name},
        },
        onnx={
            "ir_version": graph.ir_version,
            "opsets": {entry.domain or "ai.onnx": entry.version for entry in graph.opset_import},
        },
        variants=(
            *(variant.entry for variant in work.variants),
            Variant(precision="float64" if conversion.attempt.floats == "float64" else "float32"),
        ),
        runtime=Runtime(memory_budget_bytes=options.memory_budget_bytes, latency_budget_ms=options.latency_budget_ms),
        golden=Golden(rows=len(work.chosen), rtol=tolerance.rtol, atol=tolerance.atol),
        parent={"digest": work.parent.digest} if work.parent else None,
        gates=dict(options.gates or {}),
    )


def _config(info: BundleInfo, files: Mapping[str, bytes]) -> bytes:
    """Return the ModelPack config; its schema allows no fields of ours (CNCF model-spec 0.0.7, config.md)."""
    return canonical_bytes(
        {
            "descriptor": {"name": info.name, "version": info.version},
            "modelfs": {"type": "layers", "diffIds": [sha256_digest(files[path]) for path in sorted(files)]},
            "config": {"format": "onnx", "precision": info.variants[-1].precision},
        }
    )


def _annotations(info: BundleInfo) -> dict[str, str]:
    return {"org.opencontainers.image.title": info.name, "org.opencontainers.image.version": info.version}


def _measured(work: _Work, tell: Progress) -> tuple[_Work, dict[str, Any]]:
    """Build the variants that were asked for, and measure what the model costs here."""
    conversion, options = work.conversion, work.options
    seen = [(work.rows.tensors, conversion.found)]
    if work.validation is not None:
        seen.append((work.validation.sample.tensors, work.validation.found))
    built: list[Built] = []
    refused: list[dict[str, Any]] = []
    if options.variants:
        tell(f"building variants: {', '.join(options.variants)}")
        golden = work.rows.take(work.chosen)
        answered = Runner(conversion.onnx).run(golden)
        built, refused = build_variants(
            conversion.onnx, options.variants, outputs=conversion.outputs, data=seen, golden=(golden, answered)
        )
        for entry in built:
            tell(f"variant {entry.evidence['variant']}: {variant_line(entry.evidence)}")
        for no in refused:
            tell(f"refused: {no['why']}")
    cost = cost_of(conversion.onnx, seen[-1][0])
    if cost is not None:
        tell(f"one row takes {cost.p50_ms:.3g} ms here (p95 {cost.p95_ms:.3g} ms)")
    measured = {
        "platform": here(),
        "cost": None if cost is None else cost.as_json(),
        "variants": [dict(variant.evidence) for variant in built],
        "refused": refused,
    }
    return replace(work, variants=tuple(built)), measured


def _stated(bundle: Bundle, work: _Work, measured: Mapping[str, Any]) -> Bundle:
    rows, conversion, options = work.rows, work.conversion, work.options
    lineage = gather(tensors=rows.tensors, source=options.source, extra=options.lineage)
    report = {**conversion.report.as_json(), "attempt": conversion.attempt.name}
    if work.validation is not None:
        report["validation"] = work.validation.report.as_json()
    subject = str(bundle.ref)
    now = datetime.now(UTC).isoformat(timespec="seconds")
    provenance = provenance_statement(lineage, subject=subject, digest=bundle.digest, finished_at=now)
    sbom = sbom_statement(bundle, lineage, made_at=now)
    parity = parity_statement(report, subject=subject, digest=bundle.digest)
    measurement = measurement_statement(measured, subject=subject, digest=bundle.digest)
    statements = {"provenance": provenance, "parity": parity, "measurement": measurement, "sbom": sbom}
    return replace(bundle, parity=report, measured=measured, statements=statements)
