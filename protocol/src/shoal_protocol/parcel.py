"""Files by which a device without a network takes part: the parcel that goes to it, and the mail that comes back.

A parcel is a tar: ``parcel.json`` (for people), ``desired.json`` (the signed assignment), ``trust/`` (the signed
documents under the names by which TUF clients ask for them), ``receipt.json`` (signed: which mail has come; where any
has) and ``blobs/sha256/`` (manifests and files of the bundles).
Nothing in it is believed for standing there: everything is verified as if it came over the network.

Mail is lines of JSON, each a letter: messages as the device would have sent them, signed by the key that it made when
it joined (ECDSA P-256, SHA-256, DER). Letters may be lost, doubled and come in any order, like messages. Pure: who
signs and who verifies gives the key.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterable
from typing import Final

import msgspec

from shoal_protocol.canonical import parse_digest
from shoal_protocol.errors import ContentError
from shoal_protocol.mqtt.messages import MAX_PAYLOAD
from shoal_protocol.mqtt.topics import Up

ABOUT: Final = "parcel.json"
DESIRED: Final = "desired.json"
RECEIPT: Final = "receipt.json"
TRUST: Final = "trust/"
FORMAT: Final = 1

MAX_LETTER_BYTES: Final = 4 << 20
MAX_MESSAGES: Final = 64
"""Messages in one letter."""

MAX_MESSAGE_BYTES: Final = 2 << 20
"""Of all messages in one letter, before base64."""


class About(msgspec.Struct, frozen=True, kw_only=True):
    """``parcel.json``; nothing is decided by it.

    Attributes:
        device: For whom the parcel is.
        generation: Of the assignment in it.
        made_at: Milliseconds since the epoch.
        expires: When the device stops believing it, milliseconds since the epoch.
        slots: Slot to the name or digest of what should run there.
        format: Of the file; a higher one than `FORMAT` needs a newer agent.
    """

    device: str
    generation: int
    made_at: int
    expires: int
    slots: dict[str, str]
    format: int = FORMAT


def blob_member(digest: str) -> str:
    """Return the name under which a blob stands in a parcel.

    >>> blob_member("sha256:" + "0" * 64)[:20]
    'blobs/sha256/0000000'
    """
    return f"blobs/sha256/{parse_digest(digest).removeprefix('sha256:')}"


class _Message(msgspec.Struct, frozen=True):
    kind: Up
    payload: str


class _Body(msgspec.Struct, frozen=True, kw_only=True):
    device: str
    made_at: int
    messages: list[_Message]


class Letter(msgspec.Struct, frozen=True):
    """One line of mail.

    Attributes:
        body: A JSON document: device, time and messages.
        signature: Hexadecimal, of `signed_bytes`.
    """

    body: str
    signature: str


def letter_body(device: str, messages: Iterable[tuple[Up, bytes]], *, made_at: int) -> str:
    """Return the body to sign.

    Args:
        device: Who writes.
        messages: Kind and bytes of each.
        made_at: Milliseconds since the epoch.
    """
    listed = [_Message(kind, base64.b64encode(payload).decode()) for kind, payload in messages]
    return msgspec.json.encode(_Body(device=device, made_at=made_at, messages=listed)).decode()


def signed_bytes(body: str) -> bytes:
    """Return what the device's key signs; the prefix keeps the signature from meaning anything else."""
    return b"shoal-mail-v1\n" + body.encode()


def parse_letter(line: bytes) -> Letter:
    """Parse one line of mail; nothing in it is verified yet.

    Raises:
        ContentError: It is too long, or no letter.
    """
    if len(line) > MAX_LETTER_BYTES:
        raise ContentError(f"a letter of {len(line)} bytes is over the limit of {MAX_LETTER_BYTES}")
    try:
        return msgspec.json.decode(line, type=Letter)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ContentError(f"this is no letter of a device's mail: {error}") from error


def read_body(body: str, *, device: str) -> list[tuple[Up, bytes]]:
    """Return the messages of a verified letter.

    Raises:
        ContentError: It does not parse, is of another device, or has too many messages or too long ones.
    """
    try:
        parsed = msgspec.json.decode(body, type=_Body)
        messages = [(message.kind, base64.b64decode(message.payload, validate=True)) for message in parsed.messages]
    except (msgspec.DecodeError, RecursionError, binascii.Error, ValueError) as error:
        raise ContentError(f"the letter's body does not parse: {error}") from error
    if parsed.device != device:
        raise ContentError(f"this letter is of the device {parsed.device!r:.80}, not of {device!r:.80}")
    if len(messages) > MAX_MESSAGES or any(len(payload) > MAX_PAYLOAD for _, payload in messages):
        raise ContentError(f"a letter has at most {MAX_MESSAGES} messages of {MAX_PAYLOAD} bytes")
    return messages


def writer_of(line: bytes) -> str:
    """Return which device a letter says it is of, so that it can be sent to the right place.

    Raises:
        ContentError: It does not parse.
    """
    try:
        return msgspec.json.decode(parse_letter(line).body, type=_Body).device
    except (msgspec.DecodeError, RecursionError) as error:
        raise ContentError(f"the letter's body does not parse: {error}") from error
