"""Child processes of the agent: how each is started, and what each does before anything else.

A child is a fresh interpreter, never a fork (children forked from a process with threads hung), in a session of its own
and with none of the agent's environment. It reads its orders from standard input and answers on standard output. Its
first order is where modules are found: ``python -I`` knows only what is installed.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import msgspec

if TYPE_CHECKING:
    from subprocess import Popen

_SET_DEATH_SIGNAL = 1
"""PR_SET_PDEATHSIG, see prctl(2)."""


def start(script: Path) -> Popen[bytes]:
    """Start a child from the agent's side."""
    import subprocess  # noqa: PLC0415 - 2 ms, of which most starts have no use

    return subprocess.Popen(
        [sys.executable, "-I", str(script)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
        env=_environment(),
    )


def kill(child: Popen[bytes]) -> None:
    """End a child that was started so, and all that it started."""
    with suppress(ProcessLookupError):
        os.killpg(child.pid, signal.SIGKILL)


def how_it_ended(status: int) -> str:
    """Say in words what an exit status means; negative: the signal that ended it."""
    return f"signal {signal.Signals(-status).name}" if status < 0 else f"exit status {status}"


def first_order() -> bytes:
    """Return the first line for a child: where modules are found, and whose child it is."""
    return msgspec.json.encode({"path": sys.path, "parent": os.getpid()}) + b"\n"


def obey(order: Mapping[str, Any]) -> IO[bytes]:
    """Begin the child's side, once its path is set: let it end with the agent, and before the agent.

    Returns:
        Where it answers. Standard output is closed to all others, so that what a library prints can't be taken for the
        answer.
    """
    _die_with_parent()
    if os.getppid() != order["parent"]:
        os._exit(0)  # the agent was gone before it could be asked for
    _die_before_others()
    with suppress(OSError):
        os.nice(5)  # the active model answers meanwhile
    answers = os.fdopen(os.dup(1), "wb")
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 1)
    os.dup2(null, 2)
    return answers


def data_bytes() -> int:
    """Return what counts against RLIMIT_DATA now: the sixth number of /proc/self/statm, in pages, see proc(5)."""
    return int(Path("/proc/self/statm").read_text().split()[5]) * os.sysconf("SC_PAGE_SIZE")


def _environment() -> dict[str, str]:
    kept = {name: os.environ[name] for name in ("PATH", "LD_LIBRARY_PATH", "TMPDIR") if name in os.environ}
    threads = dict.fromkeys(("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    return {**kept, **threads, "ORT_DISABLE_TELEMETRY": "1", "LC_ALL": "C.UTF-8"}


def _die_with_parent() -> None:
    """Ask Linux to kill this process when the agent dies, so that a killed agent leaves nothing behind."""
    import ctypes  # noqa: PLC0415 - only here

    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(_SET_DEATH_SIGNAL, signal.SIGKILL, 0, 0, 0)


def _die_before_others() -> None:
    """Ask Linux to take this process first when memory runs short, so that it does not take the agent."""
    with suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000")
