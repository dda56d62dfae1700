"""How much room on the disk new files need: one rule for downloads and for what is brought by hand. Pure."""

from __future__ import annotations

RESERVE_BYTES = 16 << 20
"""Room that an update leaves on the disk, for the state, the spool and everybody else."""

_FACTOR = 1.1


def room_needed(missing_bytes: int) -> int:
    """Return how many bytes must be free before so many are written.

    >>> room_needed(0), room_needed(10 << 20) >> 20
    (0, 27)
    """
    return int(missing_bytes * _FACTOR) + RESERVE_BYTES if missing_bytes else 0
