"""How far the rate of errors rose: difference in differences, device by device."""

import random

import pytest

from shoal_server.rollouts.errors_rate import Group, Tally, errors_difference

NOBODY = Group({}, {})


def _group(now: list[float], before: list[float] | None = None, n: int = 1000) -> Group:
    return Group(
        {f"d{place}": Tally(n, round(rate * n)) for place, rate in enumerate(now)},
        {f"d{place}": Tally(n, round(rate * n)) for place, rate in enumerate(before or [])},
    )


def test_nothing_is_measured_without_predictions() -> None:
    assert errors_difference(NOBODY, NOBODY, against="") is None
    assert errors_difference(Group({"a": Tally()}, {}), NOBODY, against="") is None


def test_a_shift_of_the_whole_world_is_not_the_models() -> None:
    found = errors_difference(_group([0.2] * 5, [0.1] * 5), _group([0.2] * 5, [0.1] * 5), against="5 devices")
    assert found is not None
    assert found.value == pytest.approx(0.0)
    assert (found.n, found.devices, found.against) == (5000, 5, "5 devices")


def test_a_rise_of_the_canaries_alone_is_proven() -> None:
    canary = _group([0.20, 0.22, 0.18, 0.21], [0.10, 0.11, 0.09, 0.10])
    found = errors_difference(canary, _group([0.10, 0.11, 0.09], [0.10, 0.11, 0.09]), against="")
    assert found is not None
    assert found.value == pytest.approx(0.1025)
    assert found.low is not None
    assert found.high is not None
    assert 0.05 < found.low < found.value < found.high


def test_devices_that_always_erred_more_are_compared_with_themselves() -> None:
    found = errors_difference(_group([0.3, 0.5], [0.3, 0.5]), _group([0.0, 0.0], [0.0, 0.0]), against="")
    assert found is not None
    assert found.value == pytest.approx(0.0)


def test_one_device_has_no_bounds() -> None:
    found = errors_difference(_group([0.9]), _group([0.1] * 5), against="")
    assert found is not None
    assert (found.low, found.high) == (None, None)
    assert found.value == pytest.approx(0.8)


def test_no_errors_at_all_are_no_certainty() -> None:
    found = errors_difference(_group([0.0, 0.0], n=20), _group([0.0, 0.0], n=20), against="")
    assert found is not None
    assert found.high is not None
    assert found.high > 0.05


def test_one_forger_of_twenty_decides_nothing() -> None:
    honest = _group([0.1] * 19)
    forger = Group({**honest.now, "forger": Tally(10**12, 10**12)}, {})
    found = errors_difference(forger, _group([0.1] * 20), against="")
    assert found is not None
    assert found.value == pytest.approx(0.0, abs=1e-9)


def test_false_proofs_are_as_rare_as_they_should_be() -> None:
    """Rates that vary between devices, none of them for the bundle: at most about 5 % may prove a rise above 0."""
    draw = random.Random(7)
    proofs = 0
    for _ in range(600):
        canary = [min(max(draw.gauss(0.1, 0.03), 0), 1) for _ in range(6)]
        control = [min(max(draw.gauss(0.1, 0.03), 0), 1) for _ in range(12)]
        found = errors_difference(_group(canary), _group(control), against="")
        assert found is not None
        assert found.low is not None
        proofs += found.low > 0
    assert proofs / 600 < 0.075
