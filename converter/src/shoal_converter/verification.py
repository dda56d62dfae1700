"""Verifying a bundle from itself alone: digests, documents, and its golden rows on onnxruntime.

Owns the list of checks. All of them are made, so that one run tells every fault.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass

import onnx

from shoal_converter.bundle import OMS, Bundle
from shoal_converter.errors import SignatureError
from shoal_converter.onnx_graph.canonical import MAX_IR_VERSION, MAX_OPSETS, canonical_onnx
from shoal_converter.self_test import self_test
from shoal_protocol.bundle.layout import MODEL_ONNX
from shoal_protocol.bundle.schema import Variant
from shoal_protocol.canonical import sha256_digest
from shoal_protocol.errors import ContentError, ShoalError


@dataclass(frozen=True)
class Check:
    """One check: what it looked at, whether it held, and what was found."""

    name: str
    ok: bool
    detail: str


def verify(bundle: Bundle, *, oms_key: bytes | None = None, oms_signature: bytes | None = None) -> tuple[Check, ...]:
    """Make every check.

    Args:
        bundle: As read; reading it has already compared each file with the digest that names it.
        oms_key: Public key in PEM that must have signed an OMS signature; none: a signature is named, not checked.
        oms_signature: Where it isn't among the bundle's statements.
    """

    def oms(bundle: Bundle) -> str:
        return _oms(bundle, oms_key, oms_signature)

    checks: tuple[tuple[str, Callable[[Bundle], str]], ...] = (
        ("digests", _digests),
        ("documents", _documents),
        ("model", _model),
        ("interface", _interface),
        ("golden rows", _golden),
        ("variants", _variants),
        ("statements", _statements),
        ("OMS signature", oms),
    )
    return tuple(_checked(name, check, bundle) for name, check in checks)


def _checked(name: str, check: Callable[[Bundle], str], bundle: Bundle) -> Check:
    try:
        return Check(name, ok=True, detail=check(bundle))
    except ShoalError as error:
        return Check(name, ok=False, detail=error.message)


def _digests(bundle: Bundle) -> str:
    found = {path: sha256_digest(content) for path, content in bundle.files.items()}
    wrong = [path for path, layer in bundle.manifest.files().items() if found.get(path) != layer.digest]
    if wrong:
        raise ContentError(f"not the files that the manifest names: {', '.join(wrong)}")
    return f"{len(found)} files as the manifest {bundle.digest} names them"


def _documents(bundle: Bundle) -> str:
    info, schema, reference = bundle.info, bundle.schema, bundle.reference
    absent = [variant.path for variant in info.variants if variant.path not in bundle.files]
    if absent:
        raise ContentError(f"bundle.json names variants that are not there: {', '.join(absent)}")
    counted = "no reference" if reference is None else f"reference of {reference.profile.n} rows"
    return f"{info.name}:{info.version}, {len(schema.inputs)} features, {len(schema.outputs)} outputs, {counted}"


def _model(bundle: Bundle) -> str:
    try:
        model = onnx.load_model_from_string(bundle.model)
        onnx.checker.check_model(model)
    except Exception as error:
        raise ContentError(f"model.onnx is no valid model: {str(error).splitlines()[0]}") from error
    opsets = {entry.domain: entry.version for entry in model.opset_import}
    high = [f"{d or 'ai.onnx'} {v}" for d, v in opsets.items() if v > MAX_OPSETS.get(d, v)]
    if model.ir_version > MAX_IR_VERSION or high:
        raise ContentError(f"too new for the devices: IR {model.ir_version}, {', '.join(high)}")
    canonical = "canonical" if canonical_onnx(model) == bundle.model else "valid, not in canonical form"
    return f"{canonical}, IR {model.ir_version}, {len(model.graph.node)} nodes"


def _variants(bundle: Bundle) -> str:
    held = []
    for form in bundle.info.variants:
        found = None if form.path == MODEL_ONNX else self_test(bundle, form)
        if found is not None and not found.passed:
            raise ContentError(f"{form.path}: {found.sentence()}")
        held += [form.path] if found is not None else []
    return f"{', '.join(held)}: as near as they declare" if held else "none but the canonical model"


def _interface(bundle: Bundle) -> str:
    graph = onnx.load_model_from_string(bundle.model).graph
    inputs = {info.name for info in graph.input}
    declared = {tensor.name for tensor in bundle.schema.tensors}
    outputs = [info.name for info in graph.output]
    if inputs != declared or [output.name for output in bundle.schema.outputs] != outputs:
        raise ContentError(
            f"the model takes {sorted(inputs)} and gives {outputs}; schema.json says {sorted(declared)} and "
            f"{[output.name for output in bundle.schema.outputs]}"
        )
    return f"takes {', '.join(sorted(inputs)[:5])}; gives {', '.join(outputs)}"


def _statements(bundle: Bundle) -> str:
    told = []
    for name, raw in sorted(bundle.statements.items()):
        if name == OMS:
            continue
        try:
            document = json.loads(raw)
            digests = [subject["digest"]["sha256"] for subject in document["subject"]]
        except (ValueError, KeyError, TypeError) as error:
            raise ContentError(f"the statement {name} does not parse: {error}") from error
        if digests != [bundle.digest.removeprefix("sha256:")]:
            raise ContentError(f"the statement {name} is about another bundle")
        told.append(name)
    return f"{', '.join(told)} about this bundle (not signed)" if told else "none"


def _oms(bundle: Bundle, key: bytes | None, signature: bytes | None) -> str:
    raw = signature or bundle.statements.get(OMS)
    if key is None:
        return "there is one; give --oms-key to check it" if raw else "none"
    if raw is None:
        raise SignatureError("there is no OMS signature", hint="shoal-convert attest BUNDLE --key KEY writes one")
    from shoal_converter.signing.oms import check_files  # noqa: PLC0415 - cryptography

    return check_files(raw, bundle.unpacked(), public_pem=key)


def _golden(bundle: Bundle) -> str:
    found = self_test(bundle, Variant(path=MODEL_ONNX))
    if found is None:
        return "the bundle has none"
    if not found.passed:
        raise ContentError(found.sentence())
    return f"{found.rows} rows give the same outputs here"
