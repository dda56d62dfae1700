"""Membership of stages: stratified, deterministic, honest about numbers."""

from collections import Counter

import pytest

from shoal_server.rollouts.plan import StagePlan
from shoal_server.rollouts.stages import ordered, select, sizes, stage_of_newcomer, stratum

PLAN = (StagePlan(share=0.05, at_least=3), StagePlan(share=0.25), StagePlan(share=1.0))


def _sites(**counts: int) -> dict[str, str]:
    return {f"{site}-{number}": f"arm64/{site}" for site, count in counts.items() for number in range(count)}


def test_every_device_is_in_exactly_one_stage() -> None:
    strata = _sites(bern=60, basel=40)
    chosen = select(PLAN, strata, "s")
    assert chosen.keys() == strata.keys()
    assert Counter(chosen.values()) == {0: 5, 1: 20, 2: 75}


def test_the_order_of_the_input_does_not_matter() -> None:
    strata = _sites(bern=30, basel=30)
    backwards = dict(reversed(strata.items()))
    assert select(PLAN, strata, "s") == select(PLAN, backwards, "s")


def test_no_site_goes_first() -> None:
    """Members in database order would be 25 of basel."""
    strata = _sites(basel=50, bern=50)
    first = [device for device, stage in select(PLAN, strata, "s").items() if stage <= 1]
    sites = Counter(strata[device] for device in first)
    assert abs(sites["arm64/basel"] - sites["arm64/bern"]) <= 2


@pytest.mark.parametrize("salt", ["a", "b", "c"])
def test_every_prefix_holds_the_strata_in_proportion(salt: str) -> None:
    strata = _sites(big=80, small=20)
    order = ordered(strata, salt)
    for length in range(1, 101):
        small = sum(strata[device] == "arm64/small" for device in order[:length])
        assert abs(small - 0.2 * length) <= 1.01


def test_another_salt_gives_other_canaries() -> None:
    strata = _sites(bern=100)
    canaries = [{d for d, stage in select(PLAN, strata, salt).items() if stage == 0} for salt in ("a", "b")]
    assert canaries[0] != canaries[1]


def test_a_smaller_share_is_part_of_a_larger_one() -> None:
    strata = _sites(bern=33, basel=17)
    small = {d for d, s in select((StagePlan(share=0.1),), strata, "s").items()}
    large = {d for d, s in select((StagePlan(share=0.3),), strata, "s").items()}
    assert small < large


@pytest.mark.parametrize(
    ("members", "expected"),
    [(100, [5, 25, 100]), (10, [3, 3, 10]), (2, [2, 2, 2]), (0, [0, 0, 0]), (1, [1, 1, 1]), (61, [4, 16, 61])],
)
def test_sizes(members: int, expected: list[int]) -> None:
    assert sizes(PLAN, members) == expected


def test_a_share_is_not_rounded_up_by_the_error_of_a_float() -> None:
    assert sizes((StagePlan(share=0.07),), 100) == [7]


def test_newcomers_join_a_later_stage_or_the_last() -> None:
    joined = {stage_of_newcomer(PLAN, f"new-{number}", salt="s", current=0) for number in range(100)}
    assert joined == {1, 2}
    assert {stage_of_newcomer(PLAN, f"new-{number}", salt="s", current=2) for number in range(50)} == {2}
    half = (StagePlan(share=0.5),)
    assert {stage_of_newcomer(half, f"new-{number}", salt="s", current=0) for number in range(50)} == {0, None}


def test_a_stratum_is_hardware_and_site() -> None:
    assert stratum({"arch": "arm64", "label.site": "bern"}) == "arm64/bern"
    assert stratum({}) == "?/?"
