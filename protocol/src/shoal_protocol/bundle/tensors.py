"""ONNX ``TensorProto`` without the onnx package: the golden rows' wire form.

Owns just enough of the protocol-buffers encoding (https://protobuf.dev/programming-guides/encoding) to write and read a
tensor's dims, data type, name and content, for the types that models take and give. The agent has no onnx package.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from shoal_protocol.errors import ContentError

_STRING = 8
_TYPES: dict[int, str] = {
    1: "<f4", 2: "u1", 3: "i1", 4: "<u2", 5: "<i2", 6: "<i4", 7: "<i8", 9: "?", 10: "<f2", 11: "<f8",
    12: "<u4", 13: "<u8",
}  # fmt: skip
_CODES = {np.dtype(name): code for code, name in _TYPES.items()}

_DIMS, _DATA_TYPE, _STRING_DATA, _NAME, _RAW_DATA = 1, 2, 6, 8, 9
_MAX_ELEMENTS = 1 << 28
_MAX_DIMENSIONS = 32


def encode_tensor(name: str, values: npt.NDArray[np.generic]) -> bytes:
    """Encode an array as a serialised ``onnx.TensorProto``.

    Args:
        name: The tensor's name.
        values: Any shape; bool, integer, float or text (object or str) dtype.

    Raises:
        ContentError: ONNX has no such data type.
    """
    out = bytearray()
    for size in values.shape:
        out += _tag(_DIMS, 0) + _varint(size)
    if values.dtype.kind in "OUS":
        out += _tag(_DATA_TYPE, 0) + _varint(_STRING)
        for text in values.ravel():
            out += _field(_STRING_DATA, text if isinstance(text, bytes) else str(text).encode())
        return bytes(out + _field(_NAME, name.encode()))
    plain = np.ascontiguousarray(values, dtype=values.dtype.newbyteorder("<"))
    code = _CODES.get(plain.dtype)
    if code is None:
        raise ContentError(f"tensor {name!r}: ONNX has no data type for {values.dtype}")
    out += _tag(_DATA_TYPE, 0) + _varint(code)
    return bytes(out + _field(_NAME, name.encode()) + _field(_RAW_DATA, plain.tobytes()))


def decode_tensor(raw: bytes) -> tuple[str, npt.NDArray[np.generic]]:
    """Decode a serialised ``onnx.TensorProto`` as `encode_tensor` (and onnx's ``numpy_helper``) writes it.

    Returns:
        Name and array; text has dtype object.

    Raises:
        ContentError: The bytes are no such tensor, or its content does not fill its shape.
    """
    dims: list[int] = []
    texts: list[str] = []
    code, name, content = 0, "", b""
    for number, value in _fields(raw):
        if number == _DIMS:
            dims.extend(_packed(value) if isinstance(value, bytes) else [value])
        elif number == _DATA_TYPE and isinstance(value, int):
            code = value
        elif number == _STRING_DATA and isinstance(value, bytes):
            texts.append(value.decode(errors="surrogateescape"))
        elif number == _NAME and isinstance(value, bytes):
            name = value.decode(errors="replace")
        elif number == _RAW_DATA and isinstance(value, bytes):
            content = value
        else:
            raise ContentError(f"tensor: field {number} is not one that Shoal's golden rows use")
    return name, _array(name, code, dims, content, texts)


def _array(name: str, code: int, dims: list[int], content: bytes, texts: list[str]) -> npt.NDArray[np.generic]:
    count = 1
    for size in dims:
        count *= size
        if size > _MAX_ELEMENTS or count > _MAX_ELEMENTS or len(dims) > _MAX_DIMENSIONS:
            raise ContentError(f"tensor {name!r}: the shape {dims} is too large")
    if code == _STRING:
        if len(texts) != count:
            raise ContentError(f"tensor {name!r}: {len(texts)} texts do not fill the shape {dims}")
        return np.array(texts, dtype=object).reshape(dims)
    if code not in _TYPES:
        raise ContentError(f"tensor {name!r}: data type {code} is not supported")
    dtype = np.dtype(_TYPES[code])
    if len(content) != count * dtype.itemsize:
        raise ContentError(f"tensor {name!r}: {len(content)} bytes do not fill the shape {dims} of {dtype}")
    return np.frombuffer(content, dtype=dtype).reshape(dims).copy()


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def _tag(number: int, wire: int) -> bytes:
    return _varint(number << 3 | wire)


def _field(number: int, content: bytes) -> bytes:
    return _tag(number, 2) + _varint(len(content)) + content


def _read_varint(raw: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while at < len(raw) and shift < 64:
        byte = raw[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7
    raise ContentError("tensor: a number is cut off or too long")


def _packed(raw: bytes) -> list[int]:
    values, at = [], 0
    while at < len(raw):
        value, at = _read_varint(raw, at)
        values.append(value)
    return values


def _fields(raw: bytes) -> Iterator[tuple[int, int | bytes]]:
    at = 0
    while at < len(raw):
        tag, at = _read_varint(raw, at)
        value, at = _read_varint(raw, at)
        if tag & 7 == 0:
            yield tag >> 3, value
        elif tag & 7 == 2:
            if at + value > len(raw):
                raise ContentError("tensor: a field is cut off")
            yield tag >> 3, raw[at : at + value]
            at += value
        else:
            raise ContentError(f"tensor: wire type {tag & 7} is not one that Shoal's golden rows use")
