"""The Open Inference Protocol's wire form."""

import json

import numpy as np
import pytest

from fixtures_models import linear_schema, mixed_schema
from shoal_agent.serving.inference_protocol import (
    InferAnswer,
    InferRequest,
    RequestError,
    encode_infer,
    model_metadata,
    parse_infer,
)

ANSWER = InferAnswer(
    "quality",
    "1.0.0",
    {
        "label": np.array([1, 0]),
        "p": np.array([[0.5, 0.5], [np.nan, 1.0]], np.float32),
        "t": np.array(["é", ""], object),
    },
    {"digest": "sha256:00"},
)


def request(**tensor: object) -> bytes:
    return json.dumps(
        {"inputs": [{"name": "x", "shape": [2], "datatype": "FP32", "data": [1, 2.5], **tensor}]}
    ).encode()


def test_json_numbers_become_an_array_of_their_datatype() -> None:
    parsed = parse_infer(request())
    assert parsed.tensors["x"].dtype == np.float32
    assert parsed.tensors["x"].tolist() == [1.0, 2.5]


def test_nested_lists_and_null_for_nan_are_taken() -> None:
    x = parse_infer(request(shape=[2, 2], data=[[1, None], [3, 4]])).tensors["x"]
    assert x.shape == (2, 2)
    assert np.isnan(x[0, 1])
    assert x[1].tolist() == [3.0, 4.0]


@pytest.mark.parametrize(
    ("tensor", "says"),
    [
        ({"data": ["1", 2]}, "expected FP32 values, got '1'"),
        ({"data": [True, 2]}, "expected FP32 values, got True"),
        ({"data": [1]}, "1 values do not fill the shape"),
        ({"shape": [-2]}, "negative or too large"),
        ({"shape": [2**40, 2**40]}, "negative or too large"),
        ({"datatype": "FLOAT"}, "datatype 'FLOAT'"),
        ({"datatype": "UINT8", "data": [1, 300]}, "out of range for UINT8"),
        ({"datatype": "INT64", "data": [1, 2.5]}, "expected INT64"),
        ({"datatype": "INT64", "data": [1, 2**70]}, "'x'"),
        ({"datatype": "BYTES", "data": ["a", 1]}, "expected BYTES"),
        ({"parameters": {"binary_data_size": 4}}, "0 bytes are left"),
        ({"parameters": {"binary_data_size": "4"}}, "expected a number of bytes"),
    ],
)
def test_what_is_wrong_is_said(tensor: dict[str, object], says: str) -> None:
    with pytest.raises(RequestError, match=says):
        parse_infer(request(**tensor))


@pytest.mark.parametrize("datatype", ["FP16", "FP32", "FP64"])
def test_what_is_beyond_the_range_of_floats_is_infinite_and_nobody_is_warned(datatype: str) -> None:
    x = parse_infer(request(datatype=datatype, shape=[1, 2], data=[1e300, 1])).tensors["x"]
    assert x.tolist() == [[1e300 if datatype == "FP64" else np.inf, 1.0]]


@pytest.mark.parametrize("body", [b"", b"[]", b"{}", b'{"inputs": 1}', b'{"inputs": [{"name": "x"}]}', b"\xff"])
def test_other_bodies_are_refused(body: bytes) -> None:
    with pytest.raises(RequestError):
        parse_infer(body)


def test_binary_tensors_follow_the_json_in_the_order_of_inputs() -> None:
    a, b = np.arange(3, dtype=np.int16), ["Bern", "é"]
    texts = b"".join(len(t.encode()).to_bytes(4, "little") + t.encode() for t in b)
    head = json.dumps(
        {
            "inputs": [
                {"name": "a", "shape": [3], "datatype": "INT16", "parameters": {"binary_data_size": 6}},
                {"name": "b", "shape": [2, 1], "datatype": "BYTES", "parameters": {"binary_data_size": len(texts)}},
            ]
        }
    ).encode()
    parsed = parse_infer(head + a.tobytes() + texts, len(head))
    assert parsed.tensors["a"].tolist() == [0, 1, 2]
    assert parsed.tensors["b"].tolist() == [["Bern"], ["é"]]


def test_a_body_longer_than_its_tensors_is_refused() -> None:
    head = json.dumps(
        {"inputs": [{"name": "a", "shape": [1], "datatype": "INT8", "parameters": {"binary_data_size": 1}}]}
    ).encode()
    with pytest.raises(RequestError, match="1 bytes follow"):
        parse_infer(head + b"ab", len(head))
    with pytest.raises(RequestError, match="the body has"):
        parse_infer(head, len(head) + 1)


def test_an_answer_names_model_version_and_digest() -> None:
    body, length = encode_infer(ANSWER, InferRequest({}, id="7"))
    document = json.loads(body)
    assert length is None
    assert (document["model_name"], document["model_version"], document["id"]) == ("quality", "1.0.0", "7")
    assert document["parameters"] == {"digest": "sha256:00"}
    assert document["outputs"][1] == {"name": "p", "shape": [2, 2], "datatype": "FP32", "data": [0.5, 0.5, None, 1.0]}


def test_wanted_outputs_come_in_their_order_each_in_its_form() -> None:
    body, length = encode_infer(ANSWER, InferRequest({}, outputs={"t": True, "label": False, "p": True}))
    assert length is not None
    outputs = json.loads(body[:length])["outputs"]
    assert [o["name"] for o in outputs] == ["t", "label", "p"]
    assert outputs[1]["data"] == [1, 0]
    size = outputs[0]["parameters"]["binary_data_size"]
    assert body[length : length + size] == b"\x02\x00\x00\x00\xc3\xa9\x00\x00\x00\x00"
    assert body[length + size :] == ANSWER.outputs["p"].tobytes()


def test_without_names_all_outputs_come_in_binary_if_asked() -> None:
    body, length = encode_infer(ANSWER, InferRequest({}, binary_outputs=True))
    assert length is not None
    assert all("binary_data_size" in o["parameters"] for o in json.loads(body[:length])["outputs"])


def test_an_unknown_output_is_named() -> None:
    with pytest.raises(RequestError, match="no output 'q'; it has label, p, t"):
        encode_infer(ANSWER, InferRequest({}, outputs={"q": False}))


def test_metadata_uses_the_protocols_names_and_sizes() -> None:
    linear = model_metadata("quality", "1.0.0", linear_schema())
    assert linear["inputs"] == [{"name": "x", "datatype": "FP32", "shape": [-1, 4]}]
    assert [o["datatype"] for o in linear["outputs"]] == ["INT64", "FP32"]
    assert model_metadata("m", "1", mixed_schema())["inputs"][2]["datatype"] == "BYTES"
