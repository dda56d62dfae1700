"""What a power cut leaves of files that were not synced, for processes whose writes the kernel would keep.

Files whose content was not synced since it was last changed are emptied, as ext4 and xfs leave them; renames whose
folder was not synced are undone or not, by lot. SQLite syncs by itself, below Python: its files are left as they are.
"""

from __future__ import annotations

import itertools
import os
import random
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any


class PowerCut:
    """Watches syncs and renames below a folder, and takes back what would not have reached the disk.

    Args:
        folder: The state folder.
        spare: Where replaced files are kept, on the same file system.
        chance: Gives uniform draws from [0, 1).
    """

    def __init__(self, folder: Path, spare: Path, *, chance: Callable[[], float]) -> None:
        self._folder, self._spare, self._chance = folder, spare, chance
        self._lock = threading.RLock()
        self._renames: list[tuple[Path, Path, Path | None]] = []
        self._names = itertools.count()
        self._synced = {_inode(path): _changed(path) for path in self._files()}
        spare.mkdir(exist_ok=True)

    def synced(self, descriptor: int) -> None:
        """Take note that a file's content, or a folder's entries, are on the disk."""
        path = Path(f"/proc/self/fd/{descriptor}").readlink()
        with self._lock:
            if path.is_dir():
                self._renames = [rename for rename in self._renames if rename[1].parent != path]
            else:
                self._synced[_inode(path)] = _changed(path)

    def rename(self, real: Callable[..., Any], source: Path, target: Path) -> Any:
        """Rename, and keep what is replaced."""
        with self._lock:
            kept = None
            if self._folder in target.parents:
                if target.exists():
                    kept = self._spare / f"{os.getpid()}-{next(self._names)}"
                    os.link(target, kept)
                self._renames.append((source, target, kept))
            return real(source, target)

    def strike(self) -> None:
        """Leave what the disk would hold."""
        with self._lock:
            for source, target, kept in reversed(self._renames):
                if target.exists() and self._chance() < 0.5:
                    os.replace(target, source)  # noqa: PTH105 - Path.replace is what is watched
                    if kept is not None:
                        os.replace(kept, target)  # noqa: PTH105 - as above
            for path in self._files():
                if self._synced.get(_inode(path)) != _changed(path):
                    os.truncate(path, 0)

    def _files(self) -> list[Path]:
        files = [path for path in self._folder.rglob("*") if path.is_file() and not path.is_symlink()]
        return [path for path in files if not path.name.startswith("spool.db")]


def lot(seed: int) -> Callable[[], float]:
    """Return draws that a seed decides."""
    return random.Random(seed).random


def _inode(path: Path) -> int:
    return path.stat().st_ino


def _changed(path: Path) -> int:
    return path.stat().st_mtime_ns
