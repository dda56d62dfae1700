"""Joint features are named for people by the features that load most, wherever a drift is told."""

from dataclasses import replace

import numpy as np

from shoal_protocol.profile.grid import NumericGrid
from shoal_protocol.profile.profile import ProfileSpec, Stream, zero
from shoal_protocol.profile.reference import Reference
from shoal_server.drift.alarms import Alarm
from shoal_server.drift.localise import Finding
from shoal_server.drift.monitor_state import MonitorState, Scope
from shoal_server.drift.notices import finding_text
from shoal_server.drift.watch import Watch, Yardstick
from shoal_server.statistics.views import View

GRID = NumericGrid(0.0, 1.0, cells=8, coarse=(0, 1, 2, 4, 7))


def test_the_alert_of_a_joint_feature_names_the_features_that_load_most() -> None:
    plain = [Stream(name, "input", GRID, name) for name in ("heat", "flow", "hum")]
    params = {"streams": ["heat", "flow", "hum"], "weights": [5, -90, 70], "centers": [9, 9, 9]}
    spec = ProfileSpec((*plain, Stream("joint 1", "input", GRID, "heat", None, "joint", params)))
    yardstick = Yardstick.of(Reference(spec, zero(spec)))
    watch = Watch("reader", "sha256:aa", 1000, MonitorState.empty(4), np.zeros(spec.size))
    alarm = Alarm(
        scope=Scope.FLEET, name="fleet", feature="joint 1", component=0, view=View.LOCATION, onset=3, raised=5
    )
    finding = Finding(scope=Scope.FLEET, name="fleet", cause="the world changed", alarms=(alarm,))
    title, body = finding_text(watch, finding, yardstick)
    assert title.endswith("most joint 1 (-flow, hum, heat) (location +0.00 sd)")
    assert "- joint 1 (-flow, hum, heat) at the fleet drifts since" in body
    assert yardstick.layout.title("flow") == "flow"
    assert replace(alarm, feature="gone").feature == yardstick.layout.title("gone")
