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
