"""The show itself, as a newcomer runs it."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

STORIES = [
    "models_travel",
    "fleet_joins",
    "first_deployment",
    "staged_rollout",
    "quiet_fleet",
    "fog_localised",
    "bad_release_stopped",
    "every_row_counted_once",
]
DEMO = [str(Path(sys.executable).with_name("shoal-server")), "demo"]

pytestmark = [pytest.mark.system, pytest.mark.slow, pytest.mark.xdist_group("demo"), pytest.mark.timeout(400)]


def environment(folder: Path) -> dict[str, str]:
    return {**os.environ, "TMPDIR": str(folder), "COLUMNS": "160"}


def left_behind(folder: Path) -> list[str]:
    processes = [p.info["cmdline"] for p in psutil.process_iter(["cmdline"]) if str(folder) in str(p.info["cmdline"])]
    return [*map(str, folder.iterdir()), *map(str, processes)]


def test_the_whole_story_comes_true_and_leaves_nothing_behind(tmp_path: Path) -> None:
    command = [*DEMO, "--headless", "--assert"]
    told = subprocess.run(command, capture_output=True, text=True, timeout=380, env=environment(tmp_path), check=False)
    verdicts = [line for line in told.stdout.splitlines() if line.startswith(("PASS", "FAIL"))]
    assert verdicts == [f"PASS {name}" for name in STORIES], told.stdout + told.stderr
    assert told.returncode == 0
    assert "Traceback" not in told.stderr, told.stderr
    assert left_behind(tmp_path) == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_leaves_nothing_behind(tmp_path: Path, number: signal.Signals) -> None:
    with subprocess.Popen(
        [*DEMO, "--devices", "9"],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=environment(tmp_path),
        start_new_session=True,
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if "joined" in line or "online" in line:
                break
        assert left_behind(tmp_path) != [], "the show had not begun"
        time.sleep(0.5)
        os.killpg(process.pid, number)
        rest = process.stdout.read()
        assert process.wait(timeout=60) == 0, rest
    assert "Traceback" not in rest
    assert left_behind(tmp_path) == []
