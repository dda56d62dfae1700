"""Starts over fakes: after stops, crashes and with damaged files."""

from __future__ import annotations

import errno

import pytest

from shoal_agent.domain.crash_loop import CRASHES, suspect
from shoal_agent.domain.device import DeviceState
from shoal_agent.domain.slot import Slot, SlotState
from shoal_agent.domain.trial import Trial
from shoal_agent.ports import PreflightOutcome
from shoal_agent.runtime.errors import ModelLoadError
from shoal_agent.updating.model_host import Seen
from shoal_protocol.canonical import sha256_digest
from shoal_protocol.errors import DigestMismatchError


def test_boot_loads_the_active_model_without_network_and_counts_the_start(device):
    first = device.install("1.0")
    second = device.bundle("1.1")
    device.want(second)
    device.trust.online = False
    device.restart()
    assert (device.host.answering, device.saved.trial.left) == ({"s": second}, 2)
    device.restart()
    device.restart()
    device.restart()
    assert (device.host.answering, device.saved.active) == ({"s": first}, first)
    device.turn()
    assert device.slot.fault.code == "crash_loop"


def test_an_orderly_stop_gives_the_start_back(device):
    device.install("1.0")
    device.want(device.bundle("1.1"))
    for _ in range(5):
        device.all.stop()
        device.restart()
    assert device.saved.trial.left == 2


def test_boot_with_a_model_that_no_longer_loads_goes_back(device):
    first = device.install("1.0")
    second = device.install("1.1")
    device.host.broken[second] = ModelLoadError("onnxruntime refuses the model")
    device.restart()
    assert (device.host.answering, device.slot.bad[second].code) == ({"s": first}, "model")
    device.turn()
    assert device.events()[-1] == "rolled_back"


def test_a_proven_model_without_memory_at_boot_is_waited_for_and_not_called_bad(device):
    device.install("1.0")
    second = device.install("1.1")
    device.host.broken[second] = MemoryError()
    device.restart()
    assert (device.slot.active, dict(device.slot.bad)) == (second, {})
    assert device.all.troubles["s"].code == "memory_short"
    device.host.broken.clear()
    device.turn(60.0)
    assert (device.host.answering, dict(device.all.troubles)) == ({"s": second}, {})


def test_a_model_on_trial_without_memory_at_boot_makes_place_for_the_proven_one(device):
    first = device.install("1.0")
    second = device.bundle("1.1")
    device.want(second)
    device.host.broken[second] = MemoryError()
    device.restart()
    device.turn()
    assert (device.host.answering, device.slot.bad[second].code) == ({"s": first}, "over_budget")


def test_boot_with_damaged_files_runs_the_previous_and_fetches_again(device):
    first = device.install("1.0")
    second = device.install("1.1")
    damaged = next(digest for digest in device.store.blobs if device.store.blobs[digest] == b"1.1" * 10)
    device.store.blobs[damaged] = b"0.0" * 10
    device.restart()
    assert device.host.answering == {"s": first}
    device.turn()
    assert device.host.answering == {"s": second}


def test_a_file_that_was_damaged_on_the_disk_is_fetched_again_and_blames_no_bundle(device):
    device.install("1.0")
    second = device.bundle("1.1")
    blob = b"{}"  # the config, which both bundles share, so that it is not fetched for the second
    device.store.blobs[sha256_digest(blob)] = b"[]"
    device.preflight.outcomes = [PreflightOutcome(passed=False, code="digest_mismatch", message="other bytes")]
    device.want(second)
    assert (device.slot.active, device.slot.fault) == (second, None)
    assert device.store.intact(second)


def test_no_descriptor_or_memory_for_the_files_is_no_damage(device):
    digest = device.install("1.0")
    second, load = device.install("1.1"), device.host.load

    def exhausted(_wanted):
        raise OSError(errno.EMFILE, "too many open files")

    device.host.load = exhausted
    device.restart()
    assert (device.slot.active, device.slot.previous, device.host.answering) == (second, digest, {})
    assert device.all.troubles["s"].code == "disk"
    device.turn(1.0)
    device.host.load = load
    device.turn(2.0)
    assert device.host.answering == {"s": second}
    assert device.store.intact(second)


def test_files_that_can_not_be_loaded_but_look_intact_are_given_up_after_a_few_looks(device):
    first = device.install("1.0")
    second, load = device.install("1.1"), device.host.load

    def unreadable(wanted):
        if wanted == second:
            raise OSError(errno.EIO, "the disk fails")
        return load(wanted)

    device.host.load = unreadable
    device.restart()
    for _ in range(3):
        assert device.slot.active == second
        device.turn(60.0)
    assert device.host.answering == {"s": first}


def test_a_file_that_is_damaged_before_it_is_loaded_is_fetched_again(device):
    digest, load = device.bundle("1.0"), device.host.load

    def damaged_once(wanted):
        device.host.load = load
        device.store.blobs[sha256_digest(b"{}")] = b"[]"
        raise DigestMismatchError("other bytes")

    device.host.load = damaged_once
    device.want(digest)
    assert device.slot.active == digest
    assert device.store.intact(digest)


@pytest.mark.parametrize("left", [b"sha256:0\ngarbage", None], ids=["damaged", "gone"])
def test_boot_without_any_state_finds_models_by_their_names(device, left):
    device.install("1.0")
    second = device.install("1.1")
    device.state_file.raw = left
    device.restart()
    device.turn()  # collects garbage, of which the models are none
    assert device.host.answering == {"q": second}
    assert device.store.intact(second)
    slot = device.all.state.slots["q"]
    assert (slot.previous is not None, slot.proven, slot.state) == (True, None, SlotState.TRIAL)
    device.host.counts["q"] = Seen(predictions=10)
    device.turn()
    assert device.all.state.slots["q"].proven == second


def crash(device, times: int) -> None:
    for _ in range(times):
        device.restart()


def test_five_crashes_in_a_row_after_a_commitment_take_the_model_back_once(device):
    first, second = device.install("1.0"), device.install("1.1")
    device.all.stop()
    crash(device, 5)
    assert device.host.answering == {"s": second}
    crash(device, 1)
    assert (device.slot.active, device.host.answering) == (first, {"s": first})
    device.turn()
    assert (device.slot.bad[second].code, device.slot.state) == ("crash_loop", SlotState.IDLE)
    assert device.events()[-1] == "rolled_back"
    crash(device, 20)
    assert device.slot.active == first  # it holds
    device.want(second)
    assert device.slot.active == first
    device.want(second, attempt=1)
    assert device.slot.active == second


def test_crashes_before_a_model_answered_are_not_held_against_it(device):
    """As of a power supply that fails again and again while updates come."""
    device.install("1.0")
    second = device.install("1.1")
    device.all.stop()
    crash(device, 4)
    assert device.slot.active == second
    third = device.install("1.2")
    crash(device, 4)
    assert (device.slot.active, device.slot.previous) == (third, second)
    crash(device, 1)  # the fifth, and the run in which it came was the first
    assert device.slot.active == second


@pytest.mark.parametrize("ends", ["in order", "late"])
def test_a_run_that_stops_in_order_or_lasts_ends_the_row_of_crashes(device, ends):
    device.install("1.0")
    second = device.install("1.1")
    for _ in range(3):
        crash(device, 4)
        if ends == "in order":
            device.all.stop()
        else:
            device.turn(121.0)
    assert device.host.answering == {"s": second}


def test_of_several_slots_the_one_that_changed_last_is_taken_back_first():
    slots = {name: Slot(active="b", previous="a", since=at) for name, at in (("old", 1.0), ("young", 2.0))}
    state = DeviceState(slots=slots, starts=CRASHES)
    assert suspect(state) == "young"
    assert suspect(state.with_slot("young", Slot(active="a"))) == "old"
    assert suspect(state.with_slot("young", Slot(active="b", trial=Trial(left=3)))) is None
    assert suspect(DeviceState(slots=slots, starts=CRASHES - 1)) is None
