"""The tables of states."""

import pytest

from shoal_server.rollouts.machine import (
    ACTIVE,
    FINAL,
    ROLLOUT_TABLE,
    STAGE_TABLE,
    Event,
    IllegalEventError,
    RolloutState,
    StageEvent,
    StageState,
    next_stage_state,
    next_state,
)

STOPS = (Event.CANCEL, Event.ABORT, Event.UNDO)


def test_every_state_is_reached_and_every_event_used() -> None:
    assert set(ROLLOUT_TABLE.values()) == set(RolloutState) - {RolloutState.DRAFT}
    assert {event for _, event in ROLLOUT_TABLE} == set(Event)
    assert set(STAGE_TABLE.values()) == set(StageState) - {StageState.PENDING}
    assert {event for _, event in STAGE_TABLE} == set(StageEvent)


def test_nothing_leads_out_of_a_final_state() -> None:
    assert not [state for state, _ in ROLLOUT_TABLE if state in FINAL]
    assert {state for state, _ in ROLLOUT_TABLE} == set(RolloutState) - FINAL


@pytest.mark.parametrize("state", sorted(set(RolloutState) - FINAL - {RolloutState.DRAFT, RolloutState.ROLLING_BACK}))
def test_stopping_is_always_possible(state: RolloutState) -> None:
    assert any((state, stop) in ROLLOUT_TABLE for stop in STOPS)


def test_a_stage_passes_only_out_of_its_soak_or_when_it_changes_nothing() -> None:
    into = {start for start, end in STAGE_TABLE.items() if end is StageState.PASSED}
    assert into == {(StageState.SOAKING, StageEvent.PASS), (StageState.PENDING, StageEvent.SKIP)}


def test_resuming_never_leads_into_a_soak_that_is_half_over() -> None:
    reopened = {STAGE_TABLE[state, StageEvent.REOPEN] for state, event in STAGE_TABLE if event is StageEvent.REOPEN}
    assert reopened == {StageState.ROLLING}


def test_an_event_outside_of_the_table_is_told_with_what_is_possible() -> None:
    with pytest.raises(IllegalEventError, match="a rollout that is completed can't pause") as refused:
        next_state(RolloutState.COMPLETED, Event.PAUSE)
    assert refused.value.hint == "possible is: retry, undo"
    with pytest.raises(IllegalEventError, match="a stage that is pending can't pass"):
        next_stage_state(StageState.PENDING, StageEvent.PASS)


def test_what_holds_a_device() -> None:
    assert set(RolloutState) - FINAL - {RolloutState.COMPLETED} == ACTIVE
