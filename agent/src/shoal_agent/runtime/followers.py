"""Who is shown the answered calls of a model: added and removed by several threads, read by those that answer.

Invariant: whoever was removed is shown no call that is answered afterwards, whatever other threads add meanwhile.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import Any, Protocol

import numpy.typing as npt

Array = npt.NDArray[Any]


class Follower(Protocol):
    """Sees what a model answers; must neither keep nor change the arrays, nor wait, nor raise."""

    def answered(self, feeds: Mapping[str, Array], outputs: Mapping[str, Array], elapsed_ns: int) -> None:
        """Take one answered call: tensors by name, rows first."""


class Followed:
    """What shows each answered call, on the answering thread, to its followers."""

    def __init__(self) -> None:
        self._following = threading.Lock()
        self.followers: tuple[Follower, ...] = ()
        """Replaced as a whole, so that the answering thread reads it without the lock."""

    def follow(self, one: Follower) -> None:
        """Show calls to one more."""
        with self._following:
            self.followers = (*self.followers, one)

    def unfollow(self, one: Follower) -> None:
        """Show it no more calls; nothing happens where it was shown none."""
        with self._following:
            self.followers = tuple(other for other in self.followers if other is not one)
