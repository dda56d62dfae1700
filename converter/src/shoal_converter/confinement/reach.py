"""How far a process that loads a model reaches, put together: network, files, processes, memory.

Owns the list of what loading needs to read: the interpreter, what it imports from, the system's libraries, and the
files that the work is about. Everything else, the caller's home folder above all, is out of reach.
"""

from __future__ import annotations

import os
import resource
import sys
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Literal

from shoal_converter.confinement.landlock import keep_files
from shoal_converter.confinement.namespaces import enter_namespaces
from shoal_converter.confinement.sockets import give_up_sockets

Lacking = Literal["network", "files"]

_SYSTEM = ("/usr", "/lib", "/lib32", "/lib64", "/bin", "/sbin", "/etc", "/opt", "/nix", "/proc", "/sys", "/dev")
_SINKS = ("/dev/null", "/dev/zero", "/dev/full")
_MEMORY_SHARE = 0.9


def confine(*, readable: Iterable[Path], work: Path) -> tuple[Lacking, ...]:
    """Give up what a model has no business with; return what this system did not let go of.

    Args:
        readable: Files and folders that the work is about.
        work: Folder for temporary files and the result: becomes home folder and place of temporary files.
    """
    alone = enter_namespaces()
    os.environ["HOME"] = os.environ["TMPDIR"] = str(work)
    os.environ["JOBLIB_MULTIPROCESSING"] = "0"  # it would ask for semaphores in /dev/shm, and complain
    _limit_memory()
    imported = [Path(entry) for entry in _imported_from()]
    system = [Path(entry) for entry in _SYSTEM]
    kept = keep_files(readable=[*system, *imported, *readable], writable=[work, *map(Path, _SINKS)])
    silent = give_up_sockets()
    lacking: list[Lacking] = [] if silent or alone else ["network"]
    return tuple(lacking if kept else [*lacking, "files"])


def _imported_from() -> Iterator[str]:
    """Yield where modules come from: environments, the path, and packages that setuptools installed as editable."""
    yield from {sys.prefix, sys.base_prefix, sys.exec_prefix}
    yield from (entry for entry in sys.path if entry)
    for finder in sys.meta_path:
        mapping = getattr(sys.modules.get(getattr(finder, "__module__", "")), "MAPPING", None)
        if isinstance(mapping, dict):
            yield from (str(entry) for entry in mapping.values())


def _limit_memory() -> None:
    """Bound the memory of this process, and offer it first where the machine's runs out all the same."""
    with suppress(OSError, ValueError):
        Path("/proc/self/oom_score_adj").write_text("1000")
    with suppress(OSError, ValueError):
        whole = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        most = int(whole * _MEMORY_SHARE)  # RLIMIT_AS would count what threads only reserve
        resource.setrlimit(resource.RLIMIT_DATA, (most, most))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
