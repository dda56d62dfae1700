"""An agent killed at every durable step of an update and started again: the old or the new model answers."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from killed_agent import NEVER, Fate, run_killed
from shoal_agent.adapters.state_file import StateFile
from shoal_agent.status import stored_status
from shoal_protocol.canonical import sha256_digest


def run(state: Path, wanted: str, steps: int) -> tuple[int, str]:
    """Run an agent that dies at a step; returns its exit status and what it said."""
    ended = run_killed(state, Fate(wanted, steps))
    return ended.status, ended.told


def answer(agent) -> float:
    return float(agent.model("quality").predict({"x": np.ones((1, 2), np.float32)})["y"][0, 0])


@pytest.fixture
def updating(world, tmp_path):
    """A device that runs version 1 and is about to hear of version 2; returns (world, old, new, fresh copy maker)."""
    old = world.pack(3.0, "1.0")
    world.assign(old)
    assert run(world.state, old, NEVER)[0] == 0
    new = world.pack(5.0, "1.1", padding=5_000)
    world.assign(new)
    pristine = tmp_path / "pristine"
    shutil.copytree(world.state, pristine, symlinks=True)

    def fresh() -> None:
        shutil.rmtree(world.state)
        shutil.copytree(pristine, world.state, symlinks=True)

    return world, old, new, fresh


STRIDE = 9
"""Every how many-th step is tried here; the crash campaign tries all, and every system call."""


@pytest.mark.slow
def test_killed_at_durable_steps_all_along_an_update_the_old_or_the_new_model_answers(updating):
    world, old, new, fresh = updating
    status, told = run(world.state, new, NEVER)
    assert status == 0, told
    total = int(re.search(r"settled after (\d+) steps", told)[1])
    assert total > 40
    seen = set()
    for steps in range(1, total + 1, STRIDE):
        fresh()
        status, told = run(world.state, new, steps)
        assert status == -9 or steps > total - 5, f"step {steps}: {told}"  # no two runs have exactly as many steps
        active = stored_status(world.state)["slots"]["quality"]["active"]
        assert active in {old, new}, f"step {steps}"
        seen.add(active)
        with world.agent() as agent:
            assert answer(agent) in {3.0, 5.0}, f"step {steps}"
            if steps % (5 * STRIDE) == 1:
                world.until(
                    lambda a=agent: a.status()["slots"]["quality"]["active"] == new and answer(a) == 5.0,
                    f"the update after a kill at step {steps}",
                )
    assert seen == {old, new}


def test_a_model_that_takes_the_agent_down_is_left_after_its_starts(updating):
    world, old, new, _ = updating
    killed_in_trial = 0
    for _ in range(12):
        state = StateFile(world.state).load()
        if state.slots["quality"].active == new:
            killed_in_trial += 1
        else:
            assert not killed_in_trial
        status, told = run_until_trial(world.state, new)
        if f"started with {old}" in told and killed_in_trial:
            break
        assert status == -9, told
    slot = StateFile(world.state).load().slots["quality"]
    assert slot.active == old
    assert slot.bad[new].code == "crash_loop"
    assert killed_in_trial == 4  # the switch itself and three starts


def run_until_trial(state: Path, new: str) -> tuple[int, str]:
    """Run an agent until the new model is active, also on the disk, then kill it, as if the model took it down."""
    source = (
        "import os, signal, sys, time; from pathlib import Path; from shoal_agent import Agent; "
        "from shoal_agent.bootstrap import Overrides; from shoal_agent.testing import FakePreflight; "
        "from shoal_agent.adapters.state_file import StateFile; saved = StateFile(Path(sys.argv[1])); "
        "agent = Agent(Path(sys.argv[1]), {'window_s': 3600, 'poll_s': 0.05, 'trial.seconds': 900, 'listen': 'none'}, "
        "overrides=Overrides(preflight=FakePreflight())); agent.start()\n"
        "print('started with', agent.status()['slots']['quality']['active'], flush=True)\n"
        "for _ in range(300):\n"
        "    if saved.load().slots['quality'].active == sys.argv[2]: os.kill(os.getpid(), signal.SIGKILL)\n"
        "    if agent.status()['slots']['quality']['error']: os._exit(0)\n"
        "    time.sleep(0.02)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", source, str(state), new], capture_output=True, text=True, timeout=60, check=False
    )
    return done.returncode, done.stdout + done.stderr


@pytest.mark.parametrize("files", [("state.json",), ("state.prev",), ("state.json", "state.prev")])
def test_a_damaged_state_never_loses_the_models(updating, files):
    world, _, new, _ = updating
    assert run(world.state, new, NEVER)[0] == 0
    for name in files:
        path = world.state / name
        raw = path.read_bytes()
        path.write_bytes(raw[: len(raw) // 2])
    world.server.faults.status = 503  # nobody helps
    with world.agent() as agent:
        assert answer(agent) in {3.0, 5.0}


def test_damaged_files_of_the_active_bundle_fall_to_the_previous_and_are_fetched_again(updating):
    world, _, new, _ = updating
    assert run(world.state, new, NEVER)[0] == 0
    model = next(path for path in (world.state / "blobs").iterdir() if path.stat().st_size == 5_000)
    model.write_bytes(b"\0" * 5_000)
    with world.agent() as agent:
        assert answer(agent) == 3.0
        world.until(lambda: answer(agent) == 5.0, "it is fetched again")
    assert sha256_digest(model.read_bytes()) == f"sha256:{model.name}"
