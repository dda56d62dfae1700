"""A very small bundle, complete and valid, for tests that push, assign or judge one."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from shoal_protocol.bundle.assembly import build_manifest
from shoal_protocol.bundle.layout import BUNDLE_JSON, MODEL_ONNX, README, REFERENCE_JSON, SCHEMA_JSON
from shoal_protocol.bundle.manifest import MANIFEST_MEDIA_TYPE, encode_manifest
from shoal_protocol.bundle.schema import (
    BundleInfo,
    FieldSpec,
    ModelSchema,
    OutputSpec,
    TensorSpec,
    encode_document,
)
from shoal_protocol.canonical import Digest, canonical_bytes, sha256_digest
from shoal_protocol.profile.grid import fit_numeric
from shoal_protocol.profile.profile import ProfileSpec, Stream, summarise
from shoal_protocol.profile.reference import Reference, encode_reference


@dataclass
class TinyBundle:
    """A bundle in memory."""

    name: str
    version: str
    files: dict[str, bytes]
    config: bytes = field(default_factory=lambda: canonical_bytes({"modelfs": {"type": "layers", "diffIds": []}}))

    @property
    def manifest(self) -> bytes:
        """The manifest's bytes, as they are pushed."""
        return encode_manifest(build_manifest(self.files, config=self.config))

    @property
    def digest(self) -> Digest:
        """The bundle's true name."""
        return sha256_digest(self.manifest)

    @property
    def blobs(self) -> dict[str, bytes]:
        """All blobs by digest: config and files."""
        return {sha256_digest(content): content for content in (self.config, *self.files.values())}


def linear_model(weights: tuple[float, float] = (1.0, 2.0), *, domain: str = "", **changes: Any) -> bytes:
    """Make an ONNX model `value = x @ weights` with one input `x` of shape [N, 2]."""
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["value"], domain=domain)],
        "tiny",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [None, 2])],
        [helper.make_tensor_value_info("value", TensorProto.FLOAT, [None, 1])],
        [numpy_helper.from_array(np.array(weights, dtype=np.float32).reshape(2, 1), "w")],
    )
    opsets = [helper.make_opsetid("", 17), *([helper.make_opsetid(domain, 1)] if domain else [])]
    model: onnx.ModelProto = helper.make_model(graph, opset_imports=opsets, ir_version=8, **changes)
    return bytes(model.SerializeToString())


def tiny_bundle(
    name: str = "quality", version: str = "1.0.0", *, weights: tuple[float, float] = (1.0, 2.0)
) -> TinyBundle:
    """Make a bundle of `linear_model`, with a reference over 200 rows; other weights make another digest."""
    rows = np.random.default_rng(7).normal(size=(200, 2)).astype(np.float32)
    values = (rows @ np.array(weights, dtype=np.float32)).reshape(-1, 1)
    spec = ProfileSpec(
        (
            Stream("a", "input", fit_numeric(rows[:, 0]), "x", 0),
            Stream("b", "input", fit_numeric(rows[:, 1]), "x", 1),
            Stream("value", "output", fit_numeric(values[:, 0]), "value", 0),
        )
    )
    schema = ModelSchema(
        tensors=(TensorSpec(name="x", dtype="float32", shape=(None, 2)),),
        inputs=(
            FieldSpec(name="a", dtype="float32", tensor="x", column=0),
            FieldSpec(name="b", dtype="float32", tensor="x", column=1),
        ),
        outputs=(OutputSpec(name="value", dtype="float32", shape=(None, 1), role="value"),),
    )
    info = BundleInfo(name=name, version=version, task="regression", framework="tiny")
    files = {
        BUNDLE_JSON: encode_document(info),
        SCHEMA_JSON: encode_document(schema),
        MODEL_ONNX: linear_model(weights),
        REFERENCE_JSON: encode_reference(Reference(spec, summarise(spec, {"x": rows, "value": values}))),
        README: f"# {name}\n".encode(),
    }
    return TinyBundle(name, version, files)


def push_bundle(http: Any, bundle: TinyBundle, *, headers: dict[str, str], tag: str | None = None) -> Any:
    """Push blobs and manifest with a requests-like client (`post`, `put`); returns the manifest's answer."""
    for digest, content in bundle.blobs.items():
        answer = http.post(
            f"/v2/{bundle.name}/blobs/uploads/", params={"digest": digest}, content=content, headers=headers
        )
        if answer.status_code != 201:
            return answer
    return put_manifest(http, bundle.name, tag or bundle.version, bundle.manifest, headers=headers)


def put_manifest(
    http: Any,
    repository: str,
    reference: str,
    raw: bytes,
    *,
    headers: dict[str, str],
    media_type: str = MANIFEST_MEDIA_TYPE,
) -> Any:
    """Push manifest bytes under a tag or digest; returns the answer."""
    return http.put(
        f"/v2/{repository}/manifests/{reference}", content=raw, headers={**headers, "content-type": media_type}
    )
