"""True labels of earlier predictions, added up by the hour of those predictions, for each bundle and device.

A group of labels is added in the transaction that stores the window which brought it, so the ledger that keeps a window
from counting twice keeps labels from it too. Late ones find their hour however old it is.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TypeAlias

import msgspec
from sqlmodel import Session, col, delete, select

from shoal_protocol.profile.labels import ErrorSums, LabelGroup
from shoal_server.telemetry import bulk
from shoal_server.telemetry.rollup import HOUR_MS
from shoal_server.telemetry.tables import LabelErrorRow, LabelRow

_KEY = ("slot", "digest", "device", "hour_ms")
_CELL = (*_KEY, "truth", "said", "bin")
_SUMS = ("n", "error", "absolute", "square", "truth", "truth_square")

Key: TypeAlias = tuple[str, str, str, int]


@dataclass
class LabelSums:
    """Labels of one batch of messages."""

    cells: dict[tuple[str, str, str, int, int, int, int], int] = field(default_factory=lambda: defaultdict(int))
    errors: dict[Key, ErrorSums] = field(default_factory=dict)

    def add(self, device: str, groups: Iterable[LabelGroup], *, latest_ms: int) -> None:
        """Add what one message brought; predictions of the future are taken as of `latest_ms`."""
        for group in groups:
            key = (group.slot, group.digest, device, min(group.start_ms, latest_ms) // HOUR_MS * HOUR_MS)
            for truth, said, cell, count in group.cells:
                self.cells[(*key, truth, said, cell)] += count
            if group.errors is not None:
                old = self.errors.get(key)
                self.errors[key] = group.errors if old is None else old + group.errors

    def save(self, session: Session) -> None:
        """Add everything to what is stored."""
        cells = [(*key, self.cells[key]) for key in sorted(self.cells)]
        bulk.insert(session, LabelRow, (*_CELL, "n"), cells, conflict=bulk.adding(LabelRow, _CELL, ("n",)))
        errors = [(*key, *msgspec.structs.astuple(self.errors[key])) for key in sorted(self.errors)]
        bulk.insert(session, LabelErrorRow, (*_KEY, *_SUMS), errors, conflict=bulk.adding(LabelErrorRow, _KEY, _SUMS))


def label_cells(
    session: Session, *, slot: str, start_ms: int, end_ms: int, digest: str | None = None
) -> list[tuple[str, str, int, int, int, int, int]]:
    """Return (digest, device, hour, truth, said, bin, n) of a slot's predictions in the hours from `start_ms`."""
    wanted = select(
        LabelRow.digest, LabelRow.device, LabelRow.hour_ms, LabelRow.truth, LabelRow.said, LabelRow.bin, LabelRow.n
    ).where(LabelRow.slot == slot, col(LabelRow.hour_ms) >= start_ms, col(LabelRow.hour_ms) < end_ms)  # type: ignore[call-overload]  # more columns than it lists
    if digest is not None:
        wanted = wanted.where(LabelRow.digest == digest)
    return [tuple(row) for row in session.exec(wanted)]


def label_errors(
    session: Session, *, slot: str, start_ms: int, end_ms: int, digest: str | None = None
) -> list[tuple[str, str, int, ErrorSums]]:
    """Return (digest, device, hour, sums) of a slot's labelled regressions in the hours from `start_ms`."""
    wanted = select(LabelErrorRow).where(
        LabelErrorRow.slot == slot, col(LabelErrorRow.hour_ms) >= start_ms, col(LabelErrorRow.hour_ms) < end_ms
    )
    if digest is not None:
        wanted = wanted.where(LabelErrorRow.digest == digest)
    return [
        (
            row.digest,
            row.device,
            row.hour_ms,
            ErrorSums(row.n, row.error, row.absolute, row.square, row.truth, row.truth_square),
        )
        for row in session.exec(wanted)
    ]


def forget_labels(session: Session, *, before_ms: int) -> None:
    """Delete the labels of predictions older than an instant."""
    for table in (LabelRow, LabelErrorRow):
        session.execute(delete(table).where(col(table.hour_ms) < before_ms))
