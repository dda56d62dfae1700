"""A short run of the crash campaign, and what its parts must be able to see."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from crash_points import CUT_KINDS, missing
from power_cut import PowerCut

CAMPAIGNS = Path(__file__).parents[2] / "campaigns"
SEED = 1


@pytest.fixture
def crash(monkeypatch):
    monkeypatch.syspath_prepend(str(CAMPAIGNS))
    import crash

    yield crash
    sys.modules.pop("crash")


@pytest.mark.slow
@pytest.mark.timeout(1800)  # half a minute of work, on a machine that may be full
def test_150_points_find_nothing_and_the_flawed_agents_are_caught(crash, tmp_path):
    result = tmp_path / "campaign-crash.json"
    kinds = ("step", "kill", "fail")  # kinds that need no rights; without strace they all are steps
    assert crash.campaign(crash.Plan(150, SEED, lanes=4, kinds=kinds), result) == 0, result.read_text()
    written = json.loads(result.read_text())
    assert (written["seed"], written["points"], written["failures"]) == (SEED, 150, [])
    assert sorted(written["done"]) == list(range(150))
    assert written["control_caught"] is True


@pytest.mark.slow
@pytest.mark.timeout(1800)  # half a minute of work, on a machine that may be full
def test_power_cuts_on_real_file_systems_find_nothing_and_the_flawed_agents_are_caught(crash, tmp_path):
    lacks = missing(tmp_path)
    kinds = tuple(kind for kind in CUT_KINDS if kind not in lacks)
    if not kinds:
        pytest.skip("; ".join(f"{kind}: {lacks[kind]}" for kind in CUT_KINDS))
    result = tmp_path / "campaign-crash.json"
    assert crash.campaign(crash.Plan(8, SEED, lanes=2, kinds=kinds, flaws=("unsynced",)), result) == 0, (
        result.read_text()
    )


@pytest.mark.slow
def test_full_disks_find_nothing(crash, tmp_path):
    lacks = missing(tmp_path)
    if "full" in lacks:
        pytest.skip(lacks["full"])
    result = tmp_path / "campaign-crash.json"
    assert crash.campaign(crash.Plan(8, SEED, lanes=1, kinds=("full",), flaws=()), result) == 0, result.read_text()


def test_only_an_unfinished_sweep_of_the_same_seed_and_points_goes_on(crash, tmp_path):
    path = tmp_path / "result.json"
    assert crash._interrupted(path, crash.Plan(20, 1)) == {}
    path.write_text(json.dumps({"seed": 1, "points": 20, "done": list(range(7))}))
    assert len(crash._interrupted(path, crash.Plan(20, 1))["done"]) == 7
    assert crash._interrupted(path, crash.Plan(20, 2)) == crash._interrupted(path, crash.Plan(30, 1)) == {}
    path.write_text(json.dumps({"seed": 1, "points": 20, "done": list(range(20))}))
    assert crash._interrupted(path, crash.Plan(20, 1)) == {}


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


COPIED = """
import subprocess, sys
from pathlib import Path

from loop_disks import LoopDisk, missing

copies = "read go; exec unshare --mount sh -c 'echo copied; exec sleep 600'"
stranger = subprocess.Popen(["sh", "-c", copies], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
kind, folder = sys.argv[1], Path(sys.argv[2])
assert missing(kind, folder) is None
disk = LoopDisk(kind, folder)
disk.fresh()
try:
    (disk.root / "kept").write_text("synced")
    disk.sync()
    print("go", file=stranger.stdin, flush=True)
    assert stranger.stdout.readline() == "copied\\n"
    disk.cut("synced")
    disk.recover()
    assert (disk.root / "kept").read_text() == "synced"
finally:
    stranger.kill()
    stranger.wait()
    disk.unmount()
"""


@pytest.mark.slow
def test_a_cut_disk_is_mounted_anew_though_another_process_copies_what_is_mounted(tmp_path):
    lacks = missing(tmp_path)
    kinds = [kind for kind in CUT_KINDS if kind not in lacks]
    if not kinds:
        pytest.skip("; ".join(f"{kind}: {lacks[kind]}" for kind in CUT_KINDS))
    tests = str(CAMPAIGNS.parent)
    command = [sys.executable, "-c", COPIED, CUT_KINDS[kinds[0]], str(tmp_path)]
    done = subprocess.run(command, cwd=tests, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
