"""Small models and bundles, made by hand with the onnx package: for tests of whoever reads bundles.

Not a pytest plugin; import what you need: ``from fixtures_models import linear_model, make_bundle, write_layout``.
"""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from shoal_protocol.bundle.assembly import build_manifest
from shoal_protocol.bundle.layout import (
    BUNDLE_JSON,
    MODEL_ONNX,
    REFERENCE_JSON,
    SCHEMA_JSON,
    golden_input,
    golden_output,
)
from shoal_protocol.bundle.manifest import MANIFEST_MEDIA_TYPE, encode_manifest
from shoal_protocol.bundle.schema import (
    BundleInfo,
    FieldSpec,
    Golden,
    ModelSchema,
    OutputSpec,
    TensorSpec,
    encode_document,
)
from shoal_protocol.bundle.tensors import encode_tensor
from shoal_protocol.canonical import sha256_digest
from shoal_protocol.profile.grid import CategoricalGrid, fit_numeric, unit_interval_grid
from shoal_protocol.profile.profile import ProfileSpec, Stream, summarise
from shoal_protocol.profile.reference import Reference, encode_reference

_OPSETS = [helper.make_opsetid("", 17), helper.make_opsetid("ai.onnx.ml", 3)]


def finish(nodes: list[Any], inputs: list[Any], outputs: list[Any], constants: Mapping[str, np.ndarray]) -> bytes:
    """Make a model's bytes of nodes."""
    initialisers = [numpy_helper.from_array(array, name) for name, array in constants.items()]
    graph = helper.make_graph(nodes, "test", inputs, outputs, initialisers)
    model = helper.make_model(graph, opset_imports=_OPSETS, ir_version=8)
    onnx.checker.check_model(model)
    return model.SerializeToString()


def linear_weights(features: int = 4, classes: int = 3, seed: int = 0) -> np.ndarray:
    """Return the weights of `linear_model`, float32 of (features, classes)."""
    return np.random.default_rng(seed).normal(size=(features, classes)).astype(np.float32)


def linear_model(features: int = 4, classes: int = 3, *, seed: int = 0) -> bytes:
    """A softmax classifier: ``x`` float32 [N, features] -> ``label`` int64 [N], ``probabilities`` [N, classes]."""
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["scores"]),
        helper.make_node("Softmax", ["scores"], ["probabilities"], axis=1),
        helper.make_node("ArgMax", ["scores"], ["label"], axis=1, keepdims=0),
    ]
    return finish(
        nodes,
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [None, features])],
        [
            helper.make_tensor_value_info("label", TensorProto.INT64, [None]),
            helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, [None, classes]),
        ],
        {"w": linear_weights(features, classes, seed)},
    )


def mean_centred_model(features: int = 4) -> bytes:
    """Give ``x`` float32 [N, features] -> ``value`` [N, features], less the mean *of the batch*: rows are not alone."""
    nodes = [
        helper.make_node("ReduceMean", ["x"], ["mean"], axes=[0], keepdims=1),
        helper.make_node("Sub", ["x", "mean"], ["value"]),
    ]
    shape = [None, features]
    return finish(
        nodes,
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("value", TensorProto.FLOAT, shape)],
        {},
    )


def constant_model(value: float, features: int = 2) -> bytes:
    """Give ``x`` float32 [N, features] -> ``value`` float32 [N, 1], always the same number, so that versions differ."""
    nodes = [
        helper.make_node("ReduceSum", ["x", "axis"], ["sum"], keepdims=1),
        helper.make_node("Mul", ["sum", "zero"], ["nothing"]),
        helper.make_node("Add", ["nothing", "constant"], ["value"]),
    ]
    constants = {
        "axis": np.array([1], np.int64),
        "zero": np.array([[0]], np.float32),
        "constant": np.array([[value]], np.float32),
    }
    return finish(
        nodes,
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [None, features])],
        [helper.make_tensor_value_info("value", TensorProto.FLOAT, [None, 1])],
        constants,
    )


def mixed_model() -> bytes:
    """Columns ``age`` float32, ``visits`` int64, ``city`` string [N, 1] each -> ``label`` string [N, 1], ``value``."""
    nodes = [
        helper.make_node("Cast", ["visits"], ["visits_f"], to=TensorProto.FLOAT),
        helper.make_node("Add", ["age", "visits_f"], ["value"]),
        helper.make_node(
            "LabelEncoder",
            ["city"],
            ["label"],
            domain="ai.onnx.ml",
            keys_strings=["Bern", "Basel"],
            values_strings=["south", "north"],
            default_string="elsewhere",
        ),
    ]
    return finish(
        nodes,
        [
            helper.make_tensor_value_info("age", TensorProto.FLOAT, [None, 1]),
            helper.make_tensor_value_info("visits", TensorProto.INT64, [None, 1]),
            helper.make_tensor_value_info("city", TensorProto.STRING, [None, 1]),
        ],
        [
            helper.make_tensor_value_info("label", TensorProto.STRING, [None, 1]),
            helper.make_tensor_value_info("value", TensorProto.FLOAT, [None, 1]),
        ],
        {},
    )


def linear_schema(features: int = 4, classes: int = 3, **rules: Any) -> ModelSchema:
    """Return the schema of `linear_model`: features ``x0``, ``x1`` …; `rules` go to every feature."""
    return ModelSchema(
        tensors=(TensorSpec(name="x", dtype="float32", shape=(None, features)),),
        inputs=tuple(
            FieldSpec(name=f"x{at}", dtype="float32", tensor="x", column=at, **rules) for at in range(features)
        ),
        outputs=(
            OutputSpec(name="label", dtype="int64", shape=(None,), role="label", classes=_texts(classes)),
            OutputSpec(
                name="probabilities",
                dtype="float32",
                shape=(None, classes),
                role="probabilities",
                classes=_texts(classes),
            ),
        ),
    )


def linear_spec(features: int = 4, classes: int = 3) -> ProfileSpec:
    """Return streams of all features, the label and the confidence of `linear_model`."""
    values = np.random.default_rng(1).normal(size=2000)
    grid = fit_numeric(values)
    return ProfileSpec(
        (
            *(Stream(f"x{at}", "input", grid, "x", at) for at in range(features)),
            Stream("label", "output", CategoricalGrid(_texts(classes)), "label"),
            Stream("confidence", "output", unit_interval_grid(), "probabilities", derive="row_max"),
        )
    )


def constant_schema(features: int = 2) -> ModelSchema:
    """Return the schema of `constant_model`."""
    return ModelSchema(
        tensors=(TensorSpec(name="x", dtype="float32", shape=(None, features)),),
        inputs=(FieldSpec(name="x", dtype="float32", tensor="x"),),
        outputs=(OutputSpec(name="value", dtype="float32", shape=(None, 1), role="value"),),
    )


def mixed_schema(**city: Any) -> ModelSchema:
    """Return the schema of `mixed_model`; keywords go to the feature ``city``."""
    column = (None, 1)
    return ModelSchema(
        tensors=(
            TensorSpec(name="age", dtype="float32", shape=column),
            TensorSpec(name="visits", dtype="int64", shape=column),
            TensorSpec(name="city", dtype="string", shape=column),
        ),
        inputs=(
            FieldSpec(name="age", dtype="float32", tensor="age"),
            FieldSpec(name="visits", dtype="int64", tensor="visits"),
            FieldSpec(name="city", dtype="string", tensor="city", **city),
        ),
        outputs=(
            OutputSpec(name="label", dtype="string", shape=column, role="label"),
            OutputSpec(name="value", dtype="float32", shape=column, role="value"),
        ),
    )


def make_bundle(
    model: bytes,
    schema: ModelSchema,
    *,
    name: str = "quality",
    version: str = "1.0.0",
    spec: ProfileSpec | None = None,
    golden: Mapping[str, np.ndarray] | None = None,
    task: Any = "classification",
    spoil: Mapping[str, bytes] | None = None,
    **info: Any,
) -> tuple[str, dict[str, bytes]]:
    """Put a bundle together.

    Args:
        golden: Inputs of golden rows by tensor; the outputs are computed here with onnxruntime.
        spoil: Files that replace what belongs there, for bundles that are signed and wrong.
        info: More fields of ``bundle.json``.

    Returns:
        Its digest, and its blobs by digest, the manifest among them.
    """
    files: dict[str, bytes] = {MODEL_ONNX: model, SCHEMA_JSON: encode_document(schema)}
    if golden is not None:
        info["golden"] = Golden(rows=len(next(iter(golden.values()))))
        for at, tensor in enumerate(schema.tensors):
            files[golden_input(at)] = encode_tensor(tensor.name, golden[tensor.name])
        for at, (output, array) in enumerate(run_onnx(model, golden).items()):
            files[golden_output(at)] = encode_tensor(output, array)
    if spec is not None:
        rows = dict(golden) if golden is not None else {}
        tensors = {**rows, **run_onnx(model, rows)} if rows else {}
        profile = summarise(spec, tensors) if tensors else summarise(spec, {s.tensor: _none(s) for s in spec.streams})
        files[REFERENCE_JSON] = encode_reference(Reference(spec, profile))
    files[BUNDLE_JSON] = encode_document(BundleInfo(name=name, version=version, task=task, framework="test", **info))
    files |= spoil or {}
    manifest = encode_manifest(build_manifest(files, config=b"{}"))
    digest = str(sha256_digest(manifest))
    blobs = {str(sha256_digest(content)): content for content in (manifest, b"{}", *files.values())}
    return digest, blobs


def linear_bundle(features: int = 4, classes: int = 3, *, seed: int = 0, **more: Any) -> tuple[str, dict[str, bytes]]:
    """Return a whole bundle of `linear_model` with reference and golden rows."""
    rows = np.random.default_rng(2).normal(size=(8, features)).astype(np.float32)
    return make_bundle(
        linear_model(features, classes, seed=seed),
        linear_schema(features, classes),
        spec=linear_spec(features, classes),
        golden={"x": rows},
        **more,
    )


def run_onnx(model: bytes, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Run a model once with onnxruntime, as the raw reference."""
    from shoal_agent.runtime.engine import import_onnxruntime

    session = import_onnxruntime().InferenceSession(model, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, dict(inputs)), strict=True))


def write_layout(folder: Path, digest: str, blobs: Mapping[str, bytes]) -> Path:
    """Write an OCI image layout as a folder."""
    for path, content in _layout(digest, blobs).items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(content)
    return folder


def write_tar(path: Path, digest: str, blobs: Mapping[str, bytes]) -> Path:
    """Write an OCI image layout as a ``.tar``."""
    with tarfile.open(path, "w:") as tar:
        for name, content in _layout(digest, blobs).items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return path


def _layout(digest: str, blobs: Mapping[str, bytes]) -> dict[str, bytes]:
    entry = {"mediaType": MANIFEST_MEDIA_TYPE, "digest": digest, "size": len(blobs[digest])}
    index = json.dumps({"schemaVersion": 2, "manifests": [entry]}).encode()
    files = {"oci-layout": b'{"imageLayoutVersion":"1.0.0"}', "index.json": index}
    return files | {f"blobs/sha256/{name[7:]}": content for name, content in blobs.items()}


def _texts(classes: int) -> tuple[str, ...]:
    return tuple(str(at) for at in range(classes))


def _none(stream: Stream) -> np.ndarray:
    return np.zeros((0, 1 + (stream.column or 0)), np.float32)
