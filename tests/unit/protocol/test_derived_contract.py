"""A contract that is written from what the training data looked like."""

from shoal_protocol.bundle.contract import derived_contract, parse_contract
from shoal_protocol.bundle.schema import FieldSpec


def test_ranges_get_room_and_what_was_never_missing_may_not_be() -> None:
    fields = (
        FieldSpec(name="temp", dtype="float32", tensor="x", column=0, low=10.0, high=30.0, missing="refused"),
        FieldSpec(name="count", dtype="int64", tensor="n", low=0.0, high=7.0),
        FieldSpec(name="city", dtype="string", tensor="c", categories=("Basel", "Bern")),
        FieldSpec(name="member", dtype="bool", tensor="m", low=0.0, high=1.0),
        FieldSpec(name="image", dtype="float32", tensor="i"),
    )
    written = derived_contract(fields)
    assert written == {
        "fields": {
            "temp": {"range": [8.0, 32.0], "tolerate": 0.01, "missing": 0},
            "count": {"range": [-1, 8], "tolerate": 0.01},
            "city": {"categories": ["Basel", "Bern"], "tolerate": 0.01},
        }
    }
    assert [rule.words for rule in parse_contract(written)] == [
        "temp must be from 8 to 32",
        "temp must not be missing",
        "count must be from -1 to 8",
        "city must be one of Basel, Bern",
    ]
    assert [rule.tolerate for rule in parse_contract(written)] == [0.01, 0.0, 0.01, 0.01]
