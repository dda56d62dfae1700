"""Another mix of classes told apart from sensors that age, on a made array of gas sensors."""

import numpy as np
import numpy.typing as npt
import pytest

from shoal_server.statistics.answers import answer
from shoal_server.statistics.same_mix import given_mix
from shoal_server.statistics.samples import Columns, Verdict, compare
from shoal_server.testing.gas_array import COLUMNS, GASES, MIX, GasArray

SENSORS = COLUMNS[::8]


def columns(batch: tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]) -> Columns:
    values, gas = batch
    table = {name: values[:, COLUMNS.index(name)].astype(np.float64) for name in SENSORS}
    return {**table, "gas": np.array([GASES[one] for one in gas], dtype=object)}


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_another_mix_alone_is_told_from_sensors_that_age(seed: int) -> None:
    array = GasArray(seed=seed)
    before = columns(array.batch(0, mix=3 * MIX[0]))
    mixed = compare(before, columns(array.batch(0, mix=3 * MIX[4], aged=False)), given="gas")
    drifting = [one for one in mixed.features if one.verdict is Verdict.DRIFT and one.name != "gas"]
    assert len(drifting) >= 5
    assert sum(one.explained for one in drifting) >= 0.7 * len(drifting)
    assert "another mix alone explains" in answer(mixed)
    aged = compare(before, columns(array.batch(9)), given="gas")
    drifting = [one for one in aged.features if one.verdict is Verdict.DRIFT and one.name != "gas"]
    assert len(drifting) >= 5
    assert sum(one.explained for one in drifting) <= 0.4 * len(drifting)
    gone = {name: np.abs(array.log_gain(9)[SENSORS.index(name)]) > 0.3 for name in SENSORS}
    explained = {one.name for one in drifting if one.explained}
    assert not [name for name in explained if gone[name]]


@pytest.mark.parametrize("seed", [3, 4, 5, 6])
def test_the_gain_of_a_sensor_that_ages_is_no_change_of_unit(seed: int) -> None:
    array = GasArray(seed=seed)
    found = compare(columns(array.batch(0)), columns(array.batch(9)), given="gas")
    causes = [one.cause.partition(":")[0] for one in found.features if one.verdict is Verdict.DRIFT]
    assert causes.count("gain") >= 4
    assert "unit change" not in causes


def test_without_the_question_nothing_is_answered() -> None:
    before = columns(GasArray(seed=1).batch(0))
    found = compare(before, columns(GasArray(seed=1).batch(1)))
    assert {one.p_given for one in found.features} == {None}
    assert "mix alone" not in answer(found)


def test_a_column_of_numbers_is_taken_in_bands() -> None:
    random = np.random.default_rng(4)
    hour_a, hour_b = random.uniform(0, 24, 2000), random.uniform(8, 20, 1500)
    before, now = ({"hour": hour, "load": hour**2 + 30 * random.normal(size=hour.size)} for hour in (hour_a, hour_b))
    load = next(one for one in compare(before, now, given="hour").features if one.name == "load")
    assert load.explained
    now["load"] = now["load"] + 60
    load = next(one for one in compare(before, now, given="hour").features if one.name == "load")
    assert (load.verdict, load.explained) == (Verdict.DRIFT, False)


def test_the_reference_takes_the_wanted_mix_and_counts_for_fewer_rows() -> None:
    by_class = np.array([[80, 20], [10, 90], [0, 0]])
    same, effect = given_mix(by_class, np.array([100.0, 100.0, 0.0]), np.array([50.0, 50.0, 9.0]))
    assert same.tolist() == [90, 110]
    assert effect == pytest.approx(1.0)
    other, effect = given_mix(by_class, np.array([100.0, 100.0, 0.0]), np.array([90.0, 10.0, 0.0]))
    assert other == pytest.approx([146, 54])
    assert effect == pytest.approx(1.64)
