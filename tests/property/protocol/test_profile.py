"""The laws on which everything that is added up over a fleet rests."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from shoal_protocol.errors import CallerError, ContentError
from shoal_protocol.profile.codec import (
    LATENCIES,
    ProfileMessage,
    decode_counts,
    decode_profile,
    encode_counts,
    encode_profile,
)
from shoal_protocol.profile.grid import CategoricalGrid, fit_numeric, unit_interval_grid
from shoal_protocol.profile.profile import (
    Profile,
    ProfileSpec,
    Stream,
    check_profile,
    merge,
    parse_spec,
    summarise,
    zero,
)
from shoal_protocol.profile.reference import Reference, encode_reference, parse_reference

RNG = np.random.default_rng(3)
SPEC = ProfileSpec(
    (
        Stream("a", "input", fit_numeric(RNG.normal(size=500)), "x", 0),
        Stream("b", "input", fit_numeric(RNG.exponential(size=500) ** 4), "x", 1),
        Stream("label", "output", CategoricalGrid(("0", "1")), "label"),
        Stream("confidence", "output", unit_interval_grid(), "p", None, "row_max"),
    )
)
floats = st.floats(width=32)
rows = st.integers(0, 40).flatmap(
    lambda n: st.fixed_dictionaries(
        {
            "x": hnp.arrays(np.float32, (n, 2), elements=floats),
            "label": hnp.arrays(np.int64, (n,), elements=st.integers(-1, 3)),
            "p": hnp.arrays(np.float32, (n, 2), elements=st.floats(0, 1, width=32)),
        }
    )
)
profiles = rows.map(lambda tensors: summarise(SPEC, tensors))


@given(profiles)
def test_the_empty_profile_changes_nothing(profile: Profile) -> None:
    assert profile + zero(SPEC) == profile == zero(SPEC) + profile
    assert zero(SPEC) + zero(SPEC) == zero(SPEC)


@given(profiles, profiles, profiles)
def test_merging_is_free_of_order(a: Profile, b: Profile, c: Profile) -> None:
    assert a + b == b + a
    assert (a + b) + c == a + (b + c) == merge([c, a, b])


@given(rows, st.integers(0, 40))
def test_merging_parts_is_summing_up_the_whole(tensors: dict[str, np.ndarray], cut: int) -> None:
    parts = [
        {name: values[:cut] for name, values in tensors.items()},
        {name: values[cut:] for name, values in tensors.items()},
    ]
    assert merge(summarise(SPEC, part) for part in parts) == summarise(SPEC, tensors)


@given(profiles)
def test_every_row_is_counted_once_in_every_stream(profile: Profile) -> None:
    assert check_profile(profile, SPEC) is profile


@given(profiles, st.integers(0, len(SPEC.streams) - 1), st.sampled_from([0, 1]))
def test_moments_that_the_counts_can_not_give_are_refused(profile: Profile, stream: int, power: int) -> None:
    moments = profile.moments.copy()
    moments[stream, power] = 2**62
    with pytest.raises(ContentError, match="moments"):
        check_profile(Profile(profile.spec_hash, profile.n, profile.cells, moments), SPEC)


@pytest.mark.parametrize("rows", [0, 20])
def test_counts_that_wrap_around_to_few_rows_are_refused(rows: int) -> None:
    cells = zero(SPEC).cells.copy()
    for stream in SPEC.streams:
        first = SPEC.slice(stream.name).start
        cells[first : first + 4] = 1 << 62
        cells[first] += rows
    with pytest.raises(ContentError, match="more than"):
        check_profile(Profile(SPEC.hash, rows, cells, zero(SPEC).moments), SPEC)


def test_a_reference_whose_counts_are_no_numbers_of_64_bits_is_refused() -> None:
    raw = encode_reference(Reference(SPEC, zero(SPEC))).replace(b'"cells":[0,', b'"cells":[99999999999999999999,')
    with pytest.raises(ContentError, match="64 bits"):
        parse_reference(raw)


def test_profiles_on_different_grids_do_not_merge() -> None:
    other = ProfileSpec(SPEC.streams[:2])
    with pytest.raises(CallerError, match="2 specs"):
        merge([zero(SPEC), zero(other)])
    with pytest.raises(CallerError, match="at least one"):
        merge([])


def message(profile: Profile, **changes: object) -> ProfileMessage:
    head = {
        "epoch": "00ff00ff00ff00ff",
        "boot": 1,
        "seq": 2,
        "sent_at": 3,
        "slot": "quality",
        "digest": "sha256:" + "b" * 64,
        "spec_hash": profile.spec_hash,
        "start_ms": 1000,
        "length_ms": 500,
        "n": profile.n,
        "errors": 0,
        "latency": tuple(range(LATENCIES)),
        "resources": {"cpu_s": 0.25},
        "body": encode_counts(profile.cells, profile.moments),
    }
    return ProfileMessage(**(head | changes))  # type: ignore[arg-type]


def test_a_window_may_be_as_long_as_a_full_spool_makes_it_and_no_longer() -> None:
    profile = zero(SPEC)
    for days in (7, 60, 366):
        sent = message(profile, length_ms=days * 86_400_000)
        assert decode_profile(encode_profile(sent)) == sent
    for length_ms in (0, 367 * 86_400_000, 2**52):
        with pytest.raises(ContentError, match="over a year"):
            decode_profile(encode_profile(message(profile, length_ms=length_ms)))


@given(profiles)
def test_a_window_survives_its_wire_form(profile: Profile) -> None:
    sent = message(profile)
    received = decode_profile(encode_profile(sent))
    assert received == sent
    assert received.profile(SPEC) == profile
    assert received.latency_counts().sum() == sum(range(LATENCIES))


@given(
    hnp.arrays(np.int64, st.integers(0, 300), elements=st.integers(0, 2**62)),
    hnp.arrays(np.int64, st.tuples(st.integers(0, 20), st.just(2)), elements=st.integers(0, 2**62)),
)
def test_any_counts_survive(cells: np.ndarray, moments: np.ndarray) -> None:
    decoded = decode_counts(encode_counts(cells, moments))
    np.testing.assert_array_equal(decoded[0], cells)
    np.testing.assert_array_equal(decoded[1], moments)


@given(st.binary(max_size=300))
def test_garbage_is_a_content_error(raw: bytes) -> None:
    for decode in (
        decode_profile,
        decode_counts,
        lambda b: decode_counts(b"\x00" + b),
        lambda b: decode_counts(b"\x01" + b),
    ):
        try:
            decode(raw)
        except ContentError as error:
            assert str(error)  # noqa: PT017 - garbage may by chance be valid, then nothing is raised


@given(profiles, st.data())
def test_a_changed_byte_never_escapes_the_error_tree(profile: Profile, data: st.DataObject) -> None:
    raw = bytearray(encode_profile(message(profile)))
    at = data.draw(st.integers(0, len(raw) - 1))
    raw[at] ^= data.draw(st.integers(1, 255))
    try:
        counted = decode_profile(bytes(raw)).profile(SPEC)
    except ContentError:
        return
    assert (counted.cells >= 0).all()


@pytest.mark.parametrize(
    "change", [{"n": 7}, {"spec_hash": "0" * 16}, {"body": encode_counts(np.array([-1]), np.zeros((0, 2), int))}]
)
def test_counts_that_do_not_fit_are_refused(change: dict[str, object]) -> None:
    with pytest.raises(ContentError, match="profile|counts"):
        message(zero(SPEC), **change).profile(SPEC)


def test_a_bomb_is_refused() -> None:
    from backports import zstd

    with pytest.raises(ContentError, match="do not fit|cut off"):
        decode_counts(b"\x01" + zstd.compress(b"\xff" * 50_000_000))


@given(profiles)
def test_a_reference_survives_its_wire_form(profile: Profile) -> None:
    reference = Reference(SPEC, profile, {"a": 0.123456789}, "accuracy", {"accuracy": 0.9}, (None, 0.5))
    parsed = parse_reference(encode_reference(reference))
    assert parsed.profile == profile
    assert parsed.spec == SPEC == parse_spec(SPEC.as_json())
    assert parsed.importance == {"a": 0.123457}
    assert encode_reference(parsed) == encode_reference(reference)
