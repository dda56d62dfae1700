"""An alarm on a joint feature says which features no longer move together as they did."""

import numpy as np

from shoal_protocol.profile.grid import NumericGrid
from shoal_protocol.profile.profile import Stream
from shoal_server.drift.count_causes import counts_cause
from shoal_server.statistics.views import View


def test_the_features_that_load_most_are_named() -> None:
    params = {"streams": ["heat", "flow", "hum", "load"], "weights": [5, -90, 70, 0], "centers": [9, 9, 9, 9]}
    grid = NumericGrid(0.0, 1.0, cells=8, coarse=(0, 1, 2, 4, 7))
    stream = Stream("joint 2", "input", grid, "x", None, "joint", params)
    before, now = np.array([0.0, 0, 90, 10, 0]), np.array([0.0, 0, 10, 90, 0])
    said = counts_cause(stream, before, now, view=View.SHAPE, effect=1.0)
    assert said == "correlation: how flow, hum and heat move together has changed, or they moved together"
    assert stream.title == "joint 2 (-flow, hum, heat)"
