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
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx

from shoal_converter.bundle import Bundle
from shoal_converter.card import model_card
from shoal_converter.conversion import Conversion, Options, convert_rows
from shoal_converter.domain.golden import golden_rows
from shoal_converter.domain.parity import Tolerance
from shoal_converter.errors import SampleError
from shoal_converter.lineage import gather, parity_statement, provenance_statement
from shoal_converter.onnx_runtime import Runner
from shoal_converter.reference import build_reference
from shoal_converter.sample import Sample, make_sample
from shoal_converter.sources.estimator import check_estimator, framework_of, missing_allowed, task_of, unknown_allowed
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
    """

    tolerance: Tolerance = field(default_factory=Tolerance)
    float64_inputs: bool = False
    converter_options: Options | None = None
    about: str = ""
    licence: str = ""
    gates: Mapping[str, Any] | None = None
    lineage: Mapping[str, str] | None = None
    source: Path | None = None


def to_onnx(model: Any, sample: Any, options: Options | None = None) -> bytes:
    r"""Convert a fitted scikit-learn estimator to canonical ONNX that is proven to answer alike on the sample.

    Args:
        model: Fitted estimator or pipeline.
        sample: Rows like those that it was trained on: a 2-D array gives one ``[N, F]`` input ``x``, a list of texts
            one ``[N, 1]``, a pandas DataFrame one ``[N, 1]`` input a column (float32, int64 or string). Inputs
            are float64 only where float32 ones give other answers.
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
    check_estimator(model)
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
        model: Fitted scikit-learn estimator or pipeline.
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
    check_estimator(model)
    truth = check_truth(y, make_sample(sample, model=model).rows, classification=task_of(model) == "classification")
    tell(f"converting {type(model).__name__}")
    rows, conversion = convert_rows(
        model,
        sample,
        options=options.converter_options,
        tolerance=options.tolerance,
        float64_inputs=options.float64_inputs,
        progress=tell,
    )
    tell(f"parity: {conversion.report.sentence()}")
    if rows.rows < _FEW_ROWS:
        tell(f"{rows.rows} rows prove little, and are a weak reference for drift: give {_FEW_ROWS} or more")
    tell("measuring the reference and the importance of features")
    older = Bundle.open(parent) if isinstance(parent, (str, Path)) else parent
    work = _Work(model, rows, truth, conversion, older, options)
    info = _info(work, name=name, version=version)
    files = _files(work, info)
    bundle = Bundle.build(files, config=_config(info, files), annotations=_annotations(info))
    bundle = _stated(bundle, rows, conversion, options)
    tell(f"digest {bundle.digest}")
    if output is not None:
        bundle = replace(bundle, path=bundle.write(output))
    return bundle


def parse_tag(tag: str) -> tuple[str, str]:
    """Split ``name:version``.

    Raises:
        CallerError: It is no such tag.
    """
    ref = parse_ref(tag)
    if ref.version is None:
        raise CallerError(f"{tag!r} names no version", hint="a bundle is packed under name:1.4.0; aliases come later")
    return ref.name, ref.version


def check_truth(y: Any, rows: int, *, classification: bool) -> Array | None:
    """Return labels or values as an array.

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
            f"y has {len(truth)} rows, the sample has {rows}", hint="give the labels of exactly these rows"
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
            hint="leave those rows out of sample and y, or leave y out",
        )
    return truth


@dataclass(frozen=True, eq=False)
class _Work:
    """What has been gathered once the conversion is proven."""

    model: Any
    rows: Sample
    truth: Array | None
    conversion: Conversion
    parent: Bundle | None
    options: PackOptions

    @property
    def chosen(self) -> npt.NDArray[np.int64]:
        """The golden rows."""
        return golden_rows(self.rows.tensors, self.conversion.found)


def _files(work: _Work, info: BundleInfo) -> dict[str, bytes]:
    runner = Runner(work.conversion.onnx)
    schema = ModelSchema(
        tensors=work.rows.tensor_specs(),
        inputs=work.rows.field_specs(
            missing_allowed=missing_allowed(work.model), unknown_allowed=unknown_allowed(work.model)
        ),
        outputs=work.conversion.outputs,
    )
    reference = _reference(work, schema, runner)
    files = {
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
    rows, found = work.rows, work.conversion.found
    counted = np.unique(np.linspace(0, rows.rows - 1, min(rows.rows, _MOST_REFERENCE_ROWS)).astype(np.int64))
    return build_reference(
        task=task_of(work.model),
        fields=schema.inputs,
        outputs=schema.outputs,
        tensors=rows.take(counted),
        found={name: values[counted] if len(values) == rows.rows else values for name, values in found.items()},
        predict=runner.run,
        truth=None if work.truth is None else work.truth[counted],
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
        variants=(Variant(precision="float64" if conversion.attempt.floats == "float64" else "float32"),),
        runtime=Runtime(),
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
            "config": {"format": "onnx", "precision": info.variants[0].precision},
        }
    )


def _annotations(info: BundleInfo) -> dict[str, str]:
    return {"org.opencontainers.image.title": info.name, "org.opencontainers.image.version": info.version}


def _stated(bundle: Bundle, rows: Sample, conversion: Conversion, options: PackOptions) -> Bundle:
    lineage = gather(tensors=rows.tensors, source=options.source, extra=options.lineage)
    report = {**conversion.report.as_json(), "attempt": conversion.attempt.name}
    subject = str(bundle.ref)
    provenance = provenance_statement(
        lineage, subject=subject, digest=bundle.digest, finished_at=datetime.now(UTC).isoformat(timespec="seconds")
    )
    parity = parity_statement(report, subject=subject, digest=bundle.digest)
    return replace(bundle, parity=report, statements={"provenance": provenance, "parity": parity})
