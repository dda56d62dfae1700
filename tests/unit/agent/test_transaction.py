"""The shell around the slot machine, over fakes: what is saved, done, tried again and thrown away."""

from __future__ import annotations

import errno

import pytest

from shoal_agent.domain.crash_loop import CRASHES, suspect
from shoal_agent.domain.device import DeviceState
from shoal_agent.domain.slot import Slot, SlotState
from shoal_agent.domain.trial import Trial
from shoal_agent.errors import NoModelError, TransportError
from shoal_agent.ports import PreflightOutcome
from shoal_agent.runtime.errors import ModelLoadError
from shoal_agent.updating.model_host import Seen
from shoal_protocol.bundle.schema import Variant
from shoal_protocol.canonical import sha256_digest
from shoal_protocol.errors import ContentError, DigestMismatchError, ExpiredError
from shoal_protocol.trust.assignment import Assignment, SlotTarget


def install(device, version: str) -> str:
    digest = device.bundle(version)
    device.want(digest)
    device.host.counts["s"] = Seen(predictions=10)
    device.turn()
    assert (device.slot.state, device.slot.proven) == (SlotState.IDLE, digest)
    return digest


def test_an_update_runs_through_and_is_recorded(device):
    digest = device.bundle("1.0")
    device.want(digest)
    assert (device.slot.state, device.host.answering) == (SlotState.TRIAL, {"s": digest})
    device.host.counts["s"] = Seen(predictions=4)
    device.turn()
    assert (device.slot.state, device.saved.trial.predictions) == (SlotState.TRIAL, 4)
    device.host.counts["s"] = Seen(predictions=10)
    device.turn()
    assert (device.slot.state, device.slot.proven, device.saved) == (SlotState.IDLE, digest, device.slot)
    assert device.events() == ["activated", "committed"]


def test_a_trial_without_predictions_ends_by_time_that_is_summed_over_restarts(device):
    device.want(device.bundle("1.0"))
    device.turn(40.0)
    device.restart()
    device.turn(15.0)
    assert device.slot.state is SlotState.TRIAL
    device.turn(10.0)
    assert device.slot.state is SlotState.IDLE


def test_a_trial_of_failing_predictions_goes_back_at_once(device):
    first = install(device, "1.0")
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
    ],
)
def test_a_trial_over_the_bundles_budget_goes_back(device, seen, code):
    first = install(device, "1.0")
    second = device.bundle("1.1")
    device.want(second)
    device.host.counts["s"] = seen
    device.turn()
    assert (device.slot.active, device.slot.bad[second].code) == (first, code)


@pytest.mark.parametrize(
    "seen", [Seen(predictions=10, slow=4), Seen(predictions=10, rss_bytes=2_000, memory_budget_bytes=2_000)]
)
def test_a_trial_within_the_bundles_budget_passes(device, seen):
    digest = device.bundle("1.0")
    device.want(digest)
    device.host.counts["s"] = seen
    device.turn()
    assert device.slot.proven == digest


def test_every_state_is_saved_before_anything_is_done(device):
    seen = []
    load, run, manifest = device.host.load, device.preflight.run, device.fetcher.manifest

    def watch(call):
        def watched(*arguments, **named):
            seen.append(device.saved.state.value)
            return call(*arguments, **named)

        return watched

    device.host.load, device.preflight.run, device.fetcher.manifest = watch(load), watch(run), watch(manifest)
    device.want(device.bundle("1.0"))
    assert seen == ["assigned", "preflight", "activating"]
    assert device.saved.state is SlotState.TRIAL


def test_transport_faults_wait_with_backoff_and_go_on(device):
    digest = device.bundle("1.0")
    device.fetcher.faults = [TransportError("cut")] * 3
    device.want(digest)
    for tries, wait_s in ((1, 1.0), (2, 2.0), (3, 4.0)):
        assert (device.slot.tries, device.all.idle_s()) == (tries, wait_s)
        assert device.all.troubles["s"].code == "transport"
        device.turn(wait_s - 0.01)
        assert device.slot.tries == tries
        device.turn(0.02)
    assert (device.slot.state, dict(device.all.troubles)) == (SlotState.TRIAL, {})


def test_other_bytes_than_signed_wait_long_and_blame_no_bundle(device):
    digest = device.bundle("1.0")
    device.fetcher.faults = [DigestMismatchError("other bytes")] * 3
    device.want(digest)
    for wait_s in (6.0, 12.0, 24.0):  # a fifth of the longest usual wait, doubled, halved by the lot
        assert (device.slot.state, device.slot.fault) == (SlotState.ASSIGNED, None)
        assert device.all.troubles["s"].code == "digest_mismatch"
        assert device.all.idle_s() == wait_s
        device.turn(wait_s)
    assert device.slot.active == digest


def test_a_blob_that_is_wrong_once_is_fetched_again_at_once(device):
    second = device.bundle("1.1")
    blobs = device.fetcher.blob
    wrong = iter([True, False] + [False] * 20)

    def once_wrong(model, blob, part, *, cancelled):
        blobs(model, blob, part, cancelled=cancelled)
        if next(wrong):
            part.write_bytes(b"garbage")

    device.fetcher.blob = once_wrong
    device.want(second)
    assert device.slot.active == second


def test_a_bundle_without_signature_is_refused_before_anything_is_fetched(device):
    digest = device.bundle("1.0", signed=False)
    device.want(digest)
    assert (device.slot.state, device.slot.fault.code, device.fetcher.fetched) == (SlotState.IDLE, "unsigned", [])


@pytest.mark.parametrize(
    "fault", [ExpiredError("timestamp.json is expired"), ContentError("another release's entry is malformed")]
)
def test_a_list_that_can_not_be_used_postpones_and_blames_no_bundle(device, fault):
    digest = device.bundle("1.0")

    def unusable():
        raise fault

    device.trust.refresh, refresh = unusable, device.trust.refresh
    device.want(digest)
    assert (device.slot.state, device.slot.fault) == (SlotState.ASSIGNED, None)
    assert device.all.troubles["s"].code == "signed_list"
    device.trust.refresh = refresh
    device.turn(1.0)
    assert device.slot.active == digest


def test_without_network_the_known_list_serves_for_what_is_stored(device):
    first = install(device, "1.0")
    second = install(device, "1.1")
    device.trust.online = False
    device.want(first)
    assert (device.slot.active, device.slot.previous) == (first, second)


def test_a_full_disk_postpones(device):
    install(device, "1.0")
    digest = device.bundle("1.1")
    device.store.free = 1000
    device.want(digest)
    assert (device.slot.state, device.all.troubles["s"].code) == (SlotState.ASSIGNED, "disk_full")
    device.store.free = 1 << 40
    device.turn(1.0)
    assert device.slot.active == digest


FULL = OSError(28, "No space left on device")


@pytest.mark.parametrize("from_state", [SlotState.ASSIGNED, SlotState.PREFLIGHT, SlotState.ACTIVATING])
def test_a_switch_that_can_not_be_saved_does_not_happen_and_the_old_model_goes_on(device, from_state, monkeypatch):
    first = install(device, "1.0")
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
    install(device, "1.0")
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
    first = install(device, "1.0")
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
    first = install(device, "1.0")
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


@pytest.mark.parametrize("transient", [True, False])
def test_a_self_test_that_could_not_run_is_repeated_one_that_failed_is_final(device, transient):
    digest = device.bundle("1.0", memory_budget_bytes=123, latency_budget_ms=4.0)
    outcome = PreflightOutcome(passed=False, code="preflight_x", message="why", transient=transient)
    device.preflight.outcomes = [outcome]
    device.want(digest)
    assert device.preflight.runs[0][1].memory_bytes == 123
    assert device.preflight.runs[0][1].latency_budget_ms == 4.0
    if transient:
        assert device.slot.state is SlotState.VERIFIED
        device.turn(1.0)
        assert device.slot.active == digest
    else:
        assert (device.slot.state, device.slot.fault.code) == (SlotState.IDLE, "preflight_x")


def test_the_self_test_is_of_the_variant_that_would_answer(device):
    variants = (Variant(path="model/arm.onnx", platform="linux/arm64"), Variant(path="model/amd.onnx"))
    device.want(device.bundle("1.0", variants=variants))
    assert [limits.variant for _, limits in device.preflight.runs] == ["model/amd.onnx"]


def test_of_several_variants_only_the_one_that_would_answer_is_fetched(device):
    variants = (Variant(path="model/arm.onnx", platform="linux/arm64"), Variant(path="model/amd.onnx"), Variant())
    digest = device.bundle("1.0", variants=variants)
    device.want(digest)
    assert device.slot.active == digest
    layers = device.store.manifest(digest).files()
    assert {path for path, layer in layers.items() if device.store.has(layer)} == {"bundle.json", "model/amd.onnx"}
    device.restart()
    assert device.host.answering == {"s": digest}


def test_a_model_that_can_not_be_loaded_beside_the_active_one_is_refused(device):
    first = install(device, "1.0")
    second = device.bundle("1.1")
    device.host.broken[second] = MemoryError()
    device.want(second)
    assert (device.slot.active, device.slot.fault.code) == (first, "over_budget")
    assert device.host.answering == {"s": first}


def test_news_interrupts_and_the_newer_wish_wins(device):
    first, second = device.bundle("1.0"), device.bundle("1.1")
    device.news = True
    device.want(first)
    assert device.slot.state is SlotState.ASSIGNED
    device.news = False
    device.want(second)
    assert device.slot.active == second
    assert first not in device.host.answering.values()


def test_the_same_bundle_wanted_again_while_its_step_is_queued_goes_on(device):
    digest = device.bundle("1.0")
    wish = SlotTarget(digest=digest, name="q:1.0")
    device.all.take_over(Assignment(device="d", generation=1, slots={"s": wish}, issued=0, expires=1))
    assert device.slot.state is SlotState.ASSIGNED
    device.want(digest, attempt=1)
    assert (device.slot.active, device.slot.target.attempt) == (digest, 1)


def test_what_was_given_up_goes_on_when_nothing_newer_came(device):
    digest = device.bundle("1.0")
    device.news = True
    device.want(digest)
    device.news = False
    device.turn()
    assert device.slot.active == digest


def test_boot_loads_the_active_model_without_network_and_counts_the_start(device):
    first = install(device, "1.0")
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
    install(device, "1.0")
    device.want(device.bundle("1.1"))
    for _ in range(5):
        device.all.stop()
        device.restart()
    assert device.saved.trial.left == 2


def test_boot_with_a_model_that_no_longer_loads_goes_back(device):
    first = install(device, "1.0")
    second = install(device, "1.1")
    device.host.broken[second] = ModelLoadError("onnxruntime refuses the model")
    device.restart()
    assert (device.host.answering, device.slot.bad[second].code) == ({"s": first}, "model")
    device.turn()
    assert device.events()[-1] == "rolled_back"


def test_boot_with_damaged_files_runs_the_previous_and_fetches_again(device):
    first = install(device, "1.0")
    second = install(device, "1.1")
    damaged = next(digest for digest in device.store.blobs if device.store.blobs[digest] == b"1.1" * 10)
    device.store.blobs[damaged] = b"0.0" * 10
    device.restart()
    assert device.host.answering == {"s": first}
    device.turn()
    assert device.host.answering == {"s": second}


def test_a_file_that_was_damaged_on_the_disk_is_fetched_again_and_blames_no_bundle(device):
    install(device, "1.0")
    second = device.bundle("1.1")
    blob = b"{}"  # the config, which both bundles share, so that it is not fetched for the second
    device.store.blobs[sha256_digest(blob)] = b"[]"
    device.preflight.outcomes = [PreflightOutcome(passed=False, code="digest_mismatch", message="other bytes")]
    device.want(second)
    assert (device.slot.active, device.slot.fault) == (second, None)
    assert device.store.intact(second)


def test_no_descriptor_or_memory_for_the_files_is_no_damage(device):
    digest = install(device, "1.0")
    second, load = install(device, "1.1"), device.host.load

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
    first = install(device, "1.0")
    second, load = install(device, "1.1"), device.host.load

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
    install(device, "1.0")
    second = install(device, "1.1")
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
    first, second = install(device, "1.0"), install(device, "1.1")
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


@pytest.mark.parametrize("ends", ["in order", "late"])
def test_a_run_that_stops_in_order_or_lasts_ends_the_row_of_crashes(device, ends):
    install(device, "1.0")
    second = install(device, "1.1")
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


def test_old_bundles_are_deleted_but_never_what_is_needed(device):
    digests = [install(device, f"1.{n}") for n in range(4)]
    assert set(device.store.bundles()) == {digests[0], digests[2], digests[3]}


def test_going_back_needs_somewhere_to_go(device):
    device.want(device.bundle("1.0"))
    with pytest.raises(NoModelError, match="no previous"):
        device.all.roll_back("s", "why")
    with pytest.raises(NoModelError):
        device.all.roll_back("other", "why")


def test_progress_is_told(device):
    shares = []
    device.all._changed = lambda: shares.append(device.all.progress().get("s", 0.0))
    device.want(device.bundle("1.0"))
    assert max(shares) == 1.0
    assert device.slot.state is SlotState.TRIAL


def test_the_same_wish_again_changes_nothing(device):
    digest = install(device, "1.0")
    events, saves = device.events(), device.state_file.saves
    device.want(digest)
    assert device.events() == events
    assert device.state_file.saves == saves + 1  # the generation
