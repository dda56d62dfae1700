"""A real agent that ends itself at its n-th durable step, by SIGKILL or as by a power cut; and how to run it.

Every step is one of the calls that make something durable: syncing a file, renaming, syncing a folder, committing to
the spool. The agent's own code knows nothing of this: the calls are wrapped from outside, before it starts. Run as a
program by `run_killed`.
"""

from __future__ import annotations

import json
import os
import re
import signal
import stat
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

NEVER = 10**9


@dataclass(frozen=True)
class Fate:
    """What an agent does, and its end.

    Attributes:
        wanted: The bundle whose commitment is waited for.
        steps: The step at which it ends.
        roll_back: Whether it goes back by an operator's word first.
        power_cut: The seed of what unsynced files are left as; none: all writes stay.
        flaw: A mistake to be found: ``unsynced`` (nothing is ever synced), ``unordered`` (files are synced only after
            they were renamed), ``late`` (the state is saved after acting).
        gate: Where it stops itself (SIGSTOP) until it is continued: ``boot``, before anything; ``threads``, when the
            stored model answers and updating is about to begin; none: nowhere.
        look: Whether it only starts, says what answers, and ends; no server, nobody helps.
        patience_s: It gives up waiting after so many seconds.
        question: An npz file with the inputs that an agent which only looks asks its model; none: ones, for ``x``.
    """

    wanted: str
    steps: int = NEVER
    roll_back: bool = False
    power_cut: int | None = None
    flaw: str | None = None
    gate: str | None = None
    look: bool = False
    patience_s: float = 60.0
    question: str = ""


@dataclass(frozen=True)
class Ended:
    """How a run ended.

    Attributes:
        status: -9: killed at the step; 0: it settled before; 2: it gave up waiting; 3: no room for a first start.
        told: What it printed.
        hit: Whether it came to the place at which something was to happen to it.
    """

    status: int
    told: str
    hit: bool = False

    @property
    def seen(self) -> dict[str, Any]:
        """What an agent that only looked has found: ``active`` and ``answer``."""
        found = re.search(r"^saw (.*)$", self.told, re.MULTILINE)
        return dict(json.loads(found[1])) if found else {}

    @property
    def steps(self) -> int:
        """Durable steps of a run that settled."""
        found = re.search(r"settled after (\d+) steps", self.told)
        return int(found[1]) if found else 0


def run_killed(state: Path, fate: Fate) -> Ended:
    """Run an agent on a state folder until its end."""
    done = subprocess.run(
        [sys.executable, __file__, str(state), json.dumps(asdict(fate))],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    return Ended(done.returncode, done.stdout + done.stderr)


class Countdown:
    """Ends the process at the n-th step."""

    def __init__(self, steps: int, strike) -> None:
        self._left, self._strike = steps, strike
        self._lock = threading.Lock()
        self.count = 0

    def step(self) -> None:
        with self._lock:
            self.count += 1
            if self.count == self._left:
                self._strike()
                os.kill(os.getpid(), signal.SIGKILL)

    def before(self, call):
        def wrapped(*arguments, **named):
            self.step()
            return call(*arguments, **named)

        return wrapped


def _wrap(state: Path, fate: Fate) -> Countdown:
    """Count the durable steps, and let each do what the fate wants."""
    from power_cut import PowerCut, lot
    from shoal_agent.adapters.spool import SqliteSpool
    from shoal_agent.adapters.state_file import StateFile

    cut = None
    if fate.power_cut is not None:
        cut = PowerCut(state, state.with_name(state.name + ".cut"), chance=lot(fate.power_cut))
    countdown = Countdown(fate.steps, cut.strike if cut else lambda: None)
    sync, rename, save = os.fsync, Path.replace, StateFile.save

    def synced(descriptor: int) -> None:
        if fate.flaw not in {"unsynced", "unordered"} or (fate.flaw == "unordered" and _is_folder(descriptor)):
            sync(descriptor)
            if cut is not None:
                cut.synced(descriptor)

    def renamed(source: Path, target) -> Path:
        done = cut.rename(rename, source, Path(target)) if cut else rename(source, target)
        if fate.flaw == "unordered":
            with Path(target).open("rb") as file:
                sync(file.fileno())
        return done

    os.fsync = countdown.before(synced)
    Path.replace = countdown.before(renamed)
    SqliteSpool.append = countdown.before(SqliteSpool.append)
    if fate.flaw == "late":
        StateFile.save = lambda self, state: threading.Timer(1.0, save, (self, state)).start()
    return countdown


def _is_folder(descriptor: int) -> bool:
    return stat.S_ISDIR(os.fstat(descriptor).st_mode)


def import_all() -> None:
    """Import what an agent imports sooner or later, in a process that will fork."""
    import numpy as np
    import tuf.ngclient  # noqa: F401
    import urllib3  # noqa: F401

    import shoal_agent.adapters.tuf_client
    import shoal_agent.bootstrap
    import shoal_agent.runtime.engine
    import shoal_agent.runtime.model
    import shoal_agent.runtime.slots
    import shoal_agent.runtime.windows
    import shoal_agent.testing
    import shoal_protocol.trust.assignment
    import shoal_protocol.trust.targets  # noqa: F401

    np.ones(1)
    tempfile.gettempdir()  # tries folders out by writing into them, the working directory at last
    shoal_agent.runtime.engine.import_onnxruntime()  # plainly imported it would start a thread


def _stop_at(gate: str | None) -> None:
    """Stop at the gate until somebody continues this process."""
    if gate == "boot":
        os.kill(os.getpid(), signal.SIGSTOP)
    elif gate == "threads":
        start = threading.Thread.start

        def stopped(thread: threading.Thread) -> None:
            threading.Thread.start = start
            os.kill(os.getpid(), signal.SIGSTOP)
            start(thread)

        threading.Thread.start = stopped


def main(state: Path, fate: Fate) -> None:
    """Run the agent until it has settled, or ended itself."""
    from shoal_agent import Agent
    from shoal_agent.adapters.judge import InProcessJudge
    from shoal_agent.bootstrap import Overrides
    from shoal_agent.settings import Settings
    from shoal_agent.testing import FakePreflight

    countdown = _wrap(state, fate)
    settings = Settings(
        window_s=3600.0, poll_s=0.05, trial_predictions=10, trial_seconds=0.1, retry_max_s=0.1, listen="none"
    )
    if fate.look:
        silent = Overrides(preflight=FakePreflight(), link=lambda _identity: None)
        _look(Agent(state, settings, overrides=silent), fate.question)
    _stop_at(fate.gate)
    # signatures are judged here, so that each step of storing what was signed is one of the steps
    agent = Agent(state, settings, overrides=Overrides(preflight=FakePreflight(), judge=InProcessJudge))
    _start(agent)
    slot = agent.status()["slots"].get("quality", {})
    _say(f"started with {slot.get('active')}")
    if fate.roll_back and slot.get("active") not in {None, fate.wanted}:
        agent.roll_back("quality")
    deadline = time.monotonic() + fate.patience_s
    while not _has_settled(slot := agent.status()["slots"].get("quality", {}), fate):
        if time.monotonic() > deadline:
            _say(f"gave up: {slot}")
            os._exit(2)
        time.sleep(0.02)
    time.sleep(0.2)  # until the server was told
    _say(f"settled after {countdown.count} steps")
    os._exit(0)


def _start(agent: Any) -> None:
    """Start an agent, or end as one does that finds no room for what a first start makes."""
    from shoal_agent.errors import StateFolderError

    try:
        agent.start()
    except StateFolderError as error:
        _say(f"no start: {error}")
        os._exit(3)


def _has_settled(slot: dict[str, Any], fate: Fate) -> bool:
    return slot.get("active") == fate.wanted and slot["state"] == "idle" and slot["trial"] is None


def _say(text: str) -> None:
    """Print; that may be the very system call that is made to fail, which is no fault of the agent."""
    with suppress(OSError):
        print(text, flush=True)


def _look(agent: Any, question: str) -> None:
    """Say what answers after a start, before the agent goes on with what was under way; never returns."""
    import numpy as np

    asked = dict(np.load(question)) if question else {"x": np.ones((1, 2), np.float32)}

    from shoal_agent.updating.updater import Updater

    Updater.run = lambda _self: None  # type: ignore[method-assign]  # this process ends when it has looked
    _start(agent)
    slot = agent.status()["slots"].get("quality", {})
    answer = None
    if slot.get("active") is not None:
        said = agent.model("quality").predict(asked)
        answer = float([*said.values()][-1].flat[0])
    print("saw " + json.dumps({"active": slot.get("active"), "answer": answer}), flush=True)
    agent.stop()
    os._exit(0)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Fate(**json.loads(sys.argv[2])))
