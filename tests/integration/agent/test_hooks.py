"""Real hooks: what they are told, what they can't see, and that none of them can hang the agent or outlive its time."""

from __future__ import annotations

import json
import os
import time

import pytest

from shoal_agent.adapters.hooks import ChildHooks
from shoal_agent.domain.occasion import HookKind, Occasion

OCCASION = Occasion(
    hook=HookKind.VETO, device="d-1", slot="quality", digest="sha256:ab", name="quality:1.4.0", other="sha256:cd"
)


@pytest.fixture
def hook(tmp_path):
    """Return what runs a script as the veto hook."""

    def run(script: str, *, timeout_s: float = 30.0, mode: int = 0o755):
        path = tmp_path / "hook"
        path.write_text(script)
        path.chmod(mode)
        return ChildHooks({HookKind.VETO: path}, timeout_s=timeout_s).run(OCCASION)

    return run


def test_a_hook_reads_the_occasion_from_its_input_and_its_variables(hook, tmp_path):
    outcome = hook(f"#!/bin/sh\ncat > {tmp_path}/told\nenv > {tmp_path}/env\necho machine is busy\nexit 75\n")
    assert (outcome.exit_code, outcome.said, outcome.fault) == (75, "machine is busy", "")
    told = json.loads((tmp_path / "told").read_text())
    assert told == {
        "hook": "veto",
        "device": "d-1",
        "slot": "quality",
        "bundle": {"digest": "sha256:ab", "name": "quality:1.4.0"},
        "other": {"digest": "sha256:cd"},
        "reason": None,
    }
    env = dict(line.split("=", 1) for line in (tmp_path / "env").read_text().splitlines())
    assert (env["SHOAL_HOOK"], env["SHOAL_SLOT"], env["SHOAL_BUNDLE"]) == ("veto", "quality", "quality:1.4.0")


def test_nothing_of_the_agents_environment_reaches_a_hook(hook, tmp_path, monkeypatch):
    monkeypatch.setenv("SHOAL_TOKEN", "secret")
    monkeypatch.setenv("LD_PRELOAD_X", "secret")
    hook(f"#!/bin/sh\nenv > {tmp_path}/env\npwd >> {tmp_path}/env\n")
    told = (tmp_path / "env").read_text()
    assert "secret" not in told
    assert told.endswith("\n/\n")


def test_a_hook_that_hangs_is_ended_with_all_that_it_started(hook, tmp_path):
    script = f"#!/bin/sh\necho waiting\nsleep 1000 &\necho $! > {tmp_path}/pid\nsleep 1000\n"
    began = time.monotonic()
    outcome = hook(script, timeout_s=3.0)  # enough for a shell to say something, also on a busy machine
    assert outcome.exit_code is None
    assert "longer than 3 s" in outcome.fault
    assert outcome.said == "waiting"
    assert time.monotonic() - began < 60.0
    assert gone(int((tmp_path / "pid").read_text()))


def test_what_a_hook_leaves_behind_neither_keeps_it_waiting_nor_stays(hook, tmp_path):
    outcome = hook(f"#!/bin/sh\nsleep 1000 &\necho $! > {tmp_path}/pid\nexit 0\n")  # the pipe stays open
    assert outcome.exit_code == 0
    assert gone(int((tmp_path / "pid").read_text()))


def test_a_hook_that_prints_for_ever_costs_no_memory(hook):
    outcome = hook("#!/bin/sh\nwhile :; do echo 0123456789012345678901234567890123456789; done\n", timeout_s=1.0)
    assert "longer than" in outcome.fault
    assert len(outcome.said) < 100


def test_a_hook_that_closes_its_input_and_output_is_no_fault(hook):
    assert hook("#!/bin/sh\nexec 0<&- 1>&- 2>&-\nsleep 0.2\nexit 75\n").exit_code == 75


@pytest.mark.parametrize(
    ("script", "mode", "told"),
    [
        ("#!/bin/sh\n", 0o644, "Permission denied"),
        ("#!/no/such/interpreter\n", 0o755, "No such file"),
        ("just words\n", 0o755, "Exec format error"),
    ],
)
def test_a_hook_that_can_not_be_run_says_why(hook, script, mode, told):
    assert told in hook(script, mode=mode).fault


def test_a_hook_that_crashes_says_by_which_signal(hook):
    assert "signal 11" in hook("#!/bin/sh\nkill -SEGV $$\n").fault


def gone(pid: int) -> bool:
    """Tell whether a process has ended within a while; a zombie has."""
    deadline = time.monotonic() + 20.0
    while time.monotonic() < deadline:
        try:
            with open(f"/proc/{pid}/stat") as file:  # noqa: PTH123 - a file of the kernel's
                if file.read().rpartition(")")[2].split()[0] == "Z":
                    return True
        except (FileNotFoundError, ProcessLookupError):
            return True
        os.sched_yield()
        time.sleep(0.01)
    return False
