"""Where counts of true labels wait for a message that takes them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

import msgspec

if TYPE_CHECKING:  # numpy stays out of a start
    from shoal_protocol.profile.labels import ErrorSums, LabelGroup


class LabelCount(msgspec.Struct, frozen=True):
    """One true label, as it is counted.

    Attributes:
        model: Names the bundle and slot, see `LabelBook.register`.
        mark: Of the labelled row; a mark counts once.
        start_ms, length_ms: Of the window of the prediction.
        truth, said, bin: The cell, as in `shoal_protocol.profile.labels`.
        errors: Of a regression.
    """

    model: bytes
    mark: bytes
    start_ms: int
    length_ms: int
    truth: int
    said: int
    bin: int
    errors: ErrorSums | None = None


class LabelBook(Protocol):
    """Where counts of labels wait for a message that takes them; the fake is the adapter in memory."""

    key: bytes
    """Authenticates this device's prediction ids."""

    @property
    def waiting(self) -> int:
        """Return how many counts no message has taken."""

    def register(self, model: bytes, *, slot: str, digest: str, form: bytes) -> None:
        """Remember a model that prediction ids name, and how its answers are kept in them."""

    def form(self, model: bytes) -> bytes | None:
        """Return how a model's answers are kept in ids, none when it is not known."""

    def count(self, labels: Sequence[LabelCount]) -> int:
        """Count labels, each mark once; return how many were new."""

    def take(self, mark: int) -> tuple[LabelGroup, ...]:
        """Return the oldest counts, marked as taken by one message."""

    def put_back(self, mark: int) -> None:
        """Let what a message took wait again: it was not stored."""

    def delivered(self, mark: int) -> None:
        """Forget what a message took: it is stored."""

    def taken(self) -> tuple[int, ...]:
        """Return the marks of messages of which nobody has said yet whether they were stored."""

    def close(self) -> None:
        """Let go of the file."""
