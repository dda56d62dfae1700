"""The shell around the slot machine, over fakes: what is done, tried again and thrown away."""

from __future__ import annotations

import pytest

from shoal_agent.domain.slot import SlotState
from shoal_agent.errors import NoModelError, TransportError
from shoal_agent.ports import PreflightOutcome
from shoal_agent.updating.model_host import Seen
from shoal_protocol.bundle.schema import Variant
from shoal_protocol.errors import ContentError, DigestMismatchError, ExpiredError
from shoal_protocol.trust.assignment import Assignment, SlotTarget


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

    def once_wrong(model, blob, part, *, cancelled, **_more):
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
    first = device.install("1.0")
    second = device.install("1.1")
    device.trust.online = False
    device.want(first)
    assert (device.slot.active, device.slot.previous) == (first, second)


def test_a_full_disk_postpones(device):
    device.install("1.0")
    digest = device.bundle("1.1")
    device.store.free = 1000
    device.want(digest)
    assert (device.slot.state, device.all.troubles["s"].code) == (SlotState.ASSIGNED, "disk_full")
    device.store.free = 1 << 40
    device.turn(1.0)
    assert device.slot.active == digest


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


@pytest.mark.parametrize("where", ["self-test", "load"])
def test_memory_that_is_short_now_is_waited_for_and_blames_no_bundle(device, where):
    first = device.install("1.0")
    second = device.bundle("1.1")
    if where == "load":
        device.host.broken[second] = MemoryError()
    else:
        short = PreflightOutcome(passed=False, code="memory_short", message="48 MB", transient=True)
        device.preflight.outcomes = [short] * 3
    device.want(second)
    for wait_s in (6.0, 12.0, 24.0):  # as after a download that came out wrong: a self-test costs as much
        assert (device.slot.active, device.slot.fault) == (first, None)
        assert (device.host.answering, device.all.troubles["s"].code) == ({"s": first}, "memory_short")
        assert device.all.idle_s() == wait_s
        if wait_s == 24.0:
            device.host.broken.clear()
        device.turn(wait_s)
    assert (device.slot.active, device.host.answering, dict(device.all.troubles)) == (second, {"s": second}, {})


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


def test_old_bundles_are_deleted_but_never_what_is_needed(device):
    digests = [device.install(f"1.{n}") for n in range(4)]
    assert set(device.store.bundles()) == {digests[0], digests[2], digests[3]}


def test_going_back_needs_somewhere_to_go(device):
    device.want(device.bundle("1.0"))
    with pytest.raises(NoModelError, match="no previous"):
        device.all.roll_back("s", "why")
    with pytest.raises(NoModelError):
        device.all.roll_back("other", "why")


def test_progress_is_told(device):
    shares = []
    device.all._course.changed = lambda: shares.append(device.all.progress().get("s", 0.0))
    device.want(device.bundle("1.0"))
    assert max(shares) == 1.0
    assert device.slot.state is SlotState.TRIAL


def test_progress_within_a_file_is_told_a_twentieth_at_a_time(device):
    digest = device.bundle("1.0")
    shares, blobs = [], device.fetcher.blob

    def slowly(*args, came, **named):
        for step in range(1000):
            came(step / 1000)
        blobs(*args, came=came, **named)

    device.fetcher.blob = slowly
    device.all._course.changed = lambda: shares.append(device.all.progress().get("s", 0.0))
    device.want(digest)
    assert device.slot.active == digest
    assert len(shares) < 50  # of thousands of reads
    assert any(0.0 < share < 1.0 for share in shares)
    assert shares[-1] == 1.0


def test_the_same_wish_again_changes_nothing(device):
    digest = device.install("1.0")
    events, saves = device.events(), device.state_file.saves
    device.want(digest)
    assert device.events() == events
    assert device.state_file.saves == saves + 1  # the generation
