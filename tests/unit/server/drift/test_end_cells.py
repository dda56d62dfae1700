"""Values that move far lie in the widest cells, at the ends: that alone is no stuck sensor."""

from collections import Counter

import numpy as np
import pytest

from shoal_protocol.profile.grid import fit_numeric
from shoal_protocol.profile.profile import ProfileSpec, Stream, summarise
from shoal_server.drift.count_causes import counts_cause
from shoal_server.statistics.views import View

TRAINING = np.random.default_rng(1).normal(size=5000)
SPEC = ProfileSpec((Stream("x", "input", fit_numeric(TRAINING), "x"),))


def words(rows: int, shift: float, stuck: float, times: int = 60) -> Counter[str]:
    """Return the first words of what is said of rows that move, or of which a share sticks at a value."""
    random, said = np.random.default_rng(2), Counter[str]()
    before = summarise(SPEC, {"x": TRAINING}).cells.astype(float)
    for _ in range(times):
        now = random.normal(shift, 1, rows)
        now = np.where(random.random(rows) < stuck, 2.6, now)
        counts = summarise(SPEC, {"x": now}).cells.astype(float)
        cause = counts_cause(SPEC.streams[0], before, counts, view=View.LOCATION, effect=1.0)
        said[cause.partition(":")[0]] += 1
    return said


@pytest.mark.parametrize("rows", [40, 400])
@pytest.mark.parametrize("shift", [-1.6, 1.2, 1.6, 2.2])
def test_values_that_moved_far_are_shifted(rows: int, shift: float) -> None:
    said = words(rows, shift, 0.0)
    assert said["stuck"] + said["saturation"] <= 6
    assert said["shift"] + said["shift or stuck"] >= 50


def test_values_that_stick_at_an_end_are_stuck() -> None:
    assert words(400, 0.0, 0.4)["stuck"] >= 50
    assert words(400, 0.0, 1.0)["shift or stuck"] == 60


def test_a_few_values_beyond_the_range_of_many_that_moved_are_no_outliers() -> None:
    before = summarise(SPEC, {"x": TRAINING}).cells.astype(float)
    random = np.random.default_rng(3)
    moved = np.append(random.normal(1.6, 1, 1200), 40.0)
    stray = np.append(random.normal(0.0, 1, 1200), [40.0] * 12)
    said = [
        counts_cause(
            SPEC.streams[0], before, summarise(SPEC, {"x": now}).cells.astype(float), view=View.RANGE, effect=0.01
        )
        for now in (moved, stray)
    ]
    assert [cause.partition(":")[0] for cause in said] == ["shift", "outliers"]
