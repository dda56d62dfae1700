"""Whatever bytes come, parsers answer with their own errors; what they write, they read."""

import json

import msgspec
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from shoal_agent.runtime.errors import InputError
from shoal_agent.runtime.inputs import InputPlan
from shoal_agent.serving.http_message import Head, HttpError, KnownHead, parse_head
from shoal_agent.serving.inference_protocol import (
    InferAnswer,
    InferRequest,
    RequestError,
    encode_infer,
    parse_infer,
)
from shoal_agent.serving.plain_rows import parse_rows
from shoal_agent.serving.row_table import RowTable
from shoal_protocol.bundle.schema import FieldSpec, ModelSchema, TensorSpec

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


HEAD = b"POST /v1/predict HTTP/1.1\r\nHost: a\r\nContent-Length: 12\r\nX-B: c"


@settings(deadline=None)
@given(st.integers(0, len(HEAD)), st.integers(0, 6), st.binary(max_size=6) | st.sampled_from([b"9", b"\r\n", b": 1"]))
def test_a_head_that_is_known_again_is_what_parsing_makes_of_it(at: int, cut: int, new: bytes) -> None:
    data = HEAD[:at] + new + HEAD[at + cut :] + b"\r\n\r\nbody"
    found = KnownHead(HEAD, parse_head(HEAD)).read(data)
    if found is not None:
        parsed = parse_head(data[: found[0] - 4])
        headers = {**parsed.headers, "content-length": "12"}
        assert msgspec.structs.replace(parsed, content_length=12, headers=headers) == parse_head(HEAD)
        assert found == (data.find(b"\r\n\r\n") + 4, parsed.content_length)


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


def one_matrix(dtype: str) -> ModelSchema:
    fields = tuple(
        FieldSpec(name=name, dtype=dtype, tensor="x", column=at) for at, name in enumerate(("b", "a\u00e9", "c"))
    )
    return ModelSchema(tensors=(TensorSpec(name="x", dtype=dtype, shape=(None, 3)),), inputs=fields, outputs=())


def columns(*dtypes: str) -> ModelSchema:
    names = ("b", "a\u00e9", "c")
    return ModelSchema(
        tensors=tuple(TensorSpec(name=f"t{n}", dtype=d, shape=(None, 1)) for n, d in zip(names, dtypes, strict=True)),
        inputs=tuple(FieldSpec(name=n, dtype=d, tensor=f"t{n}", column=0) for n, d in zip(names, dtypes, strict=True)),
        outputs=(),
    )


SCHEMAS = (
    *(one_matrix(dtype) for dtype in ("float32", "float64", "float16")),
    columns("float64", "float64", "float64"),
    columns("float32", "float64", "float32"),
)
NUMBER = st.none() | st.floats(allow_nan=False, allow_infinity=False) | st.integers(-(2**80), 2**80)
ROW = st.fixed_dictionaries({"b": NUMBER, "a\u00e9": NUMBER, "c": NUMBER})
NEARLY = st.fixed_dictionaries({"b": NUMBER | JSON}, optional={"a\u00e9": NUMBER, "c": NUMBER, "d": NUMBER})


@pytest.mark.parametrize("schema", SCHEMAS)
@settings(deadline=None, max_examples=60)
@example(rows=[{"b": [], "a\u00e9": None, "c": None}])
@given(rows=st.lists(ROW, min_size=1, max_size=4) | st.lists(NEARLY, max_size=3))
def test_rows_read_at_once_are_what_the_long_way_makes_of_them(schema: ModelSchema, rows: list[object]) -> None:
    body = json.dumps(rows).encode()
    got = RowTable(schema).read(body)
    try:
        expected = InputPlan(schema).row_feeds(parse_rows(body))
    except (RequestError, InputError):
        assert got is None
        return
    if got is not None:
        assert list(got) == list(expected)
        for name, array in got.items():
            assert (array.dtype, array.shape) == (expected[name].dtype, expected[name].shape)
            assert array.tobytes() == expected[name].tobytes()
