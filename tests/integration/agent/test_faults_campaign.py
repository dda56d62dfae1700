"""A short run of the faults campaign, and a server that it must catch."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from shoal_server.telemetry import batch

CAMPAIGNS = Path(__file__).parents[2] / "campaigns"


@pytest.fixture
def faults(monkeypatch):
    monkeypatch.syspath_prepend(str(CAMPAIGNS))
    import faults

    yield faults
    sys.modules.pop("faults")


@pytest.mark.slow
@pytest.mark.broker
@pytest.mark.parametrize("broker", ["mosquitto", "embedded"])
def test_no_fault_costs_a_window_or_counts_one_twice(faults, request, tmp_path, broker):
    if broker == "mosquitto":
        request.getfixturevalue("mosquitto")  # skips where there is none
    result = tmp_path / "campaign-faults.json"
    assert faults.campaign(faults.Plan(4, seed=3, windows=150, brokers=(broker,)), result) == 0, result.read_text()
    written = json.loads(result.read_text())
    assert (written["windows"], written["brokers"][0]["failures"]) == (600, [])
    assert sum(written["brokers"][0]["faults"].values()) == 4


@pytest.mark.slow
@pytest.mark.timeout(1200)  # ten seconds of work, on a machine that may be full
def test_whole_agents_at_a_whole_server_lose_no_row_whatever_breaks_and_whatever_model_answers(faults, tmp_path):
    result = tmp_path / "campaign-faults.json"
    plan = faults.Plan(12, seed=16, windows=600, devices=3, brokers=("whole",))
    assert faults.campaign(plan, result) == 0, result.read_text()
    (told,) = json.loads(result.read_text())["brokers"]
    assert told["rows"] > 0
    assert told["labels"] > 0
    assert sum(told["faults"].values()) == 12
    assert {"assigned", "device killed", "server killed", "counted otherwise"} <= told["faults"].keys()


@pytest.mark.slow
def test_a_server_that_acknowledges_what_it_did_not_store_is_caught(faults, monkeypatch, tmp_path):
    really = batch.store.insert_windows
    monkeypatch.setattr(
        batch.store, "insert_windows", lambda session, rows: really(session, [row for row in rows if row[2] != 7])
    )
    result = tmp_path / "campaign-faults.json"
    plan = faults.Plan(1, seed=3, windows=150, brokers=("embedded",))
    assert faults.campaign(plan, result) == 1
    assert "made 25 windows" in json.loads(result.read_text())["brokers"][0]["failures"][0]
