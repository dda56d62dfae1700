"""Sockets: a process gives up making any, and typing, by a filter over its system calls (seccomp(2), Linux).

It needs no privilege and can't be taken back. It also keeps away what a network namespace does not: sockets that are
files, such as those of a container engine or of an agent with keys. Pairs of connected sockets stay possible.
Typing is to put characters into a terminal's input, as if its user had pressed the keys (ioctl_tty(2)).
"""

from __future__ import annotations

import ctypes
import errno
import platform
import struct

_NO_NEW_PRIVILEGES, _SET_SECCOMP, _FILTER = 38, 22, 2  # prctl(2)
_LOAD, _EQUAL, _AT_LEAST, _RETURN = 0x20, 0x15, 0x35, 0x06  # BPF: ld [k], jeq, jge, ret
_ALLOW, _REFUSE = 0x7FFF0000, 0x00050000 | errno.EPERM
_NUMBER, _ARCHITECTURE, _SECOND_ARGUMENT = 0, 4, 24  # offsets in struct seccomp_data; of an argument its low half
_X32 = 0x40000000
_CALLS = {  # AUDIT_ARCH_…, ioctl(2), socket(2), and io_uring_setup(2), which makes sockets too
    "x86_64": (0xC000003E, 16, 41, 425),
    "aarch64": (0xC00000B7, 29, 198, 425),
}
_TYPING = (0x5412, 0x541C)  # TIOCSTI, and TIOCLINUX, which pastes


def give_up_sockets() -> bool:
    """Refuse new sockets and typing from here on, also in what this process starts; return whether the kernel can."""
    known = _CALLS.get(platform.machine())
    if known is None:
        return False
    architecture, control, *refused = known
    steps = [
        (_LOAD, 0, 0, _ARCHITECTURE),
        (_EQUAL, 1, 0, architecture),
        (_RETURN, 0, 0, _REFUSE),  # a call by another architecture's numbers
        (_LOAD, 0, 0, _NUMBER),
        (_AT_LEAST, len(refused) + len(_TYPING) + 3, 0, _X32),
        *((_EQUAL, len(refused) + len(_TYPING) + 2 - at, 0, number) for at, number in enumerate(refused)),
        (_EQUAL, 0, len(_TYPING) + 1, control),
        (_LOAD, 0, 0, _SECOND_ARGUMENT),
        *((_EQUAL, len(_TYPING) - at, 0, request) for at, request in enumerate(_TYPING)),
        (_RETURN, 0, 0, _ALLOW),
        (_RETURN, 0, 0, _REFUSE),
    ]
    code = ctypes.create_string_buffer(b"".join(struct.pack("=HBBI", *step) for step in steps))

    class Program(ctypes.Structure):
        _fields_ = [("length", ctypes.c_ushort), ("code", ctypes.c_void_p)]

    program = Program(len(steps), ctypes.addressof(code))
    try:
        libc = ctypes.CDLL(None, use_errno=True)
        allowed = libc.prctl(_NO_NEW_PRIVILEGES, 1, 0, 0, 0) == 0
        return bool(allowed and libc.prctl(_SET_SECCOMP, _FILTER, ctypes.byref(program), 0, 0) == 0)
    except (OSError, AttributeError):
        return False
