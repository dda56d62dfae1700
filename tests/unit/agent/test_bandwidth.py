"""The cap of the bandwidth, by bytes over a clock that is moved."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shoal_agent.domain.bandwidth import TokenBucket

RATES = st.floats(1.0, 1e9)


@given(rate=RATES, idle=st.lists(st.floats(0.0, 100.0), min_size=1, max_size=60), share=st.floats(0.01, 1.0))
def test_over_any_span_no_more_passes_than_the_cap_and_a_second(rate, idle, share):
    """However long the line stalls in between, and however large the reads are."""
    now, bucket, passed = 0.0, TokenBucket(rate, now=0.0), []
    for stall in idle:
        now += stall
        size = max(1, int(bucket.read_bytes * share))
        passed.append((now, size))
        now += bucket.take(size, now)
    for first in range(len(passed)):
        total = 0
        for at, size in passed[first:]:
            total += size
            span = at - passed[first][0]
            assert total <= rate * (span + 1.0) * (1 + 1e-6) + max(size, bucket.read_bytes)


@given(rate=RATES)
def test_without_stalls_the_cap_is_used_up(rate):
    now, bucket, total = 0.0, TokenBucket(rate, now=0.0), 0
    while now < 60.0 and total < 2000 * bucket.read_bytes:
        total += bucket.read_bytes
        now += bucket.take(bucket.read_bytes, now)
    assert total >= rate * now * (1 - 1e-6)


@pytest.mark.parametrize(("rate", "read"), [(1.0, 1), (1000.0, 250), (1e9, 1 << 18)])
def test_reads_are_small_where_the_cap_is(rate, read):
    assert TokenBucket(rate, now=0.0).read_bytes == read
