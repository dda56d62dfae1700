"""One agent against a simulated server: from joining to rolling back."""

from __future__ import annotations

import numpy as np
import pytest

from shoal_agent import Agent
from shoal_protocol.mqtt.topics import Up

ROW = {"x": np.array([[1.0, 2.0]], dtype=np.float32)}


def answer(agent: Agent) -> float:
    return float(agent.model("quality").predict(ROW)["y"][0, 0])


def committed(server, digest):
    report = server.last_report("quality")
    return report is not None and report.active == report.proven == digest and report.state == "idle"


def test_installs_what_is_assigned_and_reports_it_healthy(server, pack, joined, quick, overrides, until):
    digest = pack(3.0, "1.0")
    server.assign("quality", digest, name="quality:1.0")
    with Agent(joined, quick, overrides=overrides) as agent:
        until(lambda: committed(server, digest), what="a healthy report")
        assert answer(agent) == 3.0
        assert agent.status()["slots"]["quality"]["active"] == digest
    kinds = [event.kind for event in server.of(Up.EVENT)]
    assert kinds == ["activated", "committed"]
    assert server.of(Up.BIRTH)[0].labels == {"site": "bern"}
