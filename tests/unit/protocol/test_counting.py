"""The document about what to count beyond the bundle: bound to its digest, and without power over answers."""

import pytest

from shoal_protocol.bundle.contract import Rule
from shoal_protocol.canonical import sha256_digest
from shoal_protocol.errors import ContentError
from shoal_protocol.profile.counting import Counting, encode_counting, parse_counting, rules_hash
from shoal_protocol.profile.grid import NumericGrid
from shoal_protocol.profile.profile import ProfileSpec, Stream

BUNDLE = "sha256:" + "ab" * 32
RULE = Rule(field="age", check="range", low=0.0, high=120.0)


def test_it_is_read_as_it_was_written() -> None:
    spec = ProfileSpec((Stream("age", "input", NumericGrid(0.0, 1.0), "x", 0),))
    for counting in (Counting(BUNDLE), Counting(BUNDLE, spec, (RULE,)), Counting(BUNDLE, rules=(RULE,))):
        raw = encode_counting(counting)
        assert parse_counting(raw, digest=sha256_digest(raw)) == counting
    assert rules_hash(()) == ""
    assert len(rules_hash((RULE,))) == 16


def test_other_bytes_rules_that_refuse_and_newer_formats_are_refused() -> None:
    raw = encode_counting(Counting(BUNDLE))
    with pytest.raises(ContentError, match="not the one that was signed"):
        parse_counting(raw + b" ", digest=sha256_digest(raw))
    refusing = encode_counting(Counting(BUNDLE, rules=(Rule(field="age", check="missing", action="refuse"),)))
    with pytest.raises(ContentError, match="refuse"):
        parse_counting(refusing, digest=sha256_digest(refusing))
    newer = raw.replace(b'"format_version":1', b'"format_version":2')
    with pytest.raises(ContentError, match="format version 2"):
        parse_counting(newer, digest=sha256_digest(newer))
    with pytest.raises(ContentError):
        parse_counting(b"{", digest=sha256_digest(b"{"))
