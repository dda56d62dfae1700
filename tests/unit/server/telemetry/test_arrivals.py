"""Hostile payloads become arrivals with a fault, never exceptions."""

import random

import msgspec
import pytest
from msgspec.structs import replace

from shoal_protocol.mqtt.messages import Event, Presence, encode_message
from shoal_protocol.mqtt.topics import Up
from shoal_server.telemetry import arrivals
from shoal_server.telemetry.arrivals import MAX_COUNT, arrival
from shoal_server.testing.telemetry import profile_message, profile_payload

EPOCH = "0123456789abcdef"


def test_good_messages_are_parsed():
    presence = Presence(epoch=EPOCH, boot=1, seq=1, sent_at=0, online=True)
    assert arrival("d", Up.PRESENCE, encode_message(presence)).message == presence
    window = arrival("d", Up.PROFILE, profile_payload(seq=3))
    assert window.fault == ""
    assert window.message == profile_message(seq=3)


EVENT = Event(epoch=EPOCH, boot=1, seq=0, sent_at=0, at=0, kind="x")


@pytest.mark.parametrize(
    ("kind", "payload", "fault"),
    [
        (Up.PROFILE, b"", "profile"),
        (Up.PROFILE, b"\xff" * 100, "profile"),
        (Up.PROFILE, b"x" * 70_000, "limit"),
        (Up.PROFILE, profile_payload(seq=0), "begin at 1"),
        (Up.PROFILE, profile_payload(slot="a\0b"), "printed"),
        (Up.PROFILE, profile_payload(n=MAX_COUNT + 1), "more than"),
        (Up.PROFILE, profile_payload(errors=MAX_COUNT + 1), "more than"),
        (Up.EVENT, encode_message(EVENT), "begin at 1"),
        (Up.EVENT, encode_message(replace(EVENT, seq=1, slot="s" * 65)), "slot"),
        (Up.EVENT, encode_message(replace(EVENT, seq=1, slot="a\0b")), "slot"),
        (Up.EVENT, encode_message(replace(EVENT, seq=1, kind="k" * 65)), "kind"),
        (Up.EVENT, b"[" * 5000, "event"),
        (Up.PRESENCE, b"\x80{}", "presence"),
        (Up.REPORTED, b'{"epoch": "zz", "boot": 1, "seq": 1, "sent_at": 0, "generation": 1, "slots": {}}', "epoch"),
    ],
)
def test_malformed_messages_say_why(kind, payload, fault):
    arrived = arrival("d", kind, payload)
    assert arrived.message is None
    assert fault in arrived.fault
    assert arrived.payload == payload


def test_damaged_windows_never_raise():
    good = profile_payload(seq=7)
    for seed in range(2000):
        randomness, damaged = random.Random(seed), bytearray(good)
        for _ in range(randomness.randint(1, 4)):
            damaged[randomness.randrange(len(damaged))] = randomness.randrange(256)
        arrived = arrival("d", Up.PROFILE, bytes(damaged[: randomness.randint(1, len(damaged))]))
        assert (arrived.message is None) == bool(arrived.fault)


def test_a_parser_that_fails_of_itself_stops_only_that_message(monkeypatch, caplog):
    def broken(_kind: Up, _raw: bytes) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(arrivals, "parse_message", broken)
    arrived = arrival("d", Up.EVENT, msgspec.json.encode({}))
    assert "ZeroDivisionError" in arrived.fault
    assert "the parser of event messages failed" in caplog.text
