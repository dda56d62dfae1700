"""The files inside a bundle, made from a proven conversion: all that its digest covers.

Everything here is made from the caller's arguments alone, so that the same arguments give the same digest; time, host
and paths go into the statements beside the bundle.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import metadata

import onnx

from shoal_converter.bundle import Bundle
from shoal_converter.card import model_card
from shoal_converter.contract import agreed
from shoal_converter.onnx_runtime import Runner
from shoal_converter.reference import build_reference
from shoal_converter.sources.estimator import framework_of, missing_allowed, task_of, unknown_allowed
from shoal_converter.workpiece import Workpiece
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
from shoal_protocol.profile.reference import Reference, encode_reference

Progress = Callable[[str], None]

_MOST_REFERENCE_ROWS = 100_000


def build_bundle(work: Workpiece, *, name: str, version: str, tell: Progress) -> Bundle:
    """Write every document and put them together under one digest."""
    info = _info(work, name=name, version=version)
    files = _files(work, info, tell)
    return Bundle.build(files, config=_config(info, files), annotations=_annotations(info))


def _files(work: Workpiece, info: BundleInfo, tell: Progress) -> dict[str, bytes]:
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
        README: model_card(info, schema, reference, about=work.options.about, kept=work.options.reference).encode(),
    }
    if work.options.reference:
        files[REFERENCE_JSON] = encode_reference(reference)
    else:
        tell("the sample is no reference: devices learn on their first windows what is counted")
    if work.options.licence:
        files[LICENSE] = work.options.licence.encode()
    golden = work.rows.take(work.chosen)
    for at, (tensor, values) in enumerate(golden.items()):
        files[golden_input(at)] = encode_tensor(tensor, values)
    for at, (tensor, values) in enumerate(runner.run(golden).items()):
        files[golden_output(at)] = encode_tensor(tensor, values)
    return files


def _reference(work: Workpiece, schema: ModelSchema, runner: Runner) -> Reference:
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


def _info(work: Workpiece, *, name: str, version: str) -> BundleInfo:
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
