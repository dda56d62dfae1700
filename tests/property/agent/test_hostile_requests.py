"""Whatever bytes come, parsers answer with their own errors; what they write, they read."""

import json

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from shoal_agent.serving.http_message import Head, HttpError, parse_head
from shoal_agent.serving.inference_protocol import (
    InferAnswer,
    InferRequest,
    RequestError,
    encode_infer,
    parse_infer,
)
from shoal_agent.serving.plain_rows import parse_rows

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
)
TENSOR = st.fixed_dictionaries(
    {
        "name": st.text(max_size=3),
        "shape": st.lists(st.integers(-1, 4), max_size=3),
        "datatype": st.sampled_from(["FP32", "BYTES", "INT8", "BOOL", "X"]),
    },
    optional={"data": JSON, "parameters": st.fixed_dictionaries({"binary_data_size": st.integers(-1, 40) | JSON})},
)


@settings(deadline=None)
@given(st.binary(max_size=300) | st.text(max_size=200).map(lambda t: f"GET /{t} HTTP/1.1\r\nHost: a".encode()))
def test_any_bytes_are_a_head_or_an_http_error(raw: bytes) -> None:
    try:
        parsed: Head | HttpError = parse_head(raw)
    except HttpError as error:
        parsed = error
    assert isinstance(parsed, Head) or 400 <= parsed.status < 500


@settings(deadline=None)
@given(st.binary(max_size=200), st.none() | st.integers(0, 220))
def test_any_bytes_are_a_request_or_a_request_error(body: bytes, length: int | None) -> None:
    outcome = "refused"
    try:
        outcome = type(parse_infer(body, length)).__name__
        assert all(isinstance(row, dict) for row in parse_rows(body))
    except RequestError as error:
        outcome = outcome if error.message else "refused without a word"
    assert outcome in {"refused", "InferRequest"}


@settings(deadline=None)
@given(st.lists(TENSOR, max_size=3), st.binary(max_size=64))
def test_requests_of_nearly_the_right_form_never_break_the_parser(tensors: list[object], tail: bytes) -> None:
    head = json.dumps({"inputs": tensors}).encode()
    try:
        request = parse_infer(head + tail, len(head))
    except RequestError:
        return
    for entry in json.loads(head)["inputs"]:
        assert list(request.tensors[entry["name"]].shape) == entry["shape"]


NUMERIC = hnp.scalar_dtypes().filter(lambda d: d.kind in "fiub" and d.itemsize <= 8)


@settings(deadline=None)
@given(
    array=hnp.arrays(NUMERIC, hnp.array_shapes(min_dims=1, max_dims=3, min_side=0, max_side=4)), binary=st.booleans()
)
def test_an_answer_read_as_a_request_is_the_same_array(array: np.ndarray, binary: bool) -> None:
    array = array.astype(array.dtype.newbyteorder("<"))
    answer = InferAnswer("m", "1", {"x": array}, {})
    body, length = encode_infer(answer, InferRequest({}, binary_outputs=binary))
    text, blobs = (body, b"") if length is None else (body[:length], body[length:])
    head = json.dumps({"inputs": json.loads(text)["outputs"]}).encode()
    back = parse_infer(head + blobs, len(head)).tensors["x"]
    assert back.dtype == array.dtype
    if binary or array.dtype.kind != "f":
        assert back.tobytes() == array.tobytes()
    else:
        finite = np.isfinite(array)
        assert np.array_equal(back[finite], array[finite])
        assert np.isnan(back[~finite]).all()
