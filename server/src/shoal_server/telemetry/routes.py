"""HTTP for devices that can't reach MQTT: the same messages, the same acknowledgements."""

from __future__ import annotations

import base64
import binascii
from typing import Annotated

import msgspec
from fastapi import APIRouter, Depends, Request, Response

from shoal_protocol.errors import ContentError
from shoal_protocol.mqtt.messages import MAX_PAYLOAD, Ack
from shoal_protocol.mqtt.topics import Up
from shoal_server.access.guard import Program, require_device
from shoal_server.access.roles import Principal
from shoal_server.errors import TooLargeError

router = APIRouter(prefix="/api/v1/device", tags=["device"])

MAX_MESSAGES = 256
MAX_BODY = 4 * 1024 * 1024

Device = Annotated[Principal, Depends(require_device())]


class PostedMessage(msgspec.Struct, frozen=True):
    """One message: its kind, and its bytes in base64."""

    kind: Up
    payload: str


class Rejected(msgspec.Struct, frozen=True):
    """A message that was recorded as malformed and must not be sent again."""

    index: int
    fault: str


class Taken(msgspec.Struct, frozen=True):
    """What is committed: the acknowledgements that MQTT would bring, and what was malformed."""

    acks: tuple[Ack, ...]
    rejected: tuple[Rejected, ...]


async def _body(request: Request) -> bytes:
    """Read a body of bounded size; raises `TooLargeError` before it is all in memory."""
    raw = bytearray()
    async for chunk in request.stream():
        raw += chunk
        if len(raw) > MAX_BODY:
            raise TooLargeError(f"expected at most {MAX_BODY} bytes of messages", hint="send fewer at a time")
    return bytes(raw)


@router.post("/messages", operation_id="device_messages")
def messages(device: Device, program: Program, body: Annotated[bytes, Depends(_body)]) -> Response:
    """Take messages in; answers when they are committed. 503: keep them and come again."""
    assert device.device is not None
    submission = program.ingest.submit_and_wait(device.device, _parsed(body))
    rejected = [
        Rejected(at, arrived.fault) for at, arrived in enumerate(submission.arrivals) if arrived.message is None
    ]
    taken = Taken(tuple(submission.acks.values()), tuple(rejected))
    return Response(msgspec.json.encode(taken), media_type="application/json")


def _parsed(body: bytes) -> list[tuple[Up, bytes]]:
    try:
        posted = msgspec.json.decode(body, type=list[PostedMessage])
        found = [(message.kind, base64.b64decode(message.payload, validate=True)) for message in posted]
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, binascii.Error, ValueError) as error:
        raise ContentError(f"expected a list of {{kind, payload in base64}}: {error}") from error
    if len(found) > MAX_MESSAGES:
        raise TooLargeError(f"expected at most {MAX_MESSAGES} messages at a time, got {len(found)}")
    if any(len(payload) > MAX_PAYLOAD for _, payload in found):
        raise TooLargeError(f"a message has at most {MAX_PAYLOAD} bytes")
    return found
