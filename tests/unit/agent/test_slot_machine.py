"""The slot machine's table, row by row."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from shoal_agent.domain.slot import (
    Begun,
    Booted,
    Check,
    Cleared,
    Damaged,
    Due,
    Failed,
    Fetch,
    Fetched,
    Install,
    Installed,
    Load,
    Loaded,
    Measured,
    Passed,
    Postponed,
    Prepare,
    Proved,
    Record,
    Recorded,
    Refused,
    SelfTest,
    Slot,
    SlotState,
    Stopped,
    Target,
    Wait,
    Wanted,
)
from shoal_agent.domain.slot_machine import MAX_FAULTS, RESUME, TRANSITIONS, step
from shoal_agent.domain.trial import Trial
from shoal_agent.errors import IllegalEventError

A, B, C = "sha256:" + "a" * 64, "sha256:" + "b" * 64, "sha256:" + "c" * 64
TO_ACTIVATING = (Cleared(), Fetched(), Begun(), Passed())


def walk(slot: Slot, *events):
    """Feed events; returns the slot and the effects of the last."""
    effects = ()
    for event in events:
        slot, effects = step(slot, event, 100.0)
    return slot, effects


def running(digest=A, **more) -> Slot:
    fields = {"active": digest, "proven": digest, "fallback": digest, "target": Target(digest)}
    return Slot(**{**fields, **more})


def on_trial(digest=B, previous=A) -> Slot:
    return walk(running(previous), Wanted(Target(digest)), *TO_ACTIVATING, Loaded(starts=3))[0]


def test_a_good_update_passes_every_state_in_order():
    slot, effects = walk(running(), Wanted(Target(B, "q:2")))
    assert (slot.state, effects) == (SlotState.ASSIGNED, (Check(Target(B, "q:2")),))
    slot, effects = walk(slot, Cleared())
    assert (slot.state, effects) == (SlotState.DOWNLOADING, (Fetch(Target(B, "q:2")),))
    slot, effects = walk(slot, Fetched())
    assert (slot.state, effects) == (SlotState.VERIFIED, (Prepare(),))
    slot, effects = walk(slot, Begun())
    assert (slot.state, effects) == (SlotState.PREFLIGHT, (SelfTest(B),))
    slot, effects = walk(slot, Passed())
    assert (slot.state, slot.active, effects) == (SlotState.ACTIVATING, A, (Load(B),))
    slot, effects = walk(slot, Loaded(starts=3))
    assert (slot.state, slot.active, slot.previous, slot.trial) == (SlotState.TRIAL, B, A, Trial(left=3))
    assert effects == (Install(B), Record("activated", B, 0))
    slot, effects = walk(slot, Proved())
    assert (slot.state, slot.proven, slot.trial) == (SlotState.COMMITTED, B, None)
    assert effects == (Record("committed", B, 0),)
    slot, effects = walk(slot, Recorded())
    assert (slot.state, slot.active, slot.previous, effects) == (SlotState.IDLE, B, A, ())


def test_an_illegal_event_is_a_typed_error():
    with pytest.raises(IllegalEventError, match="idle does not expect Loaded"):
        step(running(), Loaded(starts=3), 1.0)


def test_entering_a_state_is_dated_and_staying_is_not():
    slot, _ = step(running(), Wanted(Target(B)), 5.0)
    assert slot.since == 5.0
    slot, _ = step(slot, Postponed(), 9.0)
    assert slot.since == 5.0


def test_a_refused_bundle_is_final_until_the_attempt_grows():
    slot, effects = walk(running(), Wanted(Target(B, attempt=1)), Refused("unsigned", "nobody signed it"))
    assert (slot.state, slot.active) == (SlotState.REJECTED, A)
    assert isinstance(effects[0], Record)
    assert (effects[0].kind, effects[0].digest, effects[0].fault.code) == ("rejected", B, "unsigned")
    slot, _ = walk(slot, Recorded())
    assert (slot.state, slot.fault.code) == (SlotState.IDLE, "unsigned")
    assert walk(slot, Wanted(Target(B, attempt=1)))[1] == ()
    again, effects = walk(slot, Wanted(Target(B, attempt=2)))
    assert (again.state, again.fault, effects) == (SlotState.ASSIGNED, None, (Check(Target(B, attempt=2)),))


def test_transport_faults_are_tried_again_for_ever():
    slot, _ = walk(running(), Wanted(Target(B)), Cleared())
    for tries in range(1, 60):
        slot, effects = walk(slot, Postponed("transport", "cut"))
        assert (slot.state, effects) == (SlotState.DOWNLOADING, (Wait(tries),))
    assert walk(slot, Due())[1] == (Fetch(Target(B)),)


def test_a_trial_has_three_starts_and_the_fourth_goes_back():
    slot = on_trial()
    for left in (2, 1, 0):
        slot, _ = walk(slot, Booted())
        assert (slot.active, slot.trial.left) == (B, left)
    slot, effects = walk(slot, Booted())
    assert (slot.state, slot.active, slot.fault.code) == (SlotState.ROLLING_BACK, A, "crash_loop")
    assert effects == (Install(A),)
    slot, effects = walk(slot, Installed())
    assert effects[0].kind == "rolled_back"
    assert effects[0].digest == B
    slot, _ = walk(slot, Recorded())
    assert (slot.state, slot.active, slot.proven) == (SlotState.IDLE, A, A)


def test_an_orderly_stop_gives_the_start_back():
    slot, _ = walk(on_trial(), Stopped(), Booted(), Stopped(), Booted(), Stopped())
    assert slot.trial.left == 3


def test_a_trial_keeps_its_counts():
    slot, _ = walk(on_trial(), Measured(Trial(left=3, predictions=7)), Booted())
    assert slot.trial == Trial(left=2, counted=True, predictions=7)


def test_a_newer_assignment_replaces_a_trial_and_keeps_the_proven_previous():
    slot, effects = walk(on_trial(B, previous=A), Wanted(Target(C)))
    assert (slot.state, slot.active, slot.trial.left, effects) == (SlotState.ASSIGNED, B, 3, (Check(Target(C)),))
    slot, _ = walk(slot, *TO_ACTIVATING, Loaded(starts=3))
    assert (slot.active, slot.previous) == (C, A)


def test_a_replaced_trial_still_counts_starts():
    slot, _ = walk(on_trial(), Wanted(Target(C)), Booted(), Booted(), Booted(), Booted())
    assert (slot.state, slot.active) == (SlotState.ROLLING_BACK, A)
    slot, effects = walk(slot, Installed(), Recorded())
    assert (slot.state, effects) == (SlotState.ASSIGNED, (Check(Target(C)),))


def test_going_back_by_assignment_leaves_no_unproven_previous():
    slot, _ = walk(on_trial(B, previous=A), Wanted(Target(A)), *TO_ACTIVATING, Loaded(starts=3))
    assert (slot.active, slot.previous, slot.proven) == (A, None, A)


def test_a_newer_assignment_cancels_before_the_switch():
    slot, _ = walk(running(), Wanted(Target(B)), Cleared(), Wanted(Target(C)))
    assert (slot.state, slot.target.digest) == (SlotState.ASSIGNED, C)
    slot, effects = walk(slot, Wanted(Target(A)))
    assert (slot.state, effects) == (SlotState.IDLE, ())


def test_a_newer_assignment_waits_for_the_switch_under_way():
    slot, _ = walk(running(), Wanted(Target(B)), *TO_ACTIVATING, Wanted(Target(C)))
    assert (slot.state, slot.target.digest, slot.pending.digest) == (SlotState.ACTIVATING, B, C)
    slot, effects = walk(slot, Loaded(starts=3))
    assert (slot.state, slot.active, slot.previous) == (SlotState.ASSIGNED, B, A)
    assert effects == (Install(B), Record("activated", B, 0), Check(Target(C)))


def test_an_assignment_during_roll_back_is_considered_after_it():
    slot, _ = walk(on_trial(), Failed("trial_errors", "x"), Wanted(Target(C)), Installed(), Recorded())
    assert (slot.state, slot.target.digest, slot.active) == (SlotState.ASSIGNED, C, A)


def test_a_local_roll_back_marks_the_active_bundle_bad():
    slot, _ = walk(on_trial(), Proved(), Recorded(), Failed("local_rollback", "asked"))
    assert (slot.state, slot.active, slot.proven, slot.bad[B].code) == (SlotState.ROLLING_BACK, A, A, "local_rollback")
    slot, _ = walk(slot, Installed(), Recorded())
    assert (slot.state, slot.fault.code) == (SlotState.IDLE, "local_rollback")


def test_a_first_bundle_that_fails_leaves_no_model():
    slot, _ = walk(Slot(), Wanted(Target(A)), *TO_ACTIVATING, Loaded(starts=3))
    slot, effects = walk(slot, Failed("trial_errors", "x"))
    assert (slot.active, effects) == (None, (Install(None),))


def test_the_fallback_is_the_last_resort():
    slot = running(C, fallback=A, previous=B, bad={})
    slot, _ = walk(slot, Failed("model", "x"), Failed("model", "y"))
    assert slot.active == A
    assert set(slot.bad) == {C, B}


def test_an_empty_wish_empties_the_slot():
    slot, effects = walk(running(), Wanted(Target(None)))
    assert (slot.state, slot.active, slot.previous, effects) == (SlotState.IDLE, None, None, (Install(None),))


def test_damage_to_the_active_bundle_falls_to_the_previous_and_fetches_again():
    slot, effects = walk(running(B, previous=A, fallback=None), Damaged(B))
    assert (slot.state, slot.active) == (SlotState.ASSIGNED, A)
    assert effects == (Install(A), Check(Target(B)))


def test_damage_to_a_bundle_that_is_not_wanted_only_forgets_it():
    slot, effects = walk(running(B, previous=A, fallback=A), Damaged(A))
    assert (slot.active, slot.previous, slot.fallback, effects) == (B, None, None, ())


@pytest.mark.parametrize("state", [SlotState.PREFLIGHT, SlotState.ACTIVATING])
def test_a_test_that_takes_the_device_down_three_times_is_refused(state):
    events = TO_ACTIVATING[:3] if state is SlotState.PREFLIGHT else TO_ACTIVATING
    slot, _ = walk(running(), Wanted(Target(B)), *events)
    for _ in range(2):
        slot, effects = walk(slot, Booted())
        assert (slot.state, effects) == (SlotState.VERIFIED, (Prepare(),))
        slot, _ = walk(slot, *events[2:])
    slot, _ = walk(slot, Booted())
    assert (slot.state, slot.bad[B].code) == (SlotState.REJECTED, "interrupted")


def test_an_orderly_stop_is_no_interruption():
    slot, _ = walk(running(), Wanted(Target(B)), *TO_ACTIVATING[:3], Stopped(), Booted())
    assert (slot.state, slot.interruptions) == (SlotState.VERIFIED, 0)


def test_outcomes_are_recorded_again_after_a_restart():
    slot, before = walk(on_trial(), Proved())
    assert walk(slot, Booted())[1] == before
    slot, before = walk(running(), Wanted(Target(B)), Refused("x", "y"))
    assert walk(slot, Booted())[1] == before


def test_every_state_has_a_place_to_resume_and_rows_for_start_and_stop():
    assert set(RESUME) == set(SlotState)
    for state in SlotState:
        for event in (Booted, Stopped, Wanted, Failed, Damaged):
            assert (state, event) in TRANSITIONS


def test_faults_are_remembered_up_to_a_bound():
    slot = running()
    for n in range(MAX_FAULTS + 5):
        slot, _ = walk(slot, Wanted(Target(f"sha256:{n:064x}")), Refused("x", "y"), Recorded())
    assert len(slot.bad) == MAX_FAULTS
    assert slot.fault is not None


def test_what_is_kept_from_garbage_collection():
    slot = replace(running(C, previous=B, fallback=A), target=Target(C), pending=Target("sha256:" + "d" * 64))
    assert slot.keeps() == {A, B, C, "sha256:" + "d" * 64}
    slot, _ = walk(running(), Wanted(Target(B)), Refused("x", "y"))
    assert slot.keeps() == {A}
