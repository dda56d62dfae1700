"""The small pure parts: trials, backoff, outbox, fit, reference time, the ending of a self-test."""

from __future__ import annotations

import signal

import pytest

from shoal_agent.adapters.preflight import ChildReport, judge_ending
from shoal_agent.domain.backoff import Backoff
from shoal_agent.domain.fit import DeviceFacts, misfits, needed_blobs, variant_for
from shoal_agent.domain.outbox import Outbox, as_ranges, surplus
from shoal_agent.domain.reference_time import PLAUSIBLE_AHEAD_MS, plausible, reference_ms
from shoal_agent.domain.trial import Trial, TrialRules, Verdict, judge
from shoal_agent.ports import PreflightLimits
from shoal_protocol.bundle.assembly import build_manifest
from shoal_protocol.bundle.schema import BundleInfo, Runtime, Variant, encode_document
from shoal_protocol.canonical import sha256_digest

RULES = TrialRules(predictions=100, seconds=60.0, max_error_rate=0.02, min_errors=5)


@pytest.mark.parametrize(
    ("predictions", "errors", "elapsed_s", "verdict"),
    [
        (99, 0, 59.0, Verdict.CONTINUE),
        (100, 0, 1.0, Verdict.PASSED),
        (100, 2, 1.0, Verdict.PASSED),
        (100, 3, 1.0, Verdict.FAILED),
        (0, 0, 60.0, Verdict.PASSED),
        (4, 4, 1.0, Verdict.CONTINUE),
        (5, 5, 1.0, Verdict.FAILED),
        (4, 4, 60.0, Verdict.FAILED),
    ],
)
def test_a_trial_ends_by_predictions_by_time_or_by_failures(predictions, errors, elapsed_s, verdict):
    assert judge(Trial(3, predictions=predictions, errors=errors, elapsed_s=elapsed_s), RULES) is verdict


def test_time_that_goes_back_adds_nothing_to_a_trial():
    assert Trial(3, elapsed_s=5.0).plus(predictions=1, errors=0, elapsed_s=-9.0) == Trial(
        3, predictions=1, elapsed_s=5.0
    )


def test_backoff_grows_to_its_cap_and_draws_from_zero():
    backoff = Backoff(base_s=1.0, cap_s=10.0)
    assert [backoff.delay_s(tries, 1.0) for tries in (1, 2, 3, 4, 5, 500)] == [1.0, 2.0, 4.0, 8.0, 10.0, 10.0]
    assert backoff.delay_s(9, 0.0) == 0.0


def test_the_outbox_hands_over_the_oldest_first_and_each_once():
    outbox = Outbox(limit=2, resend_s=10.0)
    assert outbox.due([1, 2, 3], now=0.0) == [1, 2]
    outbox = outbox.hand_over([1, 2], now=0.0)
    assert outbox.due([1, 2, 3], now=1.0) == []
    assert outbox.forget([2, 3]).due([2, 3], now=1.0) == [3]


def test_the_outbox_hands_over_again_after_a_while_and_after_every_reconnect():
    outbox = Outbox(limit=2, resend_s=10.0).hand_over([1, 2], now=0.0)
    assert outbox.due([1, 2], now=9.9) == []
    assert outbox.due([1, 2], now=10.1) == [1, 2]
    assert outbox.reconnected().due([1, 2], now=1.0) == [1, 2]


def test_the_newest_message_is_never_dropped():
    assert surplus([(1, 5), (2, 5), (3, 50)], total_bytes=60, budget_bytes=10) == [1, 2]
    assert surplus([(1, 5)], total_bytes=5, budget_bytes=5) == []


def test_ranges_are_closed():
    assert as_ranges([]) == []
    assert as_ranges([4, 5, 9]) == [[4, 5], [9, 9]]


FACTS = DeviceFacts("linux/arm64", "1.31.0", 1000)


def info(**fields) -> BundleInfo:
    return BundleInfo(name="q", version="1", task="other", framework="t", **fields)


def test_a_bundle_fits_by_platform_runtime_and_memory():
    assert misfits(info(), FACTS) == []
    assert misfits(info(), FACTS, platform="linux/arm64") == []
    assert "is for linux/amd64" in misfits(info(), FACTS, platform="linux/amd64")[0]
    assert "needs onnxruntime 1.32" in misfits(info(runtime=Runtime(min_onnxruntime="1.32")), FACTS)[0]
    assert misfits(info(runtime=Runtime(min_onnxruntime="1.9.7")), FACTS) == []
    assert "1001 bytes of memory" in misfits(info(runtime=Runtime(memory_budget_bytes=1001)), FACTS)[0]
    assert "no variant" in misfits(info(variants=(Variant(platform="linux/amd64"),)), FACTS)[0]


def test_the_first_variant_that_fits_is_chosen():
    variants = (Variant(path="a", platform="linux/amd64"), Variant(path="b", providers=("X",)), Variant(path="c"))
    assert variant_for(info(variants=variants), FACTS).path == "c"


def test_of_several_variants_a_device_needs_its_own_alone():
    variants = (Variant(path="model/int8.onnx", platform="linux/amd64"), Variant())
    files = {
        "bundle.json": encode_document(info(variants=variants)),
        "schema.json": b"{}",
        "model/int8.onnx": b"8",
        "model/model.onnx": b"32",
    }
    manifest = build_manifest(files, config=b"{}")
    stored = {sha256_digest(content): content for content in files.values()}

    def read(digest):
        if digest not in stored:
            raise FileNotFoundError(digest)
        return stored[digest]

    def needed(facts):
        wanted = {blob.digest for blob in needed_blobs(manifest, read, facts=facts)}
        return {path for path, layer in manifest.files().items() if layer.digest in wanted}

    assert needed(FACTS) == set(files) - {"model/int8.onnx"}
    assert needed(DeviceFacts("linux/amd64", "1.31.0", 1000)) == set(files) - {"model/model.onnx"}
    stored.clear()  # as long as nobody knows which it is, all are needed
    assert needed(FACTS) == set(files)


def test_an_implausible_clock_gives_way_to_the_newest_signed_time():
    floor = 1_700_000_000_000
    assert reference_ms(floor + 5, floor) == floor + 5
    assert reference_ms(0, floor) == floor
    assert reference_ms(floor + PLAUSIBLE_AHEAD_MS + 1, floor) == floor
    assert reference_ms(0, 0) == 0
    assert plausible(0, 0)
    assert not plausible(0, floor)


@pytest.mark.parametrize(
    ("stage", "status", "timed_out", "code", "transient"),
    [
        ("loaded", 0, True, "preflight_timeout", False),
        ("done", -signal.SIGKILL, True, "preflight_timeout", False),
        ("started", -signal.SIGKILL, True, "preflight_not_run", True),
        ("loaded", -signal.SIGXCPU, False, "preflight_timeout", False),
        ("loaded", -signal.SIGSEGV, False, "preflight_crash", False),
        ("imported", -signal.SIGABRT, False, "preflight_crash", False),
        ("loaded", -signal.SIGKILL, False, "preflight_not_run", True),
        ("started", -signal.SIGSEGV, False, "preflight_not_run", True),
        ("", 1, False, "preflight_not_run", True),
        ("imported", 3, False, "preflight_crash", False),
    ],
)
def test_what_the_ending_of_a_child_means(stage, status, timed_out, code, transient):
    outcome = judge_ending(ChildReport(stage=stage), status, timed_out=timed_out, limits=PreflightLimits(wall_s=9.0))
    assert (outcome.passed, outcome.code, outcome.transient) == (False, code, transient)


def test_what_the_child_says_counts_when_it_came_to_the_end():
    report = ChildReport(stage="done", passed=True, measured={"rows": 3.0})
    outcome = judge_ending(report, 0, timed_out=False, limits=PreflightLimits())
    assert (outcome.passed, outcome.measured) == (True, {"rows": 3.0})


def test_a_message_that_later_ones_overtake_again_and_again_is_hopeless():
    outbox = Outbox(resend_s=10.0).hand_over([5, 6], now=0.0).acknowledged({6}.__contains__)
    for resend in range(3):
        assert outbox.hopeless() == [], resend
        outbox = outbox.hand_over([5], now=10.0 + resend)
        assert outbox.acknowledged(lambda seq: False).passed == frozenset()
        assert outbox.acknowledged({6}.__contains__).hopeless() == []  # known before it was handed over again
        outbox = outbox.hand_over([7 + resend], now=10.5 + resend).acknowledged({6, 7 + resend}.__contains__)
    assert outbox.hopeless() == [5]
    assert outbox.forget([]).hopeless() == []
    assert outbox.reconnected().hopeless() == []


def test_a_slow_server_that_acknowledges_first_copies_makes_nothing_hopeless():
    outbox = Outbox(resend_s=10.0).hand_over([5], now=0.0).hand_over([6, 7], now=1.0)
    for now in range(10, 60, 10):  # each is handed over again before the server comes to the first copies
        outbox = outbox.hand_over([5], now=now).hand_over([6, 7], now=now + 1)
    outbox = outbox.hand_over([5], now=60.0).acknowledged({5}.__contains__)
    assert outbox.passed == frozenset()
    for now in range(61, 101, 10):
        outbox = outbox.hand_over([6, 7], now=now).hand_over([8], now=now + 9).acknowledged({5, 6}.__contains__)
    assert outbox.hopeless() == []


def test_as_many_refused_messages_as_may_be_under_way_keep_nothing_back():
    outbox, refused, given_up, sent = Outbox(limit=4, resend_s=10.0), {1, 2, 3, 4}, set(), set()
    for round_ in range(20):
        waiting = sorted({*range(1, 9 + round_)} - given_up - sent)
        outbox = outbox.forget(waiting)
        due = outbox.due(waiting, 11.0 * round_)
        sent |= set(due) - refused
        outbox = outbox.hand_over(due, 11.0 * round_).acknowledged(sent.__contains__)
        given_up |= set(outbox.hopeless())
    assert given_up == refused
    assert len(sent) >= 20


def test_silence_alone_makes_nothing_hopeless():
    outbox = Outbox(resend_s=1.0)
    for now in range(50):
        outbox = outbox.hand_over([1, 2], now=float(now))
    assert outbox.acknowledged({1}.__contains__).hopeless() == []
    assert outbox.acknowledged({1}.__contains__).passed == frozenset()
