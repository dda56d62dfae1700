"""Small file systems in memory that are full but for some pages or inodes, so that any write may be the one too many.

Needs root, to mount a tmpfs.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from own_mounts import own_mounts

PAGE = 4096
_ROOM = {"size": str(64 << 20), "nr_inodes": "20000"}


class FullDisk:
    """One tmpfs and where it is mounted.

    Args:
        folder: Where its mount point is made.
    """

    def __init__(self, folder: Path) -> None:
        self.root = folder / "full"
        self.root.mkdir(parents=True, exist_ok=True)
        self._mounted = False

    def fresh(self) -> None:
        """Mount an empty one with room enough."""
        self.unmount()
        options = ",".join(f"{name}={value}" for name, value in _ROOM.items())
        _run("mount", "-t", "tmpfs", "-o", options, "tmpfs", str(self.root))
        self._mounted = True

    def leave(self, what: str, count: int) -> None:
        """Leave room for so many ``pages``, or so many ``inodes``."""
        disk = os.statvfs(self.root)
        if what == "pages":
            self._remount(f"size={(disk.f_blocks - disk.f_bfree + count) * disk.f_frsize}")
        else:
            self._remount(f"nr_inodes={disk.f_files - disk.f_ffree + count}")

    def make_room(self) -> None:
        """Give the room back."""
        for name, value in _ROOM.items():
            self._remount(f"{name}={value}")

    def unmount(self) -> None:
        """Let go of it."""
        if self._mounted:
            _run("umount", "-l", str(self.root))
            self._mounted = False

    def _remount(self, option: str) -> None:
        _run("mount", "-o", f"remount,{option}", str(self.root))


def missing(folder: Path) -> str | None:
    """Return why there can be no such disk here; none: there can."""
    if os.geteuid() != 0:
        return "needs root, to mount"
    disk = FullDisk(folder)
    try:
        own_mounts()
        disk.fresh()
        disk.leave("pages", 1)
        disk.leave("inodes", 1)
    except OSError as error:
        return f"no tmpfs whose size can be changed: {error}"
    finally:
        disk.unmount()
    return None


def _run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise OSError(f"{' '.join(command)}: {done.stderr.strip()}")
