"""Files: a process gives up all but the paths that it names, by Linux' Landlock (landlock(7), kernel 5.13 or newer).

It needs no privilege and can't be taken back. Landlock guards opening, making and removing; what is open stays open,
and looking whether a path exists stays possible.
"""

from __future__ import annotations

import ctypes
import os
import struct
from collections.abc import Iterable
from pathlib import Path

_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446  # the same on every architecture
_NO_NEW_PRIVILEGES = 38  # prctl(2)
_VERSION_ASKED, _PATH_BENEATH = 1, 1
_EXECUTE, _WRITE_FILE, _READ_FILE, _READ_DIR = 1 << 0, 1 << 1, 1 << 2, 1 << 3
_TRUNCATE, _DEVICE = 1 << 14, 1 << 15
_READ = _EXECUTE | _READ_FILE | _READ_DIR
_OF_FILES = _EXECUTE | _WRITE_FILE | _READ_FILE | _TRUNCATE | _DEVICE
_RIGHTS = {1: (1 << 13) - 1, 2: (1 << 14) - 1, 3: (1 << 15) - 1, 4: (1 << 15) - 1, 5: (1 << 16) - 1}
"""All rights over files that each version of the interface knows; newer ones know those of the fifth."""


def keep_files(*, readable: Iterable[Path], writable: Iterable[Path]) -> bool:
    """Give up every file but those named, and what lies below them; return whether the kernel can.

    Args:
        readable: Files and folders to read, and programs to run.
        writable: Files and folders to do anything with.
    """
    try:
        libc = ctypes.CDLL(None, use_errno=True)
        version = int(libc.syscall(_CREATE_RULESET, None, ctypes.c_size_t(0), ctypes.c_uint32(_VERSION_ASKED)))
    except (OSError, AttributeError):
        return False
    if version < 1:
        return False
    every = _RIGHTS[min(version, max(_RIGHTS))]
    wanted = struct.pack("=Q", every)
    rules = int(libc.syscall(_CREATE_RULESET, wanted, ctypes.c_size_t(len(wanted)), ctypes.c_uint32(0)))
    if rules < 0:
        return False
    try:
        for path in readable:
            _allow(libc, rules, path, _READ & every)
        for path in writable:
            _allow(libc, rules, path, every)
        libc.prctl(_NO_NEW_PRIVILEGES, 1, 0, 0, 0)
        return bool(libc.syscall(_RESTRICT_SELF, rules, 0) == 0)
    finally:
        os.close(rules)


def _allow(libc: ctypes.CDLL, rules: int, path: Path, rights: int) -> None:
    try:
        opened = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except OSError:  # what isn't there needs no right
        return
    try:
        rule = struct.pack("=Qi", rights if path.is_dir() else rights & _OF_FILES, opened)
        libc.syscall(_ADD_RULE, rules, _PATH_BENEATH, rule, ctypes.c_uint32(0))
    finally:
        os.close(opened)
