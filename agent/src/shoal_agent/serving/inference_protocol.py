"""The Open Inference Protocol v2 over HTTP: its JSON, its binary tensors, nothing else.

Owns the wire form of requests, answers and metadata (https://github.com/kserve/open-inference-protocol, with Triton's
binary tensor extension). Pure: no model and no socket. Numbers that JSON lacks (NaN, infinities) travel as ``null``
there, and as they are in binary tensors.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from shoal_agent.runtime.conversion import floats
from shoal_protocol.bundle.schema import ModelSchema
from shoal_protocol.errors import CallerError

Array = npt.NDArray[Any]

EXTENSIONS = ("binary_tensor_data",)
HEADER_LENGTH = "inference-header-content-length"
"""Header that says how many bytes of the body are JSON; present exactly when a tensor follows in binary."""

_DTYPES = {
    name: np.dtype(code)
    for name, code in {
        "BOOL": "?", "UINT8": "u1", "UINT16": "<u2", "UINT32": "<u4", "UINT64": "<u8", "INT8": "i1", "INT16": "<i2",
        "INT32": "<i4", "INT64": "<i8", "FP16": "<f2", "FP32": "<f4", "FP64": "<f8",
    }.items()
}  # fmt: skip
_NAMES = {dtype: name for name, dtype in _DTYPES.items()}
_BYTES = "BYTES"
_MAX_ELEMENTS = 1 << 26
_MAX_DIMENSIONS = 16


class RequestError(CallerError):
    """A request is not of the protocol; the message says which part."""

    code = "request"


class InferRequest(msgspec.Struct, frozen=True):
    """A parsed request.

    Attributes:
        tensors: Inputs by name.
        id: Of the request, given back in the answer.
        outputs: Wanted outputs and whether each is wanted in binary; none: all of them.
        binary_outputs: Whether outputs that are not named are wanted in binary.
    """

    tensors: dict[str, Array]
    id: str | None = None
    outputs: dict[str, bool] | None = None
    binary_outputs: bool = False


class InferAnswer(msgspec.Struct, frozen=True):
    """What a model answered.

    Attributes:
        model_name: The slot.
        model_version: The bundle's version.
        outputs: All outputs by name.
        parameters: More facts, such as the digest.
    """

    model_name: str
    model_version: str
    outputs: Mapping[str, Array]
    parameters: Mapping[str, str]


class _Output(msgspec.Struct):
    name: str
    parameters: dict[str, Any] = {}


class _Input(msgspec.Struct):
    name: str
    shape: list[int]
    datatype: str
    parameters: dict[str, Any] = {}
    data: msgspec.Raw = msgspec.Raw(b"")


class _Request(msgspec.Struct):
    inputs: list[_Input]
    id: str | None = None
    parameters: dict[str, Any] = {}
    outputs: list[_Output] = []


_request_decoder = msgspec.json.Decoder(_Request)
_decoders = {
    kind: msgspec.json.Decoder(list[value])  # type: ignore[valid-type]  # one of these four
    for kind, value in {"f": float, "i": int, "u": int, "b": bool, "S": str}.items()
}
_flat_decoders = {name: _decoders[dtype.kind] for name, dtype in _DTYPES.items()} | {_BYTES: _decoders["S"]}
_encoder = msgspec.json.Encoder()


def parse_infer(body: bytes | memoryview, header_length: int | None = None) -> InferRequest:
    """Parse the body of an ``infer`` request.

    Args:
        body: JSON, followed by binary tensors where `header_length` is given.
        header_length: Value of the header `HEADER_LENGTH`.

    Raises:
        RequestError: It is no such request, or data does not fill its shape.
    """
    if header_length is not None and not 0 <= header_length <= len(body):
        raise RequestError(f"Inference-Header-Content-Length is {header_length}, but the body has {len(body)} bytes")
    text = body if header_length is None else memoryview(body)[:header_length]
    try:
        request = _request_decoder.decode(text)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise RequestError(f"the body is no infer request: {error}") from error
    blobs = _Blobs(memoryview(body), len(text))
    tensors = {entry.name: _tensor(entry, blobs) for entry in request.inputs}
    if len(tensors) != len(request.inputs):
        raise RequestError("an input stands twice in the request")
    blobs.check_used_up()
    outputs = {o.name: _flag(o.parameters, "binary_data") for o in request.outputs} if request.outputs else None
    return InferRequest(tensors, request.id, outputs, _flag(request.parameters, "binary_data_output"))


def encode_infer(answer: InferAnswer, request: InferRequest) -> tuple[bytes, int | None]:
    """Write an answer.

    Args:
        answer: What the model said.
        request: Which outputs are wanted, in which form.

    Returns:
        The body, and the length of its JSON where binary tensors follow.

    Raises:
        RequestError: A wanted output is not one of the model's.
    """
    wanted = request.outputs
    if wanted is None:
        wanted = dict.fromkeys(answer.outputs, request.binary_outputs)
    elif unknown := [name for name in wanted if name not in answer.outputs]:
        raise RequestError(f"the model has no output {unknown[0]!r}; it has {', '.join(answer.outputs)}")
    blobs: list[bytes] = []
    outputs = [_output(name, answer.outputs[name], blobs if binary else None) for name, binary in wanted.items()]
    document: dict[str, Any] = {
        "model_name": answer.model_name,
        "model_version": answer.model_version,
        "parameters": answer.parameters,
        "outputs": outputs,
    }
    if request.id is not None:
        document["id"] = request.id
    text = _encoder.encode(document)
    return (b"".join([text, *blobs]), len(text)) if blobs else (text, None)


def server_metadata(version: str) -> dict[str, Any]:
    """Return the answer of ``GET /v2``."""
    return {"name": "shoal-agent", "version": version, "extensions": list(EXTENSIONS)}


def model_metadata(name: str, version: str, schema: ModelSchema) -> dict[str, Any]:
    """Return the answer of ``GET /v2/models/{name}``; an open size is -1."""
    return {
        "name": name,
        "versions": [version],
        "platform": "onnxruntime_onnx",
        "inputs": [_tensor_metadata(t.name, t.dtype, t.shape) for t in schema.tensors],
        "outputs": [_tensor_metadata(o.name, o.dtype, o.shape) for o in schema.outputs],
    }


def datatype_of(dtype: np.dtype[Any]) -> str:
    """Return the protocol's name of a dtype; text of any kind is ``BYTES``.

    >>> datatype_of(np.dtype("float32")), datatype_of(np.dtype(object))
    ('FP32', 'BYTES')
    """
    return _NAMES.get(dtype) or (_BYTES if dtype.kind in "OUS" else _NAMES[dtype.newbyteorder("<")])


class _Blobs:
    """The binary tensors behind the JSON, taken in the order of the inputs."""

    def __init__(self, view: memoryview, start: int) -> None:
        self._view = view
        self._at = start

    def take(self, size: int, name: str) -> memoryview:
        if not 0 <= size <= len(self._view) - self._at:
            left = len(self._view) - self._at
            raise RequestError(f"input {name!r}: binary_data_size is {size}, but {left} bytes are left in the body")
        self._at += size
        return self._view[self._at - size : self._at]

    def check_used_up(self) -> None:
        if self._at != len(self._view):
            raise RequestError(f"{len(self._view) - self._at} bytes follow the last tensor")


def _tensor(entry: _Input, blobs: _Blobs) -> Array:
    if entry.datatype not in _flat_decoders:
        raise RequestError(
            f"input {entry.name!r}: datatype {entry.datatype!r:.40} is not one of BYTES, {', '.join(_DTYPES)}"
        )
    count = _count(entry)
    size = entry.parameters.get("binary_data_size")
    if size is None:
        array = _from_json(entry, count)
    elif isinstance(size, int) and not isinstance(size, bool):
        array = _from_binary(entry, blobs.take(size, entry.name), count)
    else:
        raise RequestError(f"input {entry.name!r}: binary_data_size is {size!r:.40}, expected a number of bytes")
    return array.reshape(entry.shape)


def _count(entry: _Input) -> int:
    count = math.prod(entry.shape)
    if len(entry.shape) > _MAX_DIMENSIONS or min(entry.shape, default=0) < 0 or count > _MAX_ELEMENTS:
        raise RequestError(f"input {entry.name!r}: the shape {entry.shape[:20]} is negative or too large")
    return count


def _from_json(entry: _Input, count: int) -> Array:
    try:
        values = _flat_decoders[entry.datatype].decode(entry.data)
    except msgspec.DecodeError as error:
        kind = "S" if entry.datatype == _BYTES else _DTYPES[entry.datatype].kind
        values = _nested_values(entry, kind, error)
    if len(values) != count:
        raise RequestError(f"input {entry.name!r}: {len(values)} values do not fill the shape {entry.shape}")
    if entry.datatype == _BYTES:
        return np.array(values, dtype=object)
    dtype = _DTYPES[entry.datatype]
    if dtype.kind == "f":
        return floats(values, dtype)
    try:
        return np.array(values, dtype)
    except OverflowError as error:
        raise RequestError(f"input {entry.name!r}: a number is out of range for {entry.datatype}") from error


def _nested_values(entry: _Input, kind: str, cause: msgspec.DecodeError) -> list[Any]:
    """Take what the flat decoder refused: nested lists, which the protocol allows, and ``null`` for NaN."""
    wanted: tuple[type, ...] = {"f": (float, int), "b": (bool,), "S": (str,)}.get(kind, (int,))
    values: list[Any] = []
    try:
        pending = [msgspec.json.decode(entry.data)]
    except (msgspec.DecodeError, RecursionError):
        raise RequestError(f"input {entry.name!r}: {cause}") from cause
    while pending:
        value = pending.pop()
        if isinstance(value, list):
            pending.extend(reversed(value))
        elif value is None and kind == "f":
            values.append(math.nan)
        elif isinstance(value, wanted) and isinstance(value, bool) == (kind == "b"):
            values.append(value)
        else:
            shown = f"{value!r:.60} ({type(value).__name__})"
            raise RequestError(f"input {entry.name!r}: expected {entry.datatype} values, got {shown}") from cause
    return values


def _from_binary(entry: _Input, blob: memoryview, count: int) -> Array:
    if entry.datatype == _BYTES:
        return _unpack_texts(entry.name, blob, count)
    dtype = _DTYPES[entry.datatype]
    if len(blob) != count * dtype.itemsize:
        raise RequestError(
            f"input {entry.name!r}: {len(blob)} bytes do not fill the shape {entry.shape} of {entry.datatype}"
        )
    if entry.datatype == "BOOL":
        return np.asarray(np.frombuffer(blob, dtype=np.uint8) != 0)
    return np.frombuffer(blob, dtype=dtype)


def _unpack_texts(name: str, blob: memoryview, count: int) -> Array:
    """Each element is its length (4 bytes, little-endian) and its bytes."""
    texts: list[str] = []
    at = 0
    while at < len(blob):
        size = int.from_bytes(blob[at : at + 4], "little")
        at += 4 + size
        if at > len(blob) or len(texts) == count:
            raise RequestError(f"input {name!r}: the texts do not fill the shape")
        try:
            texts.append(str(blob[at - size : at], "utf-8"))
        except UnicodeDecodeError as error:
            raise RequestError(f"input {name!r}: text {len(texts)} is not UTF-8") from error
    if len(texts) != count:
        raise RequestError(f"input {name!r}: {len(texts)} texts do not fill the shape")
    return np.array(texts, dtype=object)


def _pack_texts(texts: Sequence[str]) -> bytes:
    parts = []
    for text in texts:
        raw = text.encode()
        parts += [len(raw).to_bytes(4, "little"), raw]
    return b"".join(parts)


def _output(name: str, array: Array, blobs: list[bytes] | None) -> dict[str, Any]:
    entry: dict[str, Any] = {"name": name, "shape": array.shape, "datatype": datatype_of(array.dtype)}
    if blobs is None:
        entry["data"] = array.reshape(-1).tolist()
        return entry
    is_text = array.dtype.kind in "OUS"
    blobs.append(_pack_texts([str(text) for text in array.reshape(-1)]) if is_text else array.tobytes())
    entry["parameters"] = {"binary_data_size": len(blobs[-1])}
    return entry


def _tensor_metadata(name: str, dtype: str, shape: Sequence[int | None]) -> dict[str, Any]:
    datatype = _BYTES if dtype == "string" else _NAMES[np.dtype(dtype)]
    return {"name": name, "datatype": datatype, "shape": [-1 if size is None else size for size in shape]}


def _flag(parameters: Mapping[str, Any], name: str) -> bool:
    value = parameters.get(name, False)
    if not isinstance(value, bool):
        raise RequestError(f"the parameter {name} is {value!r:.40}, expected true or false")
    return value
