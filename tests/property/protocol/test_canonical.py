"""The fast form of canonical JSON is the reference's, byte by byte, and refuses what that refuses."""

from __future__ import annotations

from enum import IntEnum, StrEnum
from typing import Any

import pytest
import rfc8785
from hypothesis import example, given
from hypothesis import strategies as st

from shoal_protocol.canonical import canonical_bytes
from shoal_protocol.errors import ContentError


class Word(StrEnum):
    ONE = "one"


class Number(IntEnum):
    ONE = 1


LEAVES = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.integers(2**53 - 2, 2**53 + 2)
    | st.floats(allow_nan=True)
    | st.floats(-10.0, 10.0, width=32)
    | st.floats(1e-7, 1e-3)
    | st.floats(1e14, 1e22)
    | st.text()
    | st.text(st.characters(max_codepoint=0x90))
    | st.sampled_from([Word.ONE, Number.ONE])
)
KEYS = st.text(max_size=4) | st.sampled_from(["\ue000", "\U00010000", "a", "\x7f", "\n"])
DOCUMENTS = st.recursive(
    LEAVES,
    lambda inner: st.lists(inner) | st.dictionaries(KEYS, inner) | st.tuples(inner, inner),
    max_leaves=12,
)


def reference(value: Any) -> bytes | None:
    try:
        return rfc8785.dumps(value)
    except (rfc8785.CanonicalizationError, TypeError, UnicodeEncodeError):
        return None


@given(DOCUMENTS)
@example(
    {"b": [1.0, -0.0, 1e-4, 9.999e-5, 1e15, 1e16, 123456.789], "a": "\x7f\u2028é/<>&", "\ue000": 1, "\U00010000": 2}
)
@example([0.0001, 0.00012207031, -1e-4, 5e-324, 1e21, 999999999999999.9, 2.0**53])
def test_it_is_the_reference_byte_by_byte(value: Any) -> None:
    expected = reference(value)
    if expected is None:
        with pytest.raises(ContentError, match="canonical"):
            canonical_bytes(value)
    else:
        assert canonical_bytes(value) == expected


@given(st.floats(1e-4, 1e15))
def test_middling_numbers_are_written_as_ecmascript_does(number: float) -> None:
    assert canonical_bytes([number, -number]) == rfc8785.dumps([number, -number])
