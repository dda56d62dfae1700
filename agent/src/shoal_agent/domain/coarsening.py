"""Which waiting windows to merge when the spool is full: the finest and oldest first, into cells of the clock.

Owns the choice. Who may be merged at all (only what was never handed to a transport) and the merging itself are
others'. Merging is exact: the counts of a merged window are the sums of its parts; what is lost is only when within it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import msgspec

LONGEST_MS = 86_400_000
"""No merged window is longer than a day, so that a server can still tell days apart."""


class Span(msgspec.Struct, frozen=True):
    """What of a window can be merged with what.

    Attributes:
        stream: The same for windows whose counts may be added: slot, bundle and layout of the counts.
        start_ms: Milliseconds since the epoch.
        length_ms: At least 1.
        rows: Counted in it, so that a loss can be told in rows.
    """

    stream: str
    start_ms: int
    length_ms: int
    rows: int = 0


def together(spans: Iterable[Span]) -> Span:
    """Return the span of the window that several of one stream are merged into."""
    parts = list(spans)
    start_ms = min(part.start_ms for part in parts)
    end_ms = max(part.start_ms + part.length_ms for part in parts)
    return Span(parts[0].stream, start_ms, end_ms - start_ms, sum(part.rows for part in parts))


def mergeable(spans: Mapping[int, Span], *, longest_ms: int = LONGEST_MS) -> list[list[int]]:
    """Return the next numbers to merge, each list into one window, the oldest first.

    The cells are twice as long as the finer windows (their tenth percentile: a start or a stop leaves a short one now
    and then), aligned to the epoch; where no two windows share one, twice that again. So windows of five minutes become
    ten, then twenty, the oldest first.

    Args:
        spans: By number, of the windows that may be merged.
        longest_ms: Longest cell.
    """
    lengths = sorted(span.length_ms for span in spans.values())
    cell_ms = 2 * lengths[len(lengths) // 10] if lengths else 2 * longest_ms
    while cell_ms <= longest_ms:
        cells: dict[tuple[int, str], list[int]] = {}
        for seq, span in spans.items():
            if span.length_ms < cell_ms:
                cells.setdefault((span.start_ms // cell_ms, span.stream), []).append(seq)
        groups = [seqs for _, seqs in sorted(cells.items()) if len(seqs) > 1]
        if groups:
            return groups
        cell_ms *= 2
    return []
