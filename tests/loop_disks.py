"""File systems of their own, in a file on a loop device, whose power can be cut (FS_IOC_SHUTDOWN).

After the shutdown nothing more reaches the image; mounting it again replays its journal, as after a real power cut. How
the journal is left is chosen: see `JOURNALS`. Needs root, loop devices, and the file system in the kernel.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import struct
import subprocess
from pathlib import Path

from own_mounts import own_mounts

_FS_IOC_SHUTDOWN = 0x8004587D
JOURNALS = {"synced": 0, "journal flushed": 1, "journal lost": 2}
"""FS_GOING_FLAGS_DEFAULT writes all back first; LOGFLUSH the journal alone; NOLOGFLUSH nothing that was not synced."""

_SIZES = {"ext4": 64 << 20, "xfs": 320 << 20}
_QUIET = {"ext4": ["-q", "-F"], "xfs": ["-q", "-f"]}


class LoopDisk:
    """One image and where it is mounted.

    Args:
        kind: ``ext4`` or ``xfs``.
        folder: For both.
    """

    def __init__(self, kind: str, folder: Path) -> None:
        self.kind = kind
        self.root = folder / kind
        self._image = folder / f"{kind}.img"
        self.root.mkdir(parents=True, exist_ok=True)
        self._mounted = False

    def fresh(self) -> None:
        """Make an empty file system and mount it."""
        self.unmount()
        with self._image.open("wb") as image:
            image.truncate(_SIZES[self.kind])
        _run(f"mkfs.{self.kind}", *_QUIET[self.kind], str(self._image))
        self._mount()

    def sync(self) -> None:
        """Let all that was written so far outlive a power cut."""
        _run("sync", "-f", str(self.root))

    def cut(self, journal: str) -> None:
        """Cut the power: from now on nothing reaches the image."""
        descriptor = os.open(self.root, os.O_RDONLY)
        try:
            fcntl.ioctl(descriptor, _FS_IOC_SHUTDOWN, struct.pack("I", JOURNALS[journal]))
        finally:
            os.close(descriptor)

    def recover(self) -> None:
        """Mount it again, which replays the journal; nobody may have it open any more."""
        self.unmount()
        self._mount()

    def unmount(self) -> None:
        """Let go of it."""
        if self._mounted:
            _run("umount", str(self.root))
            self._mounted = False

    def _mount(self) -> None:
        _run("mount", "-t", self.kind, "-o", "loop", str(self._image), str(self.root))
        self._mounted = True


def missing(kind: str, folder: Path) -> str | None:
    """Return why there can be no such disk here; none: there can, and its power could be cut."""
    if os.geteuid() != 0:
        return "needs root, to mount"
    if shutil.which(f"mkfs.{kind}") is None:
        return f"mkfs.{kind} is not installed (Debian: apt-get install {'xfsprogs' if kind == 'xfs' else 'e2fsprogs'})"
    disk = LoopDisk(kind, folder)
    try:
        own_mounts()
        disk.fresh()
        disk.cut("journal lost")
        disk.recover()
    except OSError as error:
        return f"no {kind} on a loop device whose power can be cut: {error}"
    finally:
        disk.unmount()
    return None


def _run(*command: str) -> None:
    """Run a command.

    Raises:
        OSError: It failed.
    """
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise OSError(f"{' '.join(command)}: {done.stderr.strip() or done.stdout.strip()}")
