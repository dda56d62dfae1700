"""A disk that takes no state: what must not happen then, and what must."""

from __future__ import annotations

import pytest

from shoal_agent.domain.slot import SlotState
from shoal_agent.updating.model_host import Seen

FULL = OSError(28, "No space left on device")


@pytest.mark.parametrize("from_state", [SlotState.ASSIGNED, SlotState.PREFLIGHT, SlotState.ACTIVATING])
def test_a_switch_that_can_not_be_saved_does_not_happen_and_the_old_model_goes_on(device, from_state, monkeypatch):
    first = device.install("1.0")
    digest = device.bundle("1.1")
    save = device.state_file.save

    def full_from_now_on(state):
        save(state)
        if state.slots["s"].state is from_state:
            device.state_file.error = FULL

    monkeypatch.setattr(device.state_file, "save", full_from_now_on)
    device.want(digest)
    for _ in range(5):
        device.turn(60.0)
        assert (device.slot.active, device.slot.proven, device.host.answering["s"]) == (first, first, first)
        assert device.saved.active == first
    assert (device.slot.fault, device.all.troubles["s"].code) == (None, "state_unsaved")
    assert "activated" not in device.events()[2:]
    monkeypatch.undo()
    device.state_file.error = None
    device.turn(60.0)
    assert device.saved.active == device.host.answering["s"] == digest
    assert dict(device.all.troubles) == {}


def test_a_trial_that_passed_is_not_called_proven_before_that_is_saved(device):
    device.install("1.0")
    second = device.bundle("1.1")
    device.want(second)
    device.state_file.error = FULL
    device.host.counts["s"] = Seen(predictions=10)
    for _ in range(3):
        device.turn(1.0)
        assert (device.slot.state, device.host.answering["s"]) == (SlotState.TRIAL, second)
        assert device.slot.proven != second
    assert device.all.troubles["s"].code == "state_unsaved"
    assert device.events().count("committed") == 1
    device.state_file.error = None
    device.turn(1.0)
    assert (device.saved.state, device.saved.proven, dict(device.all.troubles)) == (SlotState.IDLE, second, {})
    assert device.events().count("committed") == 2


def test_a_start_on_trial_that_can_not_be_counted_is_not_made(device):
    first = device.install("1.0")
    device.want(device.bundle("1.1"))
    device.state_file.error = FULL
    for _ in range(5):
        device.restart()
        assert device.host.answering == {"s": first}
        device.turn()
        assert device.slot.fault.code == "state_unsaved"
        assert device.store.intact(device.saved.active)  # a restart would go back to it
    device.state_file.error = None
    device.turn(1.0)
    assert (device.saved.active, device.saved.bad) == (first, device.slot.bad)


def test_a_start_on_trial_with_nothing_to_go_back_to_is_made_even_when_it_can_not_be_counted(device):
    first = device.bundle("1.0")
    device.want(first)
    device.state_file.error = FULL
    device.restart()
    assert device.host.answering == {"s": first}


def test_a_model_that_fails_is_left_even_when_that_can_not_be_saved(device):
    first = device.install("1.0")
    device.want(device.bundle("1.1"))
    device.state_file.error = FULL
    device.host.counts["s"] = Seen(predictions=9, errors=9)
    device.turn()
    assert device.host.answering == {"s": first}
    device.restart()
    assert device.host.answering == {"s": first}
    device.state_file.error = None
    device.turn()
    assert device.saved.active == first


def test_nobody_is_told_of_a_state_before_it_is_saved(device, monkeypatch):
    told, save = [], device.state_file.save

    def watched(state):
        told.append((device.all.state, state))  # what a report that is made just now would say
        save(state)

    monkeypatch.setattr(device.state_file, "save", watched)
    first = device.install("1.0")
    device.want(device.bundle("1.1"))
    device.all.roll_back("s", "no")
    device.turn()
    assert len(told) > 10
    for said, saving in told:
        assert said != saving
    assert device.all.state == device.state_file.load()
    assert device.slot.active == first


def test_what_happens_from_memory_is_told(device):
    first = device.install("1.0")
    device.want(device.bundle("1.1"))
    device.state_file.error = FULL
    device.all.roll_back("s", "no")
    assert device.all.state.slots["s"].active == first
