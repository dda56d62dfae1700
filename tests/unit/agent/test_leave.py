"""Leave to download and to activate: hold, lock file, windows and the veto hook, over fakes."""

from __future__ import annotations

import pytest

from shoal_agent.domain.hold import Hold
from shoal_agent.domain.occasion import HookKind
from shoal_agent.domain.slot import SlotState
from shoal_agent.ports import HookOutcome
from shoal_agent.updating.leave import LeaveRules
from shoal_agent.updating.model_host import Seen
from shoal_protocol.maintenance import DAY_S, Instant, parse_windows
from shoal_protocol.trust.assignment import Assignment, SlotTarget

NIGHT = parse_windows("22:00-04:00")
GO_ON, NOT_NOW = HookOutcome(exit_code=0), HookOutcome(exit_code=75, said="a batch is running")


def at(hour: float) -> Instant:
    return Instant(local_s=int(hour * 3600), utc_s=0)


def waiting(device) -> str | None:
    trouble = device.all.troubles.get("s")
    return trouble.code if trouble else None


def rules(device, **given) -> None:
    device.leave_rules = LeaveRules(**given)
    device.restart()


def test_a_held_update_waits_and_goes_on_when_the_hold_ends(device):
    first = device.install("1.0")
    second = device.bundle("1.1")
    device.hold.hold = Hold(since_ms=0, reason="line 3 is being repaired")
    device.want(second)
    assert (device.slot.state, waiting(device)) == (SlotState.DOWNLOADING, "held")
    assert "line 3 is being repaired" in device.all.troubles["s"].message
    for _ in range(50):
        device.turn(60.0)
    assert (device.slot.active, device.slot.tries, waiting(device)) == (first, 0, "held")
    device.hold.hold = None
    device.turn(5.0)
    assert (device.slot.active, waiting(device)) == (second, None)


def test_a_hold_ends_by_itself(device):
    device.hold.hold = Hold(since_ms=0, until_ms=int((device.clock() + 100) * 1000))
    digest = device.bundle("1.0")
    device.want(digest)
    device.turn(99.0)
    assert (device.slot.active, device.all.hold) == (None, device.hold.hold)
    device.turn(10.0)
    assert (device.slot.active, device.all.hold) == (digest, None)


def test_a_hold_is_reported_when_it_begins_and_when_it_ends_even_if_nothing_waits(device):
    device.install("1.0")
    device.turn()
    told = device.reports
    device.hold.hold = Hold(since_ms=0)
    device.turn(1.0)
    device.turn(1.0)
    assert device.reports == told + 1
    device.hold.hold = None
    device.turn(1.0)
    device.turn(1.0)
    assert device.reports == told + 2


def test_waiting_is_reported_once_and_saves_nothing(device):
    device.install("1.0")
    device.hold.hold = Hold(since_ms=0)
    device.want(device.bundle("1.1"))
    told, saves = device.reports, device.state_file.saves
    for _ in range(20):
        device.turn(5.0)
    assert (device.reports, device.state_file.saves) == (told + 1, saves)  # the hold itself


def test_a_model_that_fails_is_left_although_everything_is_on_hold(device):
    first = device.install("1.0")
    device.want(device.bundle("1.1"))
    device.hold.hold = Hold(since_ms=0)
    device.hooks.outcomes[HookKind.VETO] = NOT_NOW
    device.host.counts["s"] = Seen(predictions=9, errors=9)
    device.turn()
    assert device.host.answering == {"s": first}


def test_a_closed_download_window_stops_all_but_the_few_bytes_that_say_what_is_needed(device):
    rules(device, download=NIGHT)
    device.instant = at(12)
    digest = device.bundle("1.0")
    device.want(digest)
    assert (device.slot.state, waiting(device)) == (SlotState.DOWNLOADING, "download_window")
    assert "22:00-04:00" in device.all.troubles["s"].message
    assert "opens Mon 22:00" in device.all.troubles["s"].message
    assert not any(device.store.blobs[blob] == b"1.0" * 10 for blob in device.store.blobs)
    device.instant = at(23)
    device.turn(60.0)
    assert device.slot.active == digest


def test_a_window_that_closes_pauses_the_download_under_way(device):
    rules(device, download=NIGHT)
    device.instant = at(23)
    digest = device.bundle("1.0")
    fetch, asked = device.fetcher.blob, []

    def watched(model, blob, part, *, cancelled, **named):
        asked.append(cancelled())
        fetch(model, blob, part, cancelled=cancelled, **named)
        if len(asked) == 2:  # the first is bundle.json
            device.instant = at(4)
            asked.append(cancelled())

    device.fetcher.blob = watched
    device.want(digest)
    assert asked == [False, False, True]
    assert waiting(device) == "download_window"
    device.instant = at(22)
    device.turn(60.0)
    assert device.slot.active == digest


def test_what_is_stored_already_needs_no_download_window(device):
    first = device.install("1.0")
    device.install("1.1")
    rules(device, download=NIGHT)
    device.instant = at(12)
    device.want(first)
    assert device.slot.active == first


def test_an_activation_waits_for_its_window_fetched_and_untested(device):
    first = device.install("1.0")
    rules(device, activation=NIGHT)
    device.instant = at(12)
    second = device.bundle("1.1")
    device.preflight.runs.clear()
    device.want(second)
    assert (device.slot.state, waiting(device)) == (SlotState.VERIFIED, "activation_window")
    assert (device.host.answering, device.preflight.runs) == ({"s": first}, [])
    device.restart()
    device.turn(60.0)
    assert waiting(device) == "activation_window"
    device.instant = at(2)
    device.turn(60.0)
    assert device.slot.active == second


def test_a_newer_wish_replaces_what_waits_for_its_window(device):
    first = device.install("1.0")
    rules(device, activation=NIGHT)
    device.instant = at(12)
    device.want(device.bundle("1.1"))
    device.want(first)
    assert (device.slot.state, device.slot.active, waiting(device)) == (SlotState.IDLE, first, None)


def test_a_return_and_the_first_model_wait_for_no_window(device):
    rules(device, activation=NIGHT)
    device.instant = at(12)
    first = device.bundle("1.0")
    device.want(first)
    assert device.slot.active == first
    device.host.counts["s"] = Seen(predictions=10)
    device.turn()
    device.instant = at(23)
    device.install("1.1")
    device.instant = at(12)
    device.want(first)
    assert device.slot.active == first


def test_without_a_believable_clock_no_window_opens_and_the_reason_is_told(device):
    first = device.install("1.0")
    rules(device, activation=NIGHT)
    device.instant = None
    device.want(device.bundle("1.1"))
    device.turn(60.0)
    assert (device.slot.active, waiting(device)) == (first, "clock")


def test_an_applications_lock_file_holds_the_activation(device):
    lock = ["/run/line-3.lock"]
    rules(device, locked=lambda: lock[0])
    device.want(digest := device.bundle("1.0"))
    assert (device.slot.state, waiting(device)) == (SlotState.VERIFIED, "locked")
    assert "/run/line-3.lock" in device.all.troubles["s"].message
    lock[0] = ""
    device.turn(5.0)
    assert device.slot.active == digest


def test_a_veto_puts_off_and_its_reason_is_told(device):
    first = device.install("1.0")
    device.hooks.outcomes[HookKind.VETO] = NOT_NOW
    second = device.bundle("1.1")
    device.want(second)
    assert (device.slot.state, waiting(device)) == (SlotState.VERIFIED, "vetoed")
    assert "a batch is running" in device.all.troubles["s"].message
    asked = device.hooks.occasions[0]
    assert (asked.hook, asked.slot, asked.digest, asked.other) == (HookKind.VETO, "s", second, first)
    device.turn(59.0)
    assert len(device.hooks.occasions) == 1
    device.hooks.outcomes[HookKind.VETO] = GO_ON
    device.turn(1.0)
    assert device.slot.active == second


def test_a_veto_during_the_self_test_is_heard_before_the_switch(device):
    first = device.install("1.0")
    device.hooks.outcomes[HookKind.VETO] = GO_ON
    run = device.preflight.run

    def slow(digest, **named):
        outcome = run(digest, **named)
        device.hooks.outcomes[HookKind.VETO] = NOT_NOW
        return outcome

    device.preflight.run = slow
    second = device.bundle("1.1")
    device.want(second)
    assert (device.slot.state, device.host.answering, waiting(device)) == (SlotState.VERIFIED, {"s": first}, "vetoed")
    device.preflight.run = run
    device.hooks.outcomes[HookKind.VETO] = GO_ON
    device.turn(60.0)
    assert (device.slot.active, device.slot.interruptions) == (second, 0)


def test_on_a_device_that_holds_one_model_a_late_veto_lets_the_old_one_answer_again(device):
    first = device.install("1.0")
    device.host.holds_one = True
    device.hooks.outcomes[HookKind.VETO] = GO_ON
    run = device.preflight.run

    def slow(digest, **named):
        assert device.host.answering == {}
        device.hooks.outcomes[HookKind.VETO] = NOT_NOW
        return run(digest, **named)

    device.preflight.run = slow
    device.want(device.bundle("1.1"))
    assert device.host.answering == {"s": first}


@pytest.mark.parametrize(
    "outcome", [HookOutcome(exit_code=1, said="Traceback"), HookOutcome(fault="it took longer than 10 s")]
)
def test_a_veto_hook_that_fails_puts_off_and_says_so(device, outcome):
    device.hooks.outcomes[HookKind.VETO] = outcome
    device.want(device.bundle("1.0"))
    assert (device.slot.state, waiting(device)) == (SlotState.VERIFIED, "hook_failed")
    assert (outcome.said or outcome.fault) in device.all.troubles["s"].message


def test_the_hooks_after_are_called_once_for_each_time(device):
    device.hooks.outcomes = {HookKind.ON_ACTIVATE: GO_ON, HookKind.ON_ROLLBACK: GO_ON}
    first = device.install("1.0")
    second = device.bundle("1.1")
    device.want(second)
    device.restart()
    device.turn()
    device.host.counts["s"] = Seen(predictions=9, errors=9)
    device.turn()
    told = [(one.hook.value, one.digest, one.other, one.code) for one in device.hooks.occasions]
    assert told == [
        ("on_activate", first, None, ""),
        ("on_activate", second, first, ""),
        ("on_rollback", first, second, "trial_errors"),
    ]


def test_a_hook_that_fails_afterwards_changes_nothing_and_is_told(device):
    device.hooks.outcomes = {HookKind.ON_ACTIVATE: HookOutcome(exit_code=3, said="no such service")}
    digest = device.install("1.0")
    assert device.slot.proven == digest
    assert device.events() == ["activated", "hook_failed", "committed"]


def test_a_shadow_is_fetched_in_the_download_windows_only(device):
    from shoal_protocol.trust.assignment import Assignment, SlotTarget

    first = device.install("1.0")
    rules(device, download=NIGHT)
    device.instant = at(12)
    wish = SlotTarget(digest=first, shadow=device.bundle("1.1"))
    device.all.take_over(Assignment(device="d", generation=9, slots={"s": wish}, issued=0, expires=1))
    device.turn()
    assert device.all.shadows()["s"].error.code == "download_window"


def test_a_weeks_windows_are_told_by_their_next_opening(device):
    device.install("1.0")
    rules(device, activation=parse_windows("Sun 03:00-04:00; Wed 03:00-04:00"))
    device.instant = Instant(local_s=3 * DAY_S, utc_s=0)
    device.want(device.bundle("1.1"))
    assert "opens Sun 03:00 local time" in device.all.troubles["s"].message


def want_in(device, digest: str, *windows: str) -> None:
    """Want a bundle that its rollout lets in at some times only."""
    device.generation += 1
    wish = SlotTarget(digest=digest, windows=windows)
    device.all.take_over(Assignment(device="d", generation=device.generation, slots={"s": wish}, issued=0, expires=1))
    device.all.work()


def test_a_rollouts_windows_and_the_devices_own_must_both_be_open(device):
    first = device.install("1.0")
    rules(device, activation=parse_windows("01:00-03:00"))
    second = device.bundle("1.1")
    device.instant = at(1)
    want_in(device, second, "02:00-06:00")
    assert (device.slot.state, waiting(device)) == (SlotState.VERIFIED, "rollout_window")
    assert "of the rollout (02:00-06:00)" in device.all.troubles["s"].message
    device.instant = at(4)
    device.turn(60.0)
    assert waiting(device) == "activation_window"
    device.restart()
    device.instant = at(2)
    device.turn(60.0)
    assert device.slot.active == second
    device.host.counts["s"] = Seen(predictions=10)
    device.turn()
    device.instant = at(12)
    want_in(device, first, "02:00-06:00")  # a way back
    assert device.slot.active == first


def test_a_rollouts_windows_can_be_taken_away_while_they_are_waited_for(device):
    device.install("1.0")
    second = device.bundle("1.1")
    device.instant = at(12)
    want_in(device, second, "02:00-06:00")
    assert waiting(device) == "rollout_window"
    want_in(device, second)
    device.turn(60.0)
    assert device.slot.active == second


def test_windows_that_this_agent_can_not_read_never_open(device):
    first = device.install("1.0")
    want_in(device, device.bundle("1.1"), "full moon")
    device.turn(600.0)
    assert (device.slot.active, waiting(device)) == (first, "rollout_window")
    assert "full moon" in device.all.troubles["s"].message
