"""Processes: a process sees and ends only what it started, in namespaces of its own (namespaces(7), Linux).

A new namespace of processes holds those that are started after it, so the work goes on in a child, its first process:
when that ends, the kernel ends all others in it. How many they may be is bounded, so that a model that starts processes
without end stops itself: by RLIMIT_NPROC, which counts within the new namespace of users but not root's, and by the
namespace's own pid_max, which Linux has since 6.14.
"""

from __future__ import annotations

import ctypes
import os
import platform
import re
import resource
import signal
from contextlib import suppress
from pathlib import Path

_USER, _PROCESSES, _NETWORK, _MESSAGES = 0x10000000, 0x20000000, 0x40000000, 0x08000000  # CLONE_NEW…
_DIE_WITH_PARENT = 1  # prctl(2)
MOST_PROCESSES = 1024
"""Processes and threads; a machine with many cores needs hundreds of threads."""
_OWN_PID_MAX = (6, 14)


def enter_namespaces() -> bool:
    """Go on in a child, in namespaces of users, processes, network and messages; return whether the kernel let it.

    The outer process never returns from this: it waits, and ends as the child ended.
    """
    try:
        libc = ctypes.CDLL(None, use_errno=True)
        user, group = os.getuid(), os.getgid()
        if libc.unshare(_USER | _PROCESSES | _NETWORK | _MESSAGES) != 0:
            return False
    except (OSError, AttributeError):
        return False
    with suppress(OSError):  # keep one's own ids; without them one is nobody, which also does
        Path("/proc/self/setgroups").write_text("deny")
        Path("/proc/self/uid_map").write_text(f"{user} {user} 1")
        Path("/proc/self/gid_map").write_text(f"{group} {group} 1")
    libc.prctl(_DIE_WITH_PARENT, signal.SIGTERM, 0, 0, 0)
    child = os.fork()
    if child:
        _wait(child)
    os.setsid()  # a signal to one's own group would reach the outer process, in spite of the namespace
    libc.prctl(_DIE_WITH_PARENT, signal.SIGKILL, 0, 0, 0)
    _bound()
    return True


def _wait(child: int) -> None:
    """Wait for the first process of the namespace, and end as it ended; end it when asked to.

    The model may take back its own wish to end with this process, so it is killed from here, whoever ends the work.
    """
    signal.signal(signal.SIGTERM, lambda *_: os.kill(child, signal.SIGKILL))
    for stream in (0, 1):
        os.close(stream)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if code < 0:
        if -code != signal.SIGKILL:
            signal.signal(-code, signal.SIG_DFL)
        os.kill(os.getpid(), -code)
    os._exit(max(code, 0))


def _bound() -> None:
    with suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_NPROC, (MOST_PROCESSES, MOST_PROCESSES))
    if _kernel() >= _OWN_PID_MAX:  # before, it was the whole machine's
        with suppress(OSError):
            Path("/proc/sys/kernel/pid_max").write_text(str(MOST_PROCESSES))


def _kernel() -> tuple[int, int]:
    found = re.match(r"(\d+)\.(\d+)", platform.release())
    return (int(found[1]), int(found[2])) if found else (0, 0)
