"""Trials over fakes: when a model on probation stays, and when it is left."""

from __future__ import annotations

import pytest

from shoal_agent.domain.slot import SlotState
from shoal_agent.updating.model_host import Seen


def test_a_trial_without_predictions_ends_by_time_that_is_summed_over_restarts(device):
    device.want(device.bundle("1.0"))
    device.turn(40.0)
    device.restart()
    device.turn(15.0)
    assert device.slot.state is SlotState.TRIAL
    device.turn(10.0)
    assert device.slot.state is SlotState.IDLE


def test_a_trial_of_failing_predictions_goes_back_at_once(device):
    first = device.install("1.0")
    second = device.bundle("1.1")
    device.want(second)
    device.host.counts["s"] = Seen(predictions=7, errors=5)
    device.turn()
    assert (device.slot.active, device.host.answering["s"]) == (first, first)
    assert device.slot.fault.code == "trial_errors"
    assert device.events()[-1] == "rolled_back"


@pytest.mark.parametrize(
    ("seen", "code"),
    [
        (Seen(predictions=10, slow=6), "trial_latency"),
        (Seen(predictions=1, rss_bytes=3_000, memory_budget_bytes=2_000), "trial_memory"),
        (Seen(predictions=6, answers=6, nans=5), "trial_nan"),
        (Seen(predictions=1, running_s=61.0), "trial_hang"),
    ],
)
def test_a_trial_over_the_bundles_budget_goes_back(device, seen, code):
    first = device.install("1.0")
    second = device.bundle("1.1")
    device.want(second)
    device.host.counts["s"] = seen
    device.turn()
    assert (device.slot.active, device.slot.bad[second].code) == (first, code)


@pytest.mark.parametrize(
    "seen",
    [
        Seen(predictions=10, slow=4),
        Seen(predictions=10, rss_bytes=2_000, memory_budget_bytes=2_000),
        Seen(predictions=10, answers=10, nans=4),
        Seen(predictions=1000, answers=10_000, nans=200),
        Seen(predictions=10, running_s=5.0),
    ],
)
def test_a_trial_within_the_bundles_budget_passes(device, seen):
    digest = device.bundle("1.0")
    device.want(digest)
    device.host.counts["s"] = seen
    device.turn()
    assert device.slot.proven == digest


def test_a_trial_does_not_end_by_time_while_a_call_may_hang(device):
    first = device.install("1.0")
    second = device.bundle("1.1")
    device.want(second)
    for seconds in (7.0, 59.0):
        device.host.counts["s"] = Seen(predictions=10, running_s=seconds)
        device.turn(1000.0)
        assert (device.slot.state, device.host.cut) == (SlotState.TRIAL, [])
    device.host.counts["s"] = Seen(predictions=10, running_s=60.1)
    device.turn()
    assert (device.slot.active, device.host.cut) == (first, [second])


# After the trial -------------------------------------------------------------------------------------------------


def hang(device, seconds: float = 601.0) -> None:
    device.host.counts["s"] = Seen(predictions=10, running_s=seconds)
    device.turn()


def test_a_call_that_hangs_after_the_trial_is_cut_off_and_the_model_loaded_again(device):
    digest = device.install("1.0")
    hang(device, 599.0)
    assert device.host.cut == []
    for _ in range(4):  # there is nothing to go back to
        hang(device)
    assert (device.slot.active, device.slot.state, device.slot.bad) == (digest, SlotState.IDLE, {})
    assert device.host.cut == [digest] * 4
    assert device.host.counts["s"] == Seen()  # loaded again, each time
    assert device.events().count("call_cut_off") == 4


def test_the_third_hanging_call_within_an_hour_goes_back(device):
    first, second = device.install("1.0"), device.install("1.1")
    hang(device)
    hang(device)
    device.turn(3600.0)
    hang(device)  # the first two are forgotten
    hang(device)
    assert device.slot.active == second
    hang(device)
    assert (device.slot.active, device.slot.bad[second].code) == (first, "hangs")
    for _ in range(3):
        hang(device)
    assert device.slot.active == first


def test_a_call_that_does_not_heed_its_end_is_a_fault_of_the_process(device):
    device.install("1.0")
    for seconds, faults in ((0.0, 0), (659.0, 0), (661.0, 1), (0.0, 0)):
        device.host.oldest_left_s = seconds
        device.turn()
        assert len(device.all.faults()) == faults
