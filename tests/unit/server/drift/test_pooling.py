"""No device decides alone."""

import numpy as np
import pytest

from shoal_server.drift.pooling import bulk, capped, trimmed_mean, weighted_mean


def test_a_forger_weighs_no_more_than_twice_the_median_device() -> None:
    rows = np.array([20, 25, 30, 10**12])
    assert capped(rows).tolist() == [20, 25, 30, 55]


@pytest.mark.parametrize(("devices", "left"), [(1, 1), (2, 2), (3, 1), (4, 2), (5, 3), (30, 24)])
def test_extreme_devices_are_trimmed(devices: int, left: int) -> None:
    values = np.arange(devices, dtype=float)[::-1].copy()
    values[0] = 1e9
    kept = np.arange(devices, dtype=float)
    kept[-1] = 1e9
    cut = (devices - left) // 2
    assert trimmed_mean(values, np.ones(devices)) == pytest.approx(kept[cut : devices - cut].mean())


def test_the_bulk_leaves_out_who_is_far_from_the_median_device() -> None:
    z = np.array([[0.0], [1.0], [-1.0], [0.5], [6.0]])
    nobody = np.zeros(z.shape, bool)
    assert bulk(z, nobody)[:, 0].tolist() == [True, True, True, True, False]
    assert bulk(z + 100, nobody)[:, 0].tolist() == [True, True, True, True, False]  # the world may move


def test_known_differences_are_left_out_while_they_are_a_minority() -> None:
    z = np.zeros((5, 1))
    two, three = np.zeros((5, 1), bool), np.zeros((5, 1), bool)
    two[:2], three[:3] = True, True
    assert bulk(z, two)[:, 0].tolist() == [False, False, True, True, True]
    assert bulk(z, three).all()


def test_weighted_mean_of_the_chosen() -> None:
    values = np.array([[1.0, 1.0], [3.0, 9.0]])
    chosen = np.array([[True, False], [True, False]])
    assert weighted_mean(values, np.array([1.0, 3.0]), chosen).tolist() == [2.5, 0.0]
