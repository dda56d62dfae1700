"""What the agent's container does first: join where it is told to, and nothing else before any other command."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

ENTRYPOINT = Path(__file__).resolve().parents[3] / "deploy" / "container" / "agent-entrypoint"
SERVER = "https://shoal.example:8080"


@pytest.fixture
def calls(tmp_path):
    """Return what a container calls, given its command, its environment, and the exit code of joining."""
    program = tmp_path / "shoal-agent"
    program.write_text(f'#!/bin/sh\necho "$@" >> {tmp_path}/told\n[ "$1" != join ] || exit $JOINED\n')
    program.chmod(0o755)

    def run(*command: str, joined: int = 0, **environment: str) -> tuple[int, list[str]]:
        (tmp_path / "told").write_text("")
        path = f"{tmp_path}:{os.environ['PATH']}"
        done = subprocess.run(
            [ENTRYPOINT, *command], env={"PATH": path, "JOINED": str(joined), **environment}, check=False, timeout=60
        )
        return done.returncode, (tmp_path / "told").read_text().splitlines()

    return run


def test_the_first_thing_a_run_does_is_to_join_the_server_that_it_is_told(calls):
    assert calls("run", "--listen", "none", SHOAL_URL=SERVER) == (
        0,
        [f"join {SERVER} --if-needed", "run --listen none"],
    )
    assert calls("run", SHOAL_URL=SERVER, joined=2) == (2, [f"join {SERVER} --if-needed"])


def test_without_a_server_and_for_other_commands_nobody_joins(calls):
    assert calls("run") == (0, ["run"])
    assert calls("status", "--json", SHOAL_URL=SERVER) == (0, ["status --json"])
    assert calls() == (0, [""])
