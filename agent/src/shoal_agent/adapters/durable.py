"""Writing files so that a power cut leaves the old or the new content, never half of one.

Renaming a file whose data was not synced gave an empty file on ext4 and xfs after a power cut; so the order is: write a
temporary file, sync it, rename it, sync the folder.
"""

from __future__ import annotations

import os
from pathlib import Path

PRIVATE = 0o600


def put(path: Path, data: bytes, *, mode: int = 0o644) -> None:
    """Replace a file's content durably.

    Args:
        path: The file; its folder must exist.
        data: The whole new content.
        mode: Permission bits of the new file.

    Raises:
        OSError: The disk is full, read-only or failing; the old content is unharmed.
    """
    temporary = path.with_name(f"{path.name}.tmp")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    move(temporary, path)


def move(source: Path, target: Path) -> None:
    """Rename a file whose content is synced already, durably, within one file system."""
    source.replace(target)
    sync_folder(target.parent)


def sync_file(path: Path) -> None:
    """Force a file's content to the disk."""
    _sync(path, os.O_RDONLY)


def sync_folder(path: Path) -> None:
    """Force a folder's entries (creations, renames, removals) to the disk."""
    _sync(path, os.O_RDONLY | os.O_DIRECTORY)


def _sync(path: Path, flags: int) -> None:
    descriptor = os.open(path, flags)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
