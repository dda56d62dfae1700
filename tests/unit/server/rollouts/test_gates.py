"""The one rule by which gates pass, fail or stay open."""

import math

import pytest
from scipy import stats

from shoal_server.rollouts.gates import Counts, Difference, Evidence, Level, Verdict, judge, share_bounds
from shoal_server.rollouts.plan import AccuracyGate, ErrorsGate, Gates, InstallGate, OutputGate

OUTPUT = Gates(output=OutputGate(tolerance=0.1))
HEALTHY = Counts(eligible=10, offered=10, reported=10, healthy=10)


def _install(healthy: int, failed: int = 0, lost: int = 0, *, soak_over: bool = True, **gate: object) -> list[Verdict]:
    counts = Counts(
        eligible=healthy + failed + lost,
        offered=healthy + failed + lost,
        reported=healthy + failed + lost,
        healthy=healthy,
        failed=failed,
        lost=lost,
    )
    found = judge(Gates(install=InstallGate(**gate)), counts, Evidence(), soak_over=soak_over)
    return [result.verdict for result in found]


def _output(measured: Difference | None, counts: Counts = HEALTHY, **gate: object) -> tuple[Verdict, str]:
    gates = Gates(output=OutputGate(**{"tolerance": 0.1, **gate}))
    result = judge(gates, counts, Evidence(output=measured), soak_over=True)[-1]
    return result.verdict, result.reason


@pytest.mark.parametrize(("hits", "n"), [(0, 5), (1, 3), (2, 3), (3, 3), (7, 100)])
def test_bounds_of_a_share_are_those_of_clopper_and_pearson(hits: int, n: int) -> None:
    interval = stats.binomtest(hits, n).proportion_ci(0.9, "exact")
    assert share_bounds(hits, n) == pytest.approx((interval.low, interval.high))


def test_empty_data_never_passes() -> None:
    assert _install(0) == [Verdict.INCONCLUSIVE, Verdict.INCONCLUSIVE]
    found = judge(Gates(errors=ErrorsGate(increase=0.01), output=OutputGate()), Counts(), Evidence(), soak_over=True)
    assert {result.verdict for result in found} == {Verdict.INCONCLUSIVE}
    assert all(result.value is None for result in found)


def test_a_failure_needs_proof() -> None:
    assert _install(2, failed=1)[0] is Verdict.INCONCLUSIVE
    assert _install(1, failed=2)[0] is Verdict.FAIL
    assert _install(94, failed=6)[0] is Verdict.INCONCLUSIVE
    assert _install(88, failed=12)[0] is Verdict.FAIL


def test_a_pass_on_few_devices_says_so() -> None:
    counts = Counts(eligible=3, offered=3, reported=3, healthy=3)
    result = judge(Gates(), counts, Evidence(), soak_over=True)[0]
    assert (result.verdict, result.n, result.devices) == (Verdict.PASS, 3, 3)
    assert "passed on few devices" in result.reason
    many = judge(Gates(), Counts(eligible=99, offered=99, reported=99, healthy=99), Evidence(), soak_over=True)[0]
    assert "few" not in many.reason


def test_nothing_passes_before_the_soak_is_over_but_it_may_fail() -> None:
    assert _install(10, soak_over=False)[0] is Verdict.INCONCLUSIVE
    assert _install(1, failed=9, soak_over=False)[0] is Verdict.FAIL


def test_lost_devices_have_their_own_threshold_and_dilute_nothing() -> None:
    install, lost = _install(5, failed=0, lost=5)
    assert (install, lost) == (Verdict.PASS, Verdict.FAIL)
    counts = Counts(eligible=103, offered=103, reported=103, healthy=1, failed=2, lost=100)
    result = judge(Gates(), counts, Evidence(), soak_over=True)[0]
    assert (result.n, result.value) == (3, pytest.approx(2 / 3))
    assert result.verdict is Verdict.FAIL


def test_minima_are_adapted_to_small_stages_unless_they_are_written() -> None:
    assert _install(1)[0] is Verdict.PASS
    assert _install(1, min_devices=3)[0] is Verdict.INCONCLUSIVE
    waiting = Counts(eligible=5, offered=1, reported=1, healthy=1, out_of_reach=4)
    assert judge(Gates(), waiting, Evidence(), soak_over=True)[0].verdict is Verdict.INCONCLUSIVE


def test_the_output_gate_follows_the_same_rule() -> None:
    def measured(value: float, low: float | None, high: float | None, n: int = 500, devices: int = 5) -> Difference:
        return Difference(value=value, low=low, high=high, n=n, devices=devices, against="9 devices", detail="label")

    assert _output(None)[0] is Verdict.INCONCLUSIVE
    assert _output(measured(0.3, 0.2, 0.4))[0] is Verdict.FAIL
    assert _output(measured(0.2, 0.05, 0.4))[0] is Verdict.INCONCLUSIVE
    assert _output(measured(0.02, -0.1, 0.05))[0] is Verdict.PASS
    assert "few devices" in _output(measured(0.02, None, None))[1]
    assert _output(measured(0.02, -0.1, 0.05, n=199))[0] is Verdict.INCONCLUSIVE
    assert _output(measured(math.nan, None, None))[0] is Verdict.INCONCLUSIVE


def test_a_few_devices_cannot_speak_for_all() -> None:
    counts = Counts(eligible=100, offered=100, reported=100, healthy=100)
    measured = Difference(value=0.0, low=-0.01, high=0.01, n=10_000, devices=49)
    verdict, reason = _output(measured, counts)
    assert verdict is Verdict.INCONCLUSIVE
    assert reason.startswith("49 of the 50 devices that are needed")


def test_a_result_survives_being_stored() -> None:
    for result in judge(OUTPUT, HEALTHY, Evidence(), soak_over=True):
        assert type(result).from_json(result.as_json()) == result
    assert set(judge(OUTPUT, HEALTHY, Evidence(), soak_over=True)[0].as_json()) >= {
        "gate",
        "verdict",
        "value",
        "bound",
        "threshold",
        "n",
        "devices",
    }


@pytest.mark.parametrize(
    ("value", "low", "high", "verdict", "words"),
    [
        (0.95, 0.94, 0.96, Verdict.PASS, "95.0% (threshold 93.0%)"),
        (0.95, 0.90, 0.98, Verdict.PASS, "passed on few devices"),
        (0.92, 0.90, 0.94, Verdict.INCONCLUSIVE, "not yet proven"),
        (0.80, 0.75, 0.85, Verdict.FAIL, "with 95 % confidence below 85.0%"),
    ],
)
def test_accuracy_must_be_high(value: float, low: float, high: float, verdict: Verdict, words: str) -> None:
    gates = Gates(accuracy=AccuracyGate(estimated=0.93))
    measured = Level(value=value, low=low, high=high, n=1000, devices=10)
    result = judge(gates, HEALTHY, Evidence(estimated=measured), soak_over=True)[-1]
    assert (result.gate, result.verdict, result.value, result.bound) == ("accuracy_estimated", verdict, value, high)
    assert words in result.reason


def test_accuracy_without_labels_or_calibration_is_no_pass() -> None:
    gates = Gates(accuracy=AccuracyGate(estimated=0.93, feedback=0.92))
    few = Level(value=1.0, low=0.9, high=1.0, n=99, devices=10)
    silent = Level(value=math.nan, detail="can't tell: no calibration in the bundle")
    estimated, feedback = judge(gates, HEALTHY, Evidence(estimated=silent, feedback=few), soak_over=True)[-2:]
    assert (estimated.verdict, estimated.reason) == (Verdict.INCONCLUSIVE, silent.detail)
    assert (feedback.gate, feedback.verdict) == ("accuracy_feedback", Verdict.INCONCLUSIVE)
    assert "99 of the 100 labels" in feedback.reason
    for result in judge(gates, HEALTHY, Evidence(), soak_over=True)[-2:]:
        assert (result.verdict, result.value) == (Verdict.INCONCLUSIVE, None)
    devices = Level(value=1.0, low=0.9, high=1.0, n=1000, devices=2)
    assert "2 of the 5 devices" in judge(gates, HEALTHY, Evidence(feedback=devices), soak_over=True)[-1].reason
