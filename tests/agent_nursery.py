"""A process that has imported all that an agent needs, and forks a fresh agent process for every order.

A start of Python with onnxruntime takes most of a second; a sweep starts thousands of agents. The nursery has no thread
but its own when it forks. It works off one order after the other: JSON lines come in, ``pid N`` and ``ended STATUS`` go
out; what the child prints goes to a file.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any, Self

from killed_agent import Ended, Fate


class Nursery:
    """The side of the sweep.

    Args:
        folder: For what children print.
    """

    def __init__(self, folder: Path) -> None:
        self._told = folder / "told"
        environment = {**os.environ, "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
        self._process = subprocess.Popen(
            [sys.executable, __file__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            bufsize=1,
            env=environment,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait(timeout=60)
        self._process.stdout.close()

    def begin(self, state: Path, fate: Fate) -> int:
        """Start an agent; return its process id. One that has a gate stops itself there (SIGSTOP)."""
        assert self._process.stdin is not None
        order = {"state": str(state), "fate": asdict(fate), "told": str(self._told)}
        self._process.stdin.write(json.dumps(order) + "\n")
        return int(self._answer("pid"))

    def end(self) -> Ended:
        """Wait for the end of the agent."""
        status = int(self._answer("ended"))
        return Ended(status, self._told.read_text(encoding="utf-8", errors="replace"))

    def run(self, state: Path, fate: Fate) -> Ended:
        """Start an agent and wait for its end."""
        self.begin(state, fate)
        return self.end()

    def _answer(self, word: str) -> str:
        assert self._process.stdout is not None
        line = self._process.stdout.readline().split()
        if len(line) != 2 or line[0] != word:
            raise RuntimeError(f"the nursery should have said {word!r}, it said {line}")
        return line[1]


def wait_for_stop(pid: int) -> bool:
    """Wait until a process has stopped itself; false when it ended instead."""
    while True:
        try:
            state = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()[0]
        except FileNotFoundError:
            return False
        if state in "Tt":
            return True
        if state in "ZX":
            return False
        os.sched_yield()


def _child(order: dict[str, Any]) -> None:
    """Become the agent; never returns."""
    import killed_agent

    told = os.open(order["told"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    os.dup2(told, 1)
    os.dup2(told, 2)
    os.close(told)
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    try:
        killed_agent.main(Path(order["state"]), Fate(**order["fate"]))
    except BaseException:  # noqa: BLE001 - the end of a process
        sys.excepthook(*sys.exc_info())
        sys.stderr.flush()
    os._exit(1)


def _work() -> None:
    import killed_agent

    killed_agent.import_all()
    threads = len(list(Path("/proc/self/task").iterdir()))
    if threads != 1:
        raise SystemExit(f"the nursery has {threads} threads: forking would copy locks that nobody opens")
    for line in sys.stdin:
        pid = os.fork()
        if pid == 0:
            signal.signal(signal.SIGINT, signal.SIG_DFL)
            _child(json.loads(line))
        print(f"pid {pid}", flush=True)
        _, status = os.waitpid(pid, 0)
        print(f"ended {os.waitstatus_to_exitcode(status)}", flush=True)


if __name__ == "__main__":
    _work()
