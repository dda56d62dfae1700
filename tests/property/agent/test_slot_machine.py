"""Random walks over the slot machine: what must hold in every state, whatever happens."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from shoal_agent.adapters.state_file import decode_state, encode_state
from shoal_agent.domain.device import DeviceState
from shoal_agent.domain.slot import (
    Begun,
    Booted,
    Cleared,
    Damaged,
    Due,
    Failed,
    Fetched,
    Installed,
    Loaded,
    Measured,
    Passed,
    Postponed,
    Proved,
    Recorded,
    Refused,
    Slot,
    SlotState,
    Stopped,
    Target,
    Wanted,
)
from shoal_agent.domain.slot_machine import TRANSITIONS, step
from shoal_agent.domain.trial import Trial
from shoal_agent.errors import IllegalEventError

DIGESTS = [f"sha256:{letter * 64}" for letter in "abcd"]
PLAIN = [
    Cleared(),
    Fetched(),
    Begun(),
    Passed(),
    Loaded(starts=3),
    Postponed(),
    Due(),
    Proved(),
    Installed(),
    Recorded(),
]

digests = st.sampled_from(DIGESTS)
wishes = st.builds(
    Wanted, st.builds(Target, st.one_of(digests, digests, digests, st.none()), st.just(""), st.integers(0, 2))
)
events = st.one_of(
    st.sampled_from(PLAIN),
    st.sampled_from(PLAIN),
    wishes,
    st.sampled_from([Booted(), Stopped()]),
    st.builds(Refused, st.just("code"), st.just("why")),
    st.builds(Failed, st.just("code"), st.just("why")),
    st.builds(Damaged, digests),
    st.builds(Measured, st.builds(Trial, st.integers(0, 3), st.integers(0, 9))),
)

UNDER_WAY = {SlotState.ASSIGNED, SlotState.DOWNLOADING, SlotState.VERIFIED, SlotState.PREFLIGHT, SlotState.ACTIVATING}


def walk(chosen):
    slot = Slot()
    for event in chosen:
        before = slot
        try:
            slot, effects = step(slot, event, 1.0)
        except IllegalEventError:
            assert slot == before
            continue
        yield before, event, slot, effects


@settings(max_examples=400, deadline=None)
@given(st.lists(events, max_size=40))
def test_the_table_tells_where_every_event_leads(chosen):
    for before, event, slot, _ in walk(chosen):
        assert slot.state in TRANSITIONS[before.state, type(event)].to


@settings(max_examples=400, deadline=None)
@given(st.lists(events, max_size=40))
def test_an_active_model_is_lost_only_for_a_reason(chosen):
    for before, event, slot, effects in walk(chosen):
        if before.active is not None and slot.active is None:
            empties = isinstance(event, Wanted | Recorded) and slot.target.digest is None
            assert empties or isinstance(event, Failed | Damaged | Booted)
        if before.active != slot.active:
            assert any(getattr(effect, "digest", "") == slot.active for effect in effects)


@settings(max_examples=400, deadline=None)
@given(st.lists(events, max_size=40))
def test_a_bundle_that_failed_for_good_is_never_worked_on_again(chosen):
    for _, _, slot, _ in walk(chosen):
        if slot.state in UNDER_WAY:
            assert slot.target.digest not in slot.bad
        assert slot.active not in slot.bad
        assert slot.active != slot.previous or slot.active is None
        assert slot.state is not SlotState.TRIAL or slot.trial is not None


@settings(max_examples=200, deadline=None)
@given(st.lists(events, max_size=40))
def test_a_trial_always_ends_within_its_starts(chosen):
    slot = next(iter(reversed([after for _, _, after, _ in walk(chosen)])), Slot())
    for _ in range(8):
        if slot.trial is None:
            break
        slot, _ = step(slot, Booted(), 1.0)
    assert slot.trial is None


@settings(max_examples=200, deadline=None)
@given(st.lists(events, max_size=40), st.integers(0, 2**40))
def test_every_reachable_state_survives_the_disk(chosen, generation):
    for _, _, slot, _ in walk(chosen):
        state = DeviceState(generation, "hash", {"a": slot, "b": replace(slot, since=0.1 + 0.2)})
        assert decode_state(encode_state(state)) == state
