"""The tutorial, typed by a machine: its shell blocks in their order, in one shell, as written."""

import json
import os
import re
import socket
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

ROOT = Path(__file__).resolve().parents[2]
TUTORIAL = ROOT / "docs" / "tutorial" / "first-fleet.md"
STEPS = re.compile(r"^```sh\n(.*?)^```$", re.MULTILINE | re.DOTALL)

pytestmark = [pytest.mark.system, pytest.mark.slow]


def free_port() -> str:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return str(probe.getsockname()[1])


def test_the_tutorial_works_as_written(tmp_path: Path) -> None:
    script = "\n".join(STEPS.findall(TUTORIAL.read_text())).replace("8080", free_port()).replace("8130", free_port())
    told = tmp_path / "told.txt"
    with told.open("wb") as out:
        process = subprocess.Popen(
            ["bash", "-eumxc", script],
            cwd=tmp_path,
            env={**os.environ, "HOME": str(tmp_path), "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"},
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            code = process.wait(timeout=200)
        except subprocess.TimeoutExpired:
            code = None
        finally:
            end_session(process.pid)
    text = told.read_text()
    assert code == 0, text
    assert "Traceback" not in text
    answer = re.search(r"^\{.*\}$", text, re.MULTILINE)
    assert answer, text
    assert json.loads(answer.group())
    assert "taken back, as asked (exit code 3)" in text


def end_session(leader: int) -> None:
    for process in psutil.process_iter():
        try:
            if os.getsid(process.pid) == leader:
                process.kill()
        except ProcessLookupError:
            continue
