"""Laws of the ledger, against the set of numbers that it stands for."""

import random

from hypothesis import given
from hypothesis import strategies as st

from shoal_protocol.mqtt.messages import Ack
from shoal_server.telemetry.ledger import MAX_RANGES, Ledger

numbers = st.lists(st.integers(1, 60), max_size=80)
ranges = st.lists(st.tuples(st.integers(-3, 60), st.integers(-3, 60)), max_size=5)


def filled(seqs: list[int]) -> Ledger:
    ledger = Ledger()
    for seq in seqs:
        ledger = ledger.add(seq)
    return ledger


def well_formed(ledger: Ledger) -> bool:
    ends = [ledger.through, *(number for pair in ledger.ranges for number in pair)]
    apart = all(second > first + 1 for first, second in zip(ends[0::2], ends[1::2], strict=False))
    return apart and all(first <= last for first, last in ledger.ranges) and len(ledger.ranges) <= MAX_RANGES


@given(numbers)
def test_covers_exactly_what_was_added(seqs):
    ledger = filled(seqs)
    assert {seq for seq in range(1, 70) if ledger.covers(seq)} == set(seqs)
    assert ledger.size == len(set(seqs))
    assert ledger.lost == 0
    assert well_formed(ledger)


@given(numbers, st.randoms(use_true_random=False))
def test_order_and_duplicates_make_no_difference(seqs, randomness):
    shuffled = seqs + seqs[: len(seqs) // 2]
    randomness.shuffle(shuffled)
    assert filled(shuffled) == filled(seqs)


@given(numbers)
def test_adding_again_changes_nothing(seqs):
    ledger = filled(seqs)
    assert all(ledger.add(seq) is ledger for seq in seqs)


@given(numbers)
def test_an_acknowledgement_says_the_same(seqs):
    ledger = filled(seqs)
    ack = Ack(epoch="0" * 16, through=ledger.through, ranges=ledger.ranges)
    assert all(ack.covers(seq) == ledger.covers(seq) for seq in range(70))


@given(numbers, ranges)
def test_what_is_given_up_is_covered_and_counted_once(seqs, given_up):
    dropped = {seq for first, last in given_up if first >= 1 for seq in range(first, last + 1)}
    ledger = filled(seqs).give_up(given_up)
    assert {seq for seq in range(1, 70) if ledger.covers(seq)} == set(seqs) | dropped
    assert ledger.lost == len(dropped - set(seqs))
    assert ledger.give_up(given_up) == ledger
    assert well_formed(ledger)


def test_it_stays_bounded_and_counts_what_it_gives_up():
    randomness = random.Random(1)
    odd = list(range(1, 2001, 2))
    randomness.shuffle(odd)
    ledger, stored = Ledger(), 0
    for seq in odd:
        stored += not ledger.covers(seq)
        ledger = ledger.add(seq)
        assert len(ledger.ranges) <= MAX_RANGES
    assert all(ledger.covers(seq) for seq in odd)
    assert 0 < ledger.lost == ledger.size - stored
