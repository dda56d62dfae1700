import json

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from shoal_protocol.bundle.assembly import build_manifest
from shoal_protocol.bundle.layout import safe_path
from shoal_protocol.bundle.manifest import MAX_MANIFEST_BYTES, encode_manifest, parse_manifest
from shoal_protocol.bundle.schema import (
    BundleInfo,
    FieldSpec,
    ModelSchema,
    OutputSpec,
    TensorSpec,
    encode_document,
    parse_bundle_info,
    parse_schema,
)
from shoal_protocol.bundle.tensors import decode_tensor, encode_tensor
from shoal_protocol.canonical import sha256_digest
from shoal_protocol.errors import ContentError

FILES = {"model/model.onnx": b"model", "bundle.json": b"{}", "schema.json": b"[]"}


def manifest_document() -> dict[str, object]:
    return json.loads(encode_manifest(build_manifest(FILES, config=b"{}")))


def test_the_digest_does_not_depend_on_the_order_of_files() -> None:
    reverse = dict(reversed(FILES.items()))
    assert encode_manifest(build_manifest(FILES, config=b"{}")) == encode_manifest(
        build_manifest(reverse, config=b"{}")
    )


def test_a_manifest_survives_its_wire_form() -> None:
    manifest = build_manifest(FILES, config=b"{}", annotations={"a": "b"})
    parsed = parse_manifest(encode_manifest(manifest))
    assert parsed == manifest
    assert parsed.files()["model/model.onnx"].digest == sha256_digest(b"model")
    assert parsed.total_bytes == len(b"{}") + 5 + 2  # bundle.json and the config are one blob


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"schemaVersion": 1}, "schemaVersion 2"),
        ({"artifactType": "application/vnd.oci.image.config.v1+json"}, "artifactType"),
        ({"layers": "none"}, "no OCI image manifest"),
        ({"layers": [{"mediaType": "a", "digest": "sha256:1", "size": 1}]}, "expected a digest"),
        ({"layers": [{"mediaType": "a", "digest": "sha256:" + "0" * 64, "size": -1}]}, "has size"),
        ({"layers": [{"mediaType": "a", "digest": "sha256:" + "0" * 64, "size": 1}]}, "no annotation"),
    ],
)
def test_a_malformed_manifest_is_refused(change: dict[str, object], words: str) -> None:
    with pytest.raises(ContentError, match=words):
        parse_manifest(json.dumps(manifest_document() | change).encode())


def test_two_spellings_of_one_file_are_refused() -> None:
    document = manifest_document()
    layer = {**document["layers"][0], "annotations": {"org.cncf.model.filepath": "BUNDLE.json"}}  # type: ignore[index]
    document["layers"] = [*document["layers"], layer]  # type: ignore[misc]
    with pytest.raises(ContentError, match="stands twice"):
        parse_manifest(json.dumps(document).encode())


def test_an_oversized_manifest_is_refused_before_parsing() -> None:
    with pytest.raises(ContentError, match="at most"):
        parse_manifest(b" " * (MAX_MANIFEST_BYTES + 1))


@pytest.mark.parametrize(
    "path",
    [
        "",
        "/etc/passwd",
        "..",
        "a/../b",
        "a//b",
        ".ssh/x",
        "a\\b",
        "C:/x",
        "a/",
        "nul",
        "a/con.txt",
        "ä",
        "-rf",
        "a" * 600,
    ],
)
def test_an_unsafe_path_is_refused(path: str) -> None:
    with pytest.raises(ContentError, match="not safe|too long"):
        safe_path(path)


def test_a_newer_format_is_refused_by_name() -> None:
    raw = encode_document(BundleInfo(name="a", version="1", task="regression", framework="scikit-learn"))
    assert parse_bundle_info(raw).variants[0].path == "model/model.onnx"
    newer = json.loads(raw) | {"format_version": 2}
    with pytest.raises(ContentError, match="format version 2") as caught:
        parse_bundle_info(json.dumps(newer).encode())
    assert "update" in caught.value.hint


def test_unknown_fields_are_no_fault() -> None:
    raw = encode_document(BundleInfo(name="a", version="1", task="other", framework="onnx"))
    assert parse_bundle_info(json.dumps(json.loads(raw) | {"later": 1}).encode()).name == "a"


def test_a_feature_must_name_a_tensor() -> None:
    schema = ModelSchema(
        tensors=(TensorSpec(name="x", dtype="float32", shape=(None, 2)),),
        inputs=(FieldSpec(name="age", dtype="float32", tensor="y", column=0),),
        outputs=(OutputSpec(name="label", dtype="int64", shape=(None,), role="label"),),
    )
    with pytest.raises(ContentError, match="'age' -> 'y'"):
        parse_schema(encode_document(schema))


ARRAYS = [
    np.arange(6, dtype=np.float32).reshape(2, 3),
    np.array([[1.5], [np.nan]], dtype=np.float64),
    np.array([1, -2], dtype=np.int64),
    np.array([True, False]),
    np.array(["", "Zürich", "b"], dtype=object),
    np.zeros((0, 4), dtype=np.float32),
    np.array([1.5], dtype=np.float16),
]


@pytest.mark.parametrize("array", ARRAYS, ids=lambda a: f"{a.dtype}{a.shape}")
def test_tensors_are_those_of_onnx(array: np.ndarray) -> None:
    ours = encode_tensor("t", array)
    theirs = onnx.load_tensor_from_string(ours)
    assert theirs.name == "t"
    read = numpy_helper.to_array(theirs)
    np.testing.assert_array_equal(read.astype(object) if array.dtype == object else read, array)
    name, decoded = decode_tensor(numpy_helper.from_array(array, "t").SerializeToString())
    assert name == "t"
    assert decoded.dtype == array.dtype
    np.testing.assert_array_equal(decoded, array)


def test_a_cut_tensor_is_refused() -> None:
    raw = encode_tensor("t", np.arange(100, dtype=np.float32))
    for length in range(1, len(raw)):
        with pytest.raises(ContentError, match="tensor"):
            decode_tensor(raw[:length])


@pytest.mark.parametrize("dims", [[0, 1 << 62], [1] * 70, [1 << 20, 1 << 20]])
def test_a_shape_that_numpy_can_not_have_is_refused(dims: list[int]) -> None:
    tensor = onnx.TensorProto(name="x", data_type=onnx.TensorProto.FLOAT, dims=dims, raw_data=bytes(4))
    with pytest.raises(ContentError, match="shape"):
        decode_tensor(tensor.SerializeToString())
