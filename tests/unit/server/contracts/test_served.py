"""Contracts set at the server: what is refused before it is stored."""

import json

import pytest

from shoal_protocol.bundle.contract import Rule
from shoal_protocol.errors import CallerError, ContentError
from shoal_server.contracts.served import checked_rules


def test_a_sound_contract_is_taken() -> None:
    sound = {"fields": {"age": {"range": [0, 2**60]}, "city": {"categories": ["Zürich", "\N{SNOWMAN}"]}}}
    assert [rule.check for rule in checked_rules(sound, fields={"age", "city"})] == ["range", "categories"]
    assert isinstance(checked_rules(sound, fields={"age", "city"})[0], Rule)


@pytest.mark.parametrize(
    "written",
    [
        '{"age": {"range": [0, 1%s]}}' % ("0" * 400),
        '{"age": {"range": [-1%s, null]}}' % ("0" * 400),
        '{"city": {"categories": ["\\ud800"]}}',
        '{"city": {"categories": ["a\\u0000b"]}}',
        '{"city": {"categories": [NaN]}}',
    ],
    ids=["large", "small", "surrogate", "nul", "nan"],
)
def test_what_no_document_for_devices_can_hold_is_refused(written: str) -> None:
    with pytest.raises((CallerError, ContentError)):
        checked_rules({"fields": json.loads(written)}, fields={"age", "city"})
