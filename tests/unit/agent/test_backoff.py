"""Full jitter: every wait from nothing to the bound is as likely as any other, and the bound grows to its end."""

from __future__ import annotations

import random
from itertools import pairwise

import pytest

from shoal_agent.domain.backoff import Backoff

DRAWS = 20_000


@pytest.mark.parametrize("tries", [1, 3, 6, 50])
def test_waits_are_uniform_between_nothing_and_the_bound(tries):
    backoff, chance = Backoff(base_s=0.5, cap_s=10.0), random.Random(5).random
    bound = min(10.0, 0.5 * 2 ** (tries - 1))
    waits = sorted(backoff.delay_s(tries, chance()) for _ in range(DRAWS))
    assert waits[0] >= 0
    assert waits[-1] < bound
    # Kolmogorov and Smirnov's distance from the uniform distribution; beyond 1.95 / sqrt(n) once in a thousand
    distance = max(abs(wait / bound - (rank + 0.5) / DRAWS) for rank, wait in enumerate(waits))
    assert distance < 1.95 / DRAWS**0.5


def test_a_fleet_that_lost_its_server_at_one_instant_comes_back_spread():
    backoff, chance = Backoff(base_s=1.0, cap_s=60.0), random.Random(9).random
    seconds = [0] * 64
    for _ in range(10_000):  # devices, each at its seventh try
        seconds[int(backoff.delay_s(7, chance()))] += 1
    assert max(seconds) < 1.5 * 10_000 / 60, "no second sees half as many again as its share"


def test_the_bound_doubles_up_to_its_end_and_never_overflows():
    backoff = Backoff(base_s=0.5, cap_s=60.0)
    bounds = [backoff.delay_s(tries, 1.0) for tries in range(1, 12)]
    assert bounds[:4] == [0.5, 1.0, 2.0, 4.0]
    assert all(later >= earlier for earlier, later in pairwise(bounds))
    assert bounds[-1] == backoff.delay_s(10**9, 1.0) == 60.0
