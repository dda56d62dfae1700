import json

import pytest

from shoal_protocol.errors import ContentError
from shoal_protocol.mqtt.messages import (
    MAX_PAYLOAD,
    Ack,
    Birth,
    Event,
    Fault,
    Message,
    Presence,
    Reported,
    ServerStatus,
    SlotReport,
    encode_message,
    parse_ack,
    parse_message,
    parse_server_status,
)
from shoal_protocol.mqtt.topics import Up

HEAD = {"epoch": "0123456789abcdef", "boot": 3, "seq": 9, "sent_at": 1_795_000_000_000}
DIGEST = "sha256:" + "a" * 64
MESSAGES: list[tuple[Up, Message]] = [
    (Up.PRESENCE, Presence(**HEAD, online=True)),
    (Up.BIRTH, Birth(**HEAD, agent_version="0.1.0", labels={"site": "bern"}, slots=("quality",))),
    (
        Up.REPORTED,
        Reported(
            **HEAD,
            generation=4,
            slots={
                "quality": SlotReport(
                    state="idle", active=DIGEST, error=Fault(code="golden", message="m", digest=DIGEST)
                )
            },
        ),
    ),
    (Up.EVENT, Event(**HEAD, at=5, kind="activated", slot="quality", data={"a": [1, 2.5]})),
]


@pytest.mark.parametrize(("kind", "message"), MESSAGES, ids=[kind.value for kind, _ in MESSAGES])
def test_messages_survive_their_wire_form(kind: Up, message: Message) -> None:
    assert parse_message(kind, encode_message(message)) == message


@pytest.mark.parametrize(("kind", "message"), MESSAGES, ids=[kind.value for kind, _ in MESSAGES])
def test_a_later_field_is_no_fault(kind: Up, message: Message) -> None:
    later = json.loads(encode_message(message)) | {"a_later_field": {"x": 1}}
    assert parse_message(kind, json.dumps(later).encode()) == message


@pytest.mark.parametrize(
    "change", [{"epoch": "xyz"}, {"boot": -1}, {"seq": 2**60}, {"boot": "3"}, {"online": 1}, {"sent_at": None}]
)
def test_values_out_of_range_or_of_another_type_are_refused(change: dict[str, object]) -> None:
    raw = json.dumps(json.loads(encode_message(MESSAGES[0][1])) | change).encode()
    with pytest.raises(ContentError, match="presence"):
        parse_message(Up.PRESENCE, raw)


@pytest.mark.parametrize("raw", [b"", b"[]", b"null", b"\xff\xfe", b"[" * 100_000 + b"]" * 10, b"{}"])
def test_garbage_is_refused(raw: bytes) -> None:
    for kind in Up:
        with pytest.raises(ContentError):
            parse_message(kind, raw)


def test_size_is_checked_before_parsing_and_before_sending() -> None:
    with pytest.raises(ContentError, match="over the limit"):
        parse_message(Up.EVENT, b" " * (MAX_PAYLOAD + 1))
    with pytest.raises(ContentError, match="over the limit"):
        encode_message(Event(**HEAD, at=1, kind="x", data={"a": "b" * MAX_PAYLOAD}))


def test_an_ack_covers_its_ranges() -> None:
    ack = parse_ack(encode_message(Ack(epoch=HEAD["epoch"], through=4, ranges=((7, 8),))))
    assert [seq for seq in range(1, 11) if ack.covers(seq)] == [1, 2, 3, 4, 7, 8]


def test_the_server_status_survives_its_wire_form() -> None:
    status = ServerStatus(online=False, at=7)
    assert parse_server_status(encode_message(status)) == status
    with pytest.raises(ContentError, match="ServerStatus"):
        parse_server_status(b"{}")
