"""Letters: what a device signs, and what is taken out of hostile ones."""

from __future__ import annotations

import base64
import json

import pytest

from shoal_protocol.errors import ContentError
from shoal_protocol.mqtt.messages import MAX_PAYLOAD
from shoal_protocol.mqtt.topics import Up
from shoal_protocol.parcel import (
    MAX_LETTER_BYTES,
    MAX_MESSAGES,
    letter_body,
    parse_letter,
    read_body,
    signed_bytes,
    writer_of,
)

BODY = letter_body("d", [(Up.EVENT, b"{}"), (Up.PROFILE, b"\0\xff")], made_at=5)


def test_a_body_gives_back_what_was_written():
    assert read_body(BODY, device="d") == [(Up.EVENT, b"{}"), (Up.PROFILE, b"\0\xff")]
    assert signed_bytes(BODY).startswith(b"shoal-mail-v1\n{")
    assert writer_of(json.dumps({"body": BODY, "signature": "00"}).encode()) == "d"


@pytest.mark.parametrize(
    "body",
    [
        "",
        "[]",
        '{"device": "d"}',
        '{"device": "d", "made_at": 1, "messages": [{"kind": "nonsense", "payload": ""}]}',
        '{"device": "d", "made_at": 1, "messages": [{"kind": "event", "payload": "*"}]}',
        letter_body("other", [], made_at=1),
        letter_body("d", [(Up.EVENT, b"")] * (MAX_MESSAGES + 1), made_at=1),
        letter_body("d", [(Up.EVENT, b"x" * (MAX_PAYLOAD + 1))], made_at=1),
    ],
)
def test_a_body_that_is_none_is_refused(body):
    with pytest.raises(ContentError):
        read_body(body, device="d")


@pytest.mark.parametrize("line", [b"", b"\xff", b"{}", b'{"body": 3, "signature": ""}', b" " * (MAX_LETTER_BYTES + 1)])
def test_a_letter_that_is_none_is_refused(line):
    with pytest.raises(ContentError):
        parse_letter(line)


def test_the_longest_letter_fits_its_bound():
    messages = [(Up.EVENT, b"x" * MAX_PAYLOAD)] * 32  # 2 MiB, as much as a device puts into one
    body = letter_body("d", messages, made_at=1)
    assert len(json.dumps({"body": body, "signature": "0" * 144})) < MAX_LETTER_BYTES
    assert len(base64.b64encode(b"x" * MAX_PAYLOAD)) * 32 < len(body)
