import math

import pytest

from shoal_protocol.canonical import canonical_bytes, parse_digest, rounded, sha256_digest
from shoal_protocol.errors import ContentError


def test_keys_are_sorted_and_numbers_follow_ecmascript() -> None:
    # the example of RFC 8785, section 3.2.2, shortened
    assert canonical_bytes({"b": 1e30, "a": [4.50, 2e-3, "\u20ac"]}) == '{"a":[4.5,0.002,"€"],"b":1e+30}'.encode()


@pytest.mark.parametrize("value", [math.nan, math.inf, 2**60, {1: "a"}, {"\ud800": 1}, object()])
def test_what_has_no_canonical_form_is_refused(value: object) -> None:
    with pytest.raises(ContentError, match="canonical"):
        canonical_bytes(value)


def test_a_digest_names_the_raw_bytes() -> None:
    # FIPS 180-4, the digest of the empty message
    assert sha256_digest(b"") == "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"


@pytest.mark.parametrize(
    "text", ["", "sha256:", "sha256:" + "A" * 64, "sha512:" + "a" * 64, "sha256:" + "a" * 65, "a" * 64]
)
def test_other_texts_are_no_digest(text: str) -> None:
    with pytest.raises(ContentError, match="expected a digest"):
        parse_digest(text)


@pytest.mark.parametrize(
    ("value", "expected"), [(0.0, 0.0), (1234567.0, 1234570.0), (-0.00012345678, -0.000123457), (3, 3.0)]
)
def test_floats_are_rounded_to_significant_digits(value: float, expected: float) -> None:
    assert rounded(value) == expected
