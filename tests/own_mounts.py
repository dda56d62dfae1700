"""A mount namespace of our own: what is mounted from here on is seen by this process and its children alone.

A program elsewhere that copies the table of mounts (a starting service, `unshare -m`) would else keep a file system of
ours alive after it was unmounted here; one whose power was cut is then not mounted anew, but found again dead.
"""

from __future__ import annotations

import ctypes
import functools
import os
import subprocess

_CLONE_NEWNS = 0x00020000


@functools.cache
def own_mounts() -> None:
    """Leave the mount namespace of all others; for the main thread, before others start. Needs root.

    Raises:
        OSError: The kernel does not let us.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(_CLONE_NEWNS) != 0:
        raise OSError(ctypes.get_errno(), f"no mount namespace of our own: {os.strerror(ctypes.get_errno())}")
    done = subprocess.run(["mount", "--make-rprivate", "/"], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise OSError(f"mounts can't be kept to ourselves: {done.stderr.strip()}")
