"""From a trained model and a sample to a verified, reproducible bundle: the shell around the pure parts.

Owns the order of work: convert and prove, choose golden rows, make the reference, write the documents, compute the
digest, state where it comes from. Everything inside the digest is made from the arguments alone; time, host and paths
go into the statements beside it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import onnx
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
from shoal_protocol.profile.reference import encode_reference
from shoal_protocol.refs import parse_ref

from shoal_converter.bundle import Bundle
from shoal_converter.card import model_card
from shoal_converter.conversion import Conversion, Options, convert
from shoal_converter.domain.golden import golden_rows
from shoal_converter.domain.parity import Tolerance
from shoal_converter.errors import SampleError
from shoal_converter.lineage import gather, parity_statement, provenance_statement
from shoal_converter.onnx_runtime import Runner
from shoal_converter.reference import build_reference
from shoal_converter.sample import Sample, make_sample
from shoal_converter.sources.estimator import check_estimator, framework_of, missing_allowed, task_of

Array = npt.NDArray[Any]
Progress = Callable[[str], None]

_MOST_REFERENCE_ROWS = 100_000


@dataclass(frozen=True, kw_only=True)
class PackOptions:
    """What a caller may choose.

    Attributes:
        tolerance: What counts as equal to the source.
        float64_inputs: Feed floats in double, where float32 loses too much.
        converter_options: skl2onnx's, ``{id(estimator): {...}}``.
        parent: The version whose grids are inherited.
        about: The author's words for the model card, Markdown.
        licence: Text of the model's licence.
        gates: Default gates for rollouts.
        lineage: Added to the provenance: parameters, run ids.
        source: The model's file, for the provenance.
    """

    tolerance: Tolerance = Tolerance()
    float64_inputs: bool = False
    converter_options: Options | None = None
    parent: Bundle | None = None
    about: str = ""
    licence: str = ""
    gates: Mapping[str, Any] | None = None
    lineage: Mapping[str, str] | None = None
    source: Path | None = None


def to_onnx(model: Any, sample: Any, options: Options | None = None) -> bytes:
    """Convert a fitted scikit-learn estimator to canonical ONNX that is proven to answer alike on the sample.

    Args:
        model: Fitted estimator or pipeline.
        sample: Rows like those that it was trained on: a 2-D array gives one ``[N, F]`` input ``x``, a list of texts one
            ``[N, 1]``, a pandas DataFrame one ``[N, 1]`` input a column (float32, int64 or string).
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
    b'\\x08'
    """
    check_estimator(model)
    return convert(model, make_sample(sample, model=model), options=options).onnx


def pack(
    model: Any,
    *,
    sample: Any,
    tag: str,
    y: Any = None,
    output: Path | str | None = None,
    options: PackOptions | None = None,
    progress: Progress | None = None,
) -> Bundle:
    """Turn a fitted estimator into a bundle.

    Args:
        model: Fitted scikit-learn estimator or pipeline.
        sample: Rows like those that it was trained on; see `to_onnx`. They prove parity, give the golden rows, and their
            distribution becomes the reference that the fleet is compared with.
        tag: ``name:version``, for example ``quality:1.4.0``.
        y: Labels or values of the sample's rows: makes accuracy, calibration and importance mean something.
        output: Folder, or file ending in ``.tar``, to write the bundle to.
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
    rows = make_sample(sample, model=model, float_dtype="float64" if options.float64_inputs else "float32")
    truth = check_truth(y, rows.rows, classification=task_of(model) == "classification")
    tell(f"converting {type(model).__name__} on {rows.rows} rows")
    conversion = convert(model, rows, options=options.converter_options, tolerance=options.tolerance)
    tell(f"parity: {conversion.report.sentence()}")
    tell("measuring the reference and the importance of features")
    files, info = _files(model, rows, truth, conversion, name=name, version=version, options=options)
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
        raise SampleError(f"y has {len(truth)} rows, the sample has {rows}", hint="give the labels of exactly these rows")
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


def _files(
    model: Any,
    rows: Sample,
    truth: Array | None,
    conversion: Conversion,
    *,
    name: str,
    version: str,
    options: PackOptions,
) -> tuple[dict[str, bytes], BundleInfo]:
    runner = Runner(conversion.onnx)
    schema = ModelSchema(
        tensors=rows.tensor_specs(),
        inputs=rows.field_specs(missing_allowed=missing_allowed(model)),
        outputs=conversion.outputs,
    )
    counted = np.unique(np.linspace(0, rows.rows - 1, min(rows.rows, _MOST_REFERENCE_ROWS)).astype(np.int64))
    reference = build_reference(
        task=task_of(model),
        fields=schema.inputs,
        outputs=schema.outputs,
        tensors=rows.take(counted),
        found={name: values[counted] if len(values) == rows.rows else values for name, values in conversion.found.items()},
        predict=runner.run,
        truth=None if truth is None else truth[counted],
        parent=options.parent.reference if options.parent else None,
    )
    chosen = golden_rows(rows.tensors, conversion.found)
    golden = rows.take(chosen)
    info = _info(model, conversion, name=name, version=version, golden=len(chosen), options=options)
    files = {
        BUNDLE_JSON: encode_document(info),
        SCHEMA_JSON: encode_document(schema),
        MODEL_ONNX: conversion.onnx,
        REFERENCE_JSON: encode_reference(reference),
        README: model_card(info, schema, reference, about=options.about).encode(),
    }
    if options.licence:
        files[LICENSE] = options.licence.encode()
    for at, (tensor, values) in enumerate(golden.items()):
        files[golden_input(at)] = encode_tensor(tensor, values)
    for at, (tensor, values) in enumerate(runner.run(golden).items()):
        files[golden_output(at)] = encode_tensor(tensor, values)
    return files, info


def _info(
    model: Any, conversion: Conversion, *, name: str, version: str, golden: int, options: PackOptions
) -> BundleInfo:
    graph = onnx.load_model_from_string(conversion.onnx)
    tolerance = conversion.report.tolerance
    return BundleInfo(
        name=name,
        version=version,
        task=task_of(model),
        framework=framework_of(model),
        converter={
            "name": "shoal-converter",
            "version": metadata.version("shoal-converter"),
            "options": {"attempt": conversion.attempt.name, "float64_inputs": options.float64_inputs},
        },
        onnx={
            "ir_version": graph.ir_version,
            "opsets": {entry.domain or "ai.onnx": entry.version for entry in graph.opset_import},
        },
        variants=(Variant(precision=conversion.attempt.floats),),
        runtime=Runtime(),
        golden=Golden(rows=golden, rtol=tolerance.rtol, atol=tolerance.atol),
        parent={"digest": options.parent.digest} if options.parent else None,
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
