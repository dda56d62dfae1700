"""A short run of the crash campaign, and what its parts must be able to see."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import pytest

from power_cut import PowerCut

CAMPAIGNS = Path(__file__).parents[2] / "campaigns"


@pytest.mark.slow
def test_a_short_sweep_finds_nothing_and_its_flawed_agents_are_caught(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(CAMPAIGNS))
    import crash

    result = tmp_path / "campaign-crash.json"
    assert crash.campaign(20, 1, result) == 0, result.read_text()
    written = json.loads(result.read_text())
    assert (written["seed"], written["points"], written["done"], written["failures"]) == (1, 20, 20, [])
    assert written["control_caught"] is True
    assert written["seconds"] > 0
    sys.modules.pop("crash")


def test_only_an_unfinished_sweep_of_the_same_seed_and_points_goes_on(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(CAMPAIGNS))
    import crash

    path = tmp_path / "result.json"
    assert crash._interrupted(path, 20, 1) == {}
    path.write_text(json.dumps({"seed": 1, "points": 20, "done": 7}))
    assert crash._interrupted(path, 20, 1)["done"] == 7
    assert crash._interrupted(path, 20, 2) == crash._interrupted(path, 30, 1) == {}
    path.write_text(json.dumps({"seed": 1, "points": 20, "done": 20}))
    assert crash._interrupted(path, 20, 1) == {}
    sys.modules.pop("crash")


@pytest.mark.parametrize(("synced", "left"), [("neither", b""), ("file", b"new"), ("both", b"new")])
def test_a_power_cut_takes_back_what_was_not_synced(tmp_path, synced, left):
    folder = tmp_path / "state"
    folder.mkdir()
    target, temporary = folder / "state.json", folder / "state.json.tmp"
    target.write_bytes(b"old")
    never = PowerCut(folder, tmp_path / "spare", chance=lambda: 0.0 if synced == "file" else 0.9)
    temporary.write_bytes(b"new")
    if synced != "neither":
        _sync(never, temporary)
    never.rename(Path.replace, temporary, target)
    if synced == "both":
        _sync(never, folder)
    never.strike()
    if synced == "file":  # the rename was not synced, and the lot undid it
        assert (target.read_bytes(), temporary.read_bytes()) == (b"old", left)
    else:
        assert target.read_bytes() == left


def _sync(cut: PowerCut, path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    cut.synced(descriptor)
    os.close(descriptor)
