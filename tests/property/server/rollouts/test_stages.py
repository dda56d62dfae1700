"""Laws of the selection."""

from hypothesis import given
from hypothesis import strategies as st

from shoal_server.rollouts.plan import StagePlan
from shoal_server.rollouts.stages import ordered, select, sizes

_strata = st.dictionaries(st.text("abcdef0123456789", min_size=1, max_size=6), st.sampled_from("xyz"), max_size=60)
_plans = st.lists(st.integers(1, 100), min_size=1, max_size=5, unique=True).map(
    lambda percents: tuple(StagePlan(share=percent / 100) for percent in sorted(percents))
)


@given(strata=_strata, salt=st.text(max_size=5))
def test_the_order_is_a_permutation_that_no_input_order_changes(strata: dict[str, str], salt: str) -> None:
    order = ordered(strata, salt)
    assert sorted(order) == sorted(strata)
    assert order == ordered(dict(sorted(strata.items(), reverse=True)), salt)


@given(strata=_strata, plan=_plans, salt=st.text(max_size=5))
def test_stages_have_the_sizes_that_the_plan_says(
    strata: dict[str, str], plan: tuple[StagePlan, ...], salt: str
) -> None:
    chosen = select(plan, strata, salt)
    for number, size in enumerate(sizes(plan, len(strata))):
        assert sum(stage <= number for stage in chosen.values()) == size
    assert set(chosen) <= set(strata)


@given(strata=_strata, salt=st.text(max_size=5))
def test_every_prefix_is_in_proportion(strata: dict[str, str], salt: str) -> None:
    order = ordered(strata, salt)
    groups = {group: sum(one == group for one in strata.values()) for group in set(strata.values())}
    for length in range(1, len(order) + 1):
        for group, size in groups.items():
            there = sum(strata[device] == group for device in order[:length])
            assert abs(there - size * length / len(order)) <= len(groups)


@given(strata=_strata, salt=st.text(max_size=5), more=_strata)
def test_a_share_of_all_takes_everybody(strata: dict[str, str], salt: str, more: dict[str, str]) -> None:
    everybody = {**strata, **more}
    assert set(select((StagePlan(share=1.0),), everybody, salt)) == set(everybody)
