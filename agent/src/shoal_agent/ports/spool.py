"""Where messages wait for the server."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Protocol

import msgspec

from shoal_agent.domain.coarsening import Span
from shoal_protocol.mqtt.messages import Ack
from shoal_protocol.mqtt.topics import Up


class Spooled(msgspec.Struct, frozen=True):
    """One message in the spool."""

    seq: int
    kind: Up
    body: bytes


class SpoolUsage(msgspec.Struct, frozen=True):
    """What waits in the spool.

    Attributes:
        windows: Closed windows that wait.
        size_bytes: Of all messages that wait.
        dropped: Messages ever dropped: for want of room, or because the server can't take them.
        fault: Why the spool does not keep what it should; empty: it does.
    """

    windows: int
    size_bytes: int
    dropped: int
    fault: str = ""


class Shed(msgspec.Struct, frozen=True):
    """What a spool lets go of to keep its budget; the builders of messages get the number of theirs first.

    Attributes:
        merge: Gives the one window that says what several said together.
        tell_merged: Gives the event about numbers that were merged into others, and never sent.
        tell_lost: Gives the event about numbers that were dropped, and the rows that were counted in them.
    """

    tell_lost: Callable[[int, list[int], int], bytes]
    merge: Callable[[int, list[bytes]], bytes] | None = None
    tell_merged: Callable[[int, list[int]], bytes] | None = None


class Spool(Protocol):
    """Where messages wait for the server's acknowledgement."""

    epoch: str
    boot: int
    first: int
    """Number from which this start counts its messages about the device's state."""

    def append(
        self, kind: Up, build: Callable[[int], bytes], *, key: str | None = None, span: Span | None = None
    ) -> int | None:
        """Store the message that `build` makes for its number; once per key. Return the number, if stored.

        A window with a span may be merged with others until it is handed over.
        """

    def has_stored(self, key: str) -> bool:
        """Tell whether a message with this key was ever stored, acknowledged or not; of old keys that is forgotten.

        Raises:
            SpoolError: That can't be told now.
        """

    def hand_over(self, seqs: Sequence[int]) -> None:
        """Remember, before it happens, that these are handed to a transport: they never change any more.

        Raises:
            SpoolError: That can't be stored; don't hand them over.
        """

    def make_room(self, shed: Shed) -> list[int]:
        """Keep the budget: merge windows that were never handed over, then drop the oldest; return what was dropped."""

    def give_up(self, seqs: Iterable[int], tell: Callable[[int, list[int], int], bytes] | None) -> list[int]:
        """Drop these, store the event that `tell` makes of it, if any; return the numbers dropped."""

    def waiting(self, limit: int = 1024) -> list[int]:
        """Return the oldest numbers that wait, ascending."""

    def read(self, seqs: Sequence[int]) -> list[Spooled]:
        """Return messages by number, ascending, without those that are gone."""

    def acknowledge(self, ack: Ack) -> int:
        """Delete what the server has committed; return how many."""

    def usage(self) -> SpoolUsage:
        """Return what waits."""

    def close(self) -> None:
        """Let go of the file."""
