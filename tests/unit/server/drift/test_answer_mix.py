"""Another mix of answers told from sensors that changed, as a fleet's watch tells it."""

import numpy as np
import numpy.typing as npt
import pytest

from shoal_protocol.profile.grid import CategoricalGrid, fit_numeric
from shoal_protocol.profile.profile import ProfileSpec, Stream, summarise
from shoal_protocol.profile.reference import Reference, encode_reference, parse_reference
from shoal_server.drift.answer_mix import MIX_OF_ANSWERS, AnswerMix
from shoal_server.drift.monitor_state import MonitorState
from shoal_server.drift.notices import finding_text
from shoal_server.drift.rules import Rules
from shoal_server.drift.watch import Counts, Watch, Yardstick
from shoal_server.testing.gas_array import COLUMNS, GASES, MIX, GasArray

SENSORS, ROWS = COLUMNS[::8], 60
Batch = tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]


def tensors(batch: Batch) -> dict[str, npt.NDArray[np.generic]]:
    """Return inputs, and the answers of a model that is always right."""
    values, gas = batch
    inputs = {name: values[:, COLUMNS.index(name)] for name in SENSORS}
    return {**inputs, "label": np.array([GASES[one] for one in gas], dtype=object)}


def reference_of(batch: Batch) -> Reference:
    inputs = [Stream(name, "input", fit_numeric(x), name) for name, x in tensors(batch).items() if name != "label"]
    spec = ProfileSpec((*inputs, Stream("label", "output", CategoricalGrid(tuple(sorted(GASES))), "label")))
    rows = tensors(batch)
    masks = [rows["label"] == gas for gas in sorted(GASES)]
    by_answer = [summarise(spec, {name: x[mask] for name, x in rows.items()}).cells.tolist() for mask in masks]
    return Reference(spec, summarise(spec, rows), by_answer=tuple(tuple(row) for row in by_answer))


def hints(batch: Batch, *, devices: int) -> tuple[dict[str, str], str]:
    """Return what is said of each stream that drifts, and the alert, after a baseline on the first batch."""
    first = GasArray(seed=3).batch(0, mix=8 * MIX[0])
    yardstick, rules, random = Yardstick.of(reference_of(first)), Rules(), np.random.default_rng(1)
    layout = yardstick.layout
    watch = Watch("nose", "sha256:aa", 1000, MonitorState.empty(layout.streams), np.zeros(layout.size))
    names, text = [f"array-{at}" for at in range(devices)], ""
    for index in range(rules.baseline_windows + 14):
        values, gas = first if index < rules.baseline_windows + 2 else batch
        chosen = [random.integers(0, len(gas), ROWS) for _ in names]
        cells = [summarise(yardstick.reference.spec, tensors((values[at], gas[at]))).cells for at in chosen]
        counts = Counts(names, np.full(devices, ROWS), np.array(cells))
        for notice in watch.close(index, counts, yardstick=yardstick, cohorts={}, rules=rules):
            if notice.finding is not None:
                text = finding_text(watch, notice.finding, yardstick)[1]
    return {alarm.feature: alarm.hint for alarm in watch.alarms.values()}, text


@pytest.mark.parametrize("devices", [1, 6])
def test_a_mix_of_answers_is_told_as_such_and_no_sensor_is_blamed(devices: int) -> None:
    said, text = hints(GasArray(seed=3).batch(0, mix=8 * MIX[4], aged=False), devices=devices)
    inputs = [hint for name, hint in said.items() if name != "label"]
    assert len(inputs) >= 3
    assert sum(hint.startswith(MIX_OF_ANSWERS) for hint in inputs) >= 0.7 * len(inputs)
    mixed = [line for line in text.splitlines() if MIX_OF_ANSWERS in line]
    assert mixed
    assert not [line for line in mixed if "look at" in line]


@pytest.mark.parametrize("devices", [1, 6])
def test_sensors_that_age_are_not_put_down_to_the_mix(devices: int) -> None:
    said, _ = hints(GasArray(seed=3).batch(8, mix=8 * MIX[0]), devices=devices)
    assert len(said) >= 3
    assert not [hint for hint in said.values() if hint.startswith(MIX_OF_ANSWERS)]


def test_a_bundle_without_counts_by_answer_explains_nothing() -> None:
    reference = reference_of(GasArray(seed=3).batch(0))
    plain = Reference(reference.spec, reference.profile)
    assert Yardstick.of(plain).answer_mix is None
    assert AnswerMix.of(plain, Yardstick.of(plain).basis) is None
    again = parse_reference(encode_reference(reference))
    assert again.by_answer == reference.by_answer
    assert parse_reference(encode_reference(plain)).by_answer is None
