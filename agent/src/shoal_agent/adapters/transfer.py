"""One answer's body into a file: no faster than allowed, no slower than bearable, never more than expected.

Owns pace and bounds. Leaves to `shoal_agent.adapters.download` what is asked for, and what the bytes mean.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from shoal_agent.domain.bandwidth import TokenBucket
from shoal_agent.errors import CancelledError, TransportError
from shoal_agent.ports import Cancelled, Clock

if TYPE_CHECKING:
    from urllib3 import BaseHTTPResponse

_READ_BYTES = 1 << 18
_LONGEST_PAUSE_S = 1.0


class TooManyBytesError(Exception):
    """More bytes came than there may be; none of them is kept."""


class Pace(msgspec.Struct, frozen=True):
    """How fast a download may and must be.

    Attributes:
        max_bytes_per_s: Cap of the bandwidth of all transfers together; none: no cap.
        min_bytes_per_s: A transfer that is slower over `patience_s` is broken off, and continued later.
        patience_s: Seconds over which the speed is measured.
        deadline_s: Of one transfer.
    """

    max_bytes_per_s: float | None = None
    min_bytes_per_s: float = 64.0
    patience_s: float = 60.0
    deadline_s: float = 6 * 3600.0


class Transfers:
    """Carries bodies into files, one after the other.

    Args:
        pace: Bounds of speed; the cap holds over all transfers, so that many small ones don't slip through.
        clock: Monotonic seconds.
        pause: Waits so many seconds.
    """

    def __init__(self, pace: Pace, *, clock: Clock, pause: Callable[[float], None]) -> None:
        cap = pace.max_bytes_per_s
        self._pace = (
            pace if cap is None else msgspec.structs.replace(pace, min_bytes_per_s=min(pace.min_bytes_per_s, cap / 2))
        )
        self._bucket = None if cap is None else TokenBucket(cap, now=clock())
        self._clock = clock
        self._pause = pause

    def collect(  # what comes, where to, how much of it
        self, response: BaseHTTPResponse, path: Path, *, start: int, limit: int, pace: Pace | None = None,
        cancelled: Cancelled, came: Callable[[float], None] = lambda _share: None,
    ) -> None:  # fmt: skip
        """Write a body into a file from `start` on, as it was sent, whatever coding it has.

        Args:
            response: Of which nothing was read yet.
            path: Of the file; what it has after `start` is overwritten.
            start: Where the body belongs.
            limit: Size of the whole file.
            pace: Other bounds of slowness for this one.
            cancelled: Tells that it is given up.
            came: Told after every read which share of the file is there.

        Raises:
            TransportError: It broke off, was too slow or took too long; what came is kept.
            TooManyBytesError: The file would get larger than `limit`; it is empty now.
            CancelledError: It was given up; what came is kept.
        """
        meter = _Meter(pace or self._pace, self._clock(), cap=self._pace.max_bytes_per_s)
        size = _READ_BYTES if self._bucket is None else self._bucket.read_bytes
        done = start
        with path.open("r+b" if start else "wb", buffering=0) as file:
            file.seek(start)
            while chunk := response.read1(size, decode_content=False):
                done += len(chunk)
                if done > limit:
                    file.truncate(0)
                    raise TooManyBytesError
                file.write(chunk)
                came(done / limit)
                try:
                    self._hold_back(len(chunk), cancelled)
                except CancelledError:
                    os.fsync(file.fileno())
                    raise
                if done < limit:  # what is whole was fast enough
                    meter.count(len(chunk), self._clock())

    def _hold_back(self, size: int, cancelled: Cancelled) -> None:
        wait_s = 0.0 if self._bucket is None else self._bucket.take(size, self._clock())
        while True:
            if cancelled():
                raise CancelledError("the download was given up")
            if wait_s <= 0:
                return
            self._pause(min(wait_s, _LONGEST_PAUSE_S))
            wait_s -= _LONGEST_PAUSE_S


class _Meter:
    """Holds one transfer against its slowest pace."""

    def __init__(self, pace: Pace, now: float, *, cap: float | None) -> None:
        self._pace = pace
        self._slowest = pace.min_bytes_per_s if cap is None else min(pace.min_bytes_per_s, cap / 2)
        self._begun = self._since = now
        self._recent = 0

    def count(self, size: int, now: float) -> None:
        """Add bytes that came.

        Raises:
            TransportError: Too slow, or too long.
        """
        self._recent += size
        if now - self._begun > self._pace.deadline_s:
            raise TransportError(f"the download took longer than {self._pace.deadline_s:.0f} s")
        if now - self._since < self._pace.patience_s:
            return
        speed = self._recent / (now - self._since)
        if speed < self._slowest:
            raise TransportError(f"the download came at {speed:.0f} bytes/s, at least {self._slowest:.0f} are expected")
        self._since, self._recent = now, 0
