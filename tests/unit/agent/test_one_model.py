"""Devices that hold one model: the active one is ended before another is tested, and answers again if in vain."""

from __future__ import annotations

import pytest

from shoal_agent.ports import PreflightOutcome
from shoal_agent.updating.model_host import Seen


@pytest.fixture
def running(device) -> str:
    """A device of one model at a time, which runs its first."""
    device.host.holds_one = True
    digest = device.bundle("1.0")
    device.want(digest)
    device.host.counts["s"] = Seen(predictions=10)
    device.turn()
    assert device.slot.proven == digest
    return digest


def test_the_active_model_is_ended_before_the_next_is_tested(device, running, monkeypatch):
    seen, run = [], device.preflight.run

    def watched(*arguments, **more):
        seen.append(dict(device.host.answering))
        return run(*arguments, **more)

    monkeypatch.setattr(device.preflight, "run", watched)
    second = device.bundle("1.1")
    device.want(second)
    assert (device.host.answering, device.host.most, seen) == ({"s": second}, 1, [{}])


def test_a_model_that_fails_its_test_gives_the_room_back(device, running):
    device.preflight.outcomes = [PreflightOutcome(passed=False, code="preflight_golden", message="wrong")]
    device.want(device.bundle("1.1"))
    assert (device.host.answering, device.host.most) == ({"s": running}, 1)


def test_a_model_that_can_not_be_loaded_gives_the_room_back(device, running):
    second = device.bundle("1.1")
    device.host.broken[second] = MemoryError()
    device.want(second)
    assert (device.slot.fault, device.all.troubles["s"].code) == (None, "memory_short")
    assert (device.host.answering, device.host.most) == ({"s": running}, 1)


def test_a_switch_that_can_not_be_saved_gives_the_room_back(device, running, monkeypatch):
    second, save = device.bundle("1.1"), device.state_file.save

    def full(state):
        if state.slots["s"].active == second:
            raise OSError("no space left")
        save(state)

    monkeypatch.setattr(device.state_file, "save", full)
    device.want(second)
    assert (device.host.answering, device.host.most) == ({"s": running}, 1)
    monkeypatch.undo()
    device.turn(60.0)
    assert (device.host.answering, device.host.most) == ({"s": second}, 1)


def test_news_between_test_and_load_give_the_room_back(device, running, monkeypatch):
    run = device.preflight.run

    def interrupted(*arguments, **more):
        outcome = run(*arguments, **more)
        device.news = True
        return outcome

    monkeypatch.setattr(device.preflight, "run", interrupted)
    device.want(device.bundle("1.1"))
    assert device.host.answering == {}
    device.news = False
    monkeypatch.undo()
    device.want(running)
    assert device.host.answering == {"s": running}


def test_a_model_on_trial_is_ended_before_the_previous_is_loaded_again(device, running):
    device.want(device.bundle("1.1"))
    device.host.counts["s"] = Seen(predictions=7, errors=7)
    device.turn()
    assert (device.host.answering, device.host.most) == ({"s": running}, 1)
