"""Prediction ids that describe themselves: what a label needs to be counted, so that no device remembers predictions.

An id holds the model, the time, and of each row what was said; a key of this device authenticates it (keyed BLAKE2b,
RFC 7693), so that only what this device predicted can be labelled. Making one costs a few microseconds and happens when
it is asked for.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import struct
import time
from collections.abc import Callable, Mapping
from typing import Any

import msgspec
import numpy.typing as npt

from shoal_agent.runtime.answer_form import AnswerForm
from shoal_agent.runtime.errors import PredictionIdError, UnknownPredictionError

MAX_ROWS = 1024
"""Rows of one call that its id describes; a larger call's id says that it is too large."""

MODEL_BYTES = 6
_HEAD = struct.Struct(">B6s4sIQ")  # version, model, load, serial, milliseconds
_VERSION = 1
_MAC_BYTES = 8
_MAX_CHARS = 4 * (_HEAD.size + 4 * MAX_ROWS + _MAC_BYTES)


class Said(msgspec.Struct, frozen=True):
    """What an id says.

    Attributes:
        model: Of `model_key`.
        at_ms: When it was predicted, milliseconds since the epoch by the device's clock.
        answers: Of `AnswerForm.said`.
        mark: Tells this call from all others of the device.
    """

    model: bytes
    at_ms: int
    answers: bytes
    mark: bytes


class Mint(msgspec.Struct, frozen=True):
    """Makes the ids of one loaded model.

    Attributes:
        key: The device's.
        model: Of `model_key`.
        form: Of its answers.
        wall: Seconds since the epoch.
    """

    key: bytes
    model: bytes
    form: AnswerForm
    wall: Callable[[], float]

    def make(self, outputs: Mapping[str, npt.NDArray[Any]], *, nonce: str, serial: int, at_ns: int) -> str:
        """Return the id of a call.

        Args:
            outputs: What it answered, rows first.
            nonce: Of this load of the model, hexadecimal.
            serial: Of the call in it.
            at_ns: When it began, by ``time.perf_counter_ns``.
        """
        at_ms = int(self.wall() * 1000 - (time.perf_counter_ns() - at_ns) / 1e6)
        answers = self.form.said(outputs)
        if len(answers) > MAX_ROWS * self.form.row_bytes:
            answers = b""
        load = bytes.fromhex(nonce)[:4]
        body = _HEAD.pack(_VERSION, self.model, load, serial & 0xFFFFFFFF, max(at_ms, 0)) + answers
        return base64.urlsafe_b64encode(body + _mac(self.key, body)).rstrip(b"=").decode()


def model_key(slot: str, digest: str) -> bytes:
    """Return the six bytes by which ids name a bundle in a slot."""
    return hashlib.blake2b(f"{digest}@{slot}".encode(), digest_size=MODEL_BYTES).digest()


def read_id(key: bytes, text: str) -> Said:
    """Read an id of this device.

    Raises:
        PredictionIdError: It is no id; `UnknownPredictionError` when it is not one of this device.
    """
    if not text or len(text) > _MAX_CHARS:
        raise PredictionIdError(f"expected the prediction_id of an answer, got {text!r:.60}")
    try:
        raw = base64.b64decode(text.encode() + b"=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError) as error:
        raise PredictionIdError(f"{text!r:.60} is no prediction_id: it is cut off or changed") from error
    body, mac = raw[:-_MAC_BYTES], raw[-_MAC_BYTES:]
    if len(body) < _HEAD.size or body[0] != _VERSION:
        raise PredictionIdError(f"{text!r:.60} is no prediction_id of this version")
    if not _same(_mac(key, body), mac):
        raise UnknownPredictionError(f"{text!r:.60} was not given by this device, or was changed")
    _, model, _, _, at_ms = _HEAD.unpack_from(body)
    return Said(model, at_ms, body[_HEAD.size :], mac)


def _mac(key: bytes, body: bytes) -> bytes:
    return hashlib.blake2b(body, key=key, digest_size=_MAC_BYTES).digest()


def _same(a: bytes, b: bytes) -> bool:
    from hmac import compare_digest  # noqa: PLC0415 - only where labels come in

    return compare_digest(a, b)
