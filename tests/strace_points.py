"""Ends and failures at single system calls of a running agent, by strace's fault injection.

strace counts the calls of each thread by itself: the n-th call is that of the thread that comes to it first. So a run
has two gates from which it counts: the start, where one thread does all, and the begin of updating.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from agent_nursery import Nursery, wait_for_stop
from killed_agent import Ended, Fate

LASTING = (
    "openat", "close", "write", "writev", "pwrite64", "pwritev", "sendfile", "copy_file_range", "fallocate",
    "fsync", "fdatasync", "ftruncate", "truncate", "rename", "renameat", "renameat2", "unlink", "unlinkat", "rmdir",
    "mkdir", "mkdirat", "link", "linkat", "symlink", "symlinkat", "fchmod", "fchown", "sendto", "sendmsg",
)  # fmt: skip
"""Calls that change what a power cut leaves: the disk, or what the server was told."""

ERRORS = {
    "openat": ("EMFILE", "ENOSPC", "EIO"),
    "write": ("ENOSPC", "EIO"),
    "pwrite64": ("ENOSPC", "EIO"),
    "fsync": ("EIO", "ENOSPC"),
    "fdatasync": ("EIO", "ENOSPC"),
    "ftruncate": ("EIO",),
    "rename": ("ENOSPC", "EIO"),
    "unlink": ("EIO",),
    "mkdir": ("ENOSPC",),
    "symlink": ("ENOSPC", "EIO"),
    "fchmod": ("EIO",),
}
"""What each call can fail with, as a disk or a process without descriptors would let it."""

_CALL = re.compile(r"^(\d+) +(\w+)\(")


@dataclass(frozen=True, order=True)
class Place:
    """One system call of a run.

    Attributes:
        gate: From where it is counted.
        syscall: Its name.
        number: The how many-th of one thread.
    """

    gate: str
    syscall: str
    number: int

    def __str__(self) -> str:
        return f"{self.syscall} {self.number} after {self.gate}"


def missing() -> str | None:
    """Return why there can be no such points here; none: there can."""
    if shutil.which("strace") is None:
        return "strace is not installed (Debian: apt-get install strace)"
    tried = subprocess.run(["strace", "-qq", "-e", "trace=none", "true"], capture_output=True, text=True, check=False)
    return None if tried.returncode == 0 else f"strace may not trace here: {tried.stderr.strip()}"


def places(nursery: Nursery, state: Path, fate: Fate, gate: str) -> list[Place]:
    """Return all system calls of a run that nobody disturbs, of every name."""
    pid = nursery.begin(state, Fate(**{**vars(fate), "gate": gate}))
    counts: Counter[tuple[str, str]] = Counter()
    with traced(pid, "trace=all") as lines:
        for line in lines:
            found = _CALL.match(line)
            if found:
                counts[found[1], found[2]] += 1
    ended = nursery.end()
    if ended.status != 0:
        raise RuntimeError(f"the run that was to be counted failed: {ended.told}")
    most = {name: max(count for (_, other), count in counts.items() if other == name) for _, name in counts}
    return [Place(gate, name, number) for name in sorted(most) for number in range(1, most[name] + 1)]


def killed_at(nursery: Nursery, state: Path, fate: Fate, place: Place) -> Ended:
    """Run an agent that is killed as it enters a call, which is not carried out."""
    return _injected(nursery, state, fate, place, "signal=KILL", times="")


def failing_at(nursery: Nursery, state: Path, fate: Fate, place: Place, *, error: str, lasting: bool) -> Ended:
    """Run an agent one of whose calls fails, or that and all later ones of each thread; `hit` tells whether one did."""
    return _injected(nursery, state, fate, place, f"error={error}", times="+" if lasting else "")


def struck_at(nursery: Nursery, state: Path, fate: Fate, place: Place, *, strike: Callable[[], None]) -> Ended:
    """Run an agent that is stopped after a call was carried out; strike, and kill it without letting it go on."""
    pid = nursery.begin(state, Fate(**{**vars(fate), "gate": place.gate}))
    what = f"inject={place.syscall}:signal=STOP:when={place.number}"
    with traced(pid, f"trace={place.syscall}", what) as lines:
        if any("--- SIGSTOP {" in line for line in lines) and wait_for_stop(pid):
            strike()
            os.kill(pid, signal.SIGKILL)
            return replace(nursery.end(), hit=True)
    ended = nursery.end()
    strike()
    return ended


def _injected(nursery: Nursery, state: Path, fate: Fate, place: Place, what: str, *, times: str) -> Ended:
    pid = nursery.begin(state, Fate(**{**vars(fate), "gate": place.gate}))
    injection = f"inject={place.syscall}:{what}:when={place.number}{times}"
    with traced(pid, f"trace={place.syscall}", injection) as lines:
        hit = any("INJECTED" in line or "+++ killed by SIGKILL +++" in line for line in list(lines))
    return replace(nursery.end(), hit=hit)


@contextmanager
def traced(pid: int, *expressions: str) -> Iterator[Iterator[str]]:
    """Attach strace to a process at its gate, let it go on, and give the lines that strace writes."""
    if not wait_for_stop(pid):
        yield iter(())
        return
    options = [option for expression in expressions for option in ("-e", expression)]
    tracer = subprocess.Popen(
        ["strace", "-f", "-qq", *options, "-o", "/dev/stdout", "-p", str(pid)],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        errors="replace",
    )
    try:
        while "TracerPid:\t0" in Path(f"/proc/{pid}/status").read_text(encoding="ascii"):
            if tracer.poll() is not None:
                raise RuntimeError(f"strace could not attach to {pid}")
            os.sched_yield()
        os.kill(pid, signal.SIGCONT)
        assert tracer.stdout is not None
        yield iter(tracer.stdout)
    finally:
        tracer.terminate()
        tracer.wait()
        if tracer.stdout is not None:
            tracer.stdout.close()
