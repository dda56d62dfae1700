"""Adding closed windows up: the one window that says what its parts said together.

Exact: every count is an integer sum. Leaves to `shoal_agent.domain.coarsening` which windows are merged.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from shoal_protocol.errors import ContentError
from shoal_protocol.profile.codec import ProfileMessage, decode_counts, encode_counts
from shoal_protocol.profile.profile import Counts

_PEAKS = frozenset({"rss_bytes"})
"""Resources of which the largest counts; all others add up."""


def merged_windows(parts: Sequence[ProfileMessage], *, seq: int) -> ProfileMessage:
    """Return one window with the sums of several.

    Args:
        parts: Of one slot, bundle and layout of counts; at least one.
        seq: Number of the result.

    Raises:
        ContentError: They don't belong together, one is damaged, or one says more than counts.
    """
    parts = sorted(parts, key=lambda part: part.start_ms)
    first = parts[0]
    if len({_stream(part) for part in parts}) != 1:
        raise ContentError("windows of different slots, bundles, variants or layouts can't be merged")
    if any(part.labels or part.shadows for part in parts):
        raise ContentError("windows that carry labels or shadows' sums are not merged")
    counts = [decode_counts(part.body) for part in parts]
    if len({(cells.shape, moments.shape) for cells, moments in counts}) != 1:
        raise ContentError("windows of one layout have counts of different shapes")
    end_ms = max(part.end_ms for part in parts)
    return msgspec.structs.replace(
        first,
        boot=max(part.boot for part in parts),
        seq=seq,
        sent_at=max(part.sent_at for part in parts),
        length_ms=end_ms - first.start_ms,
        n=sum(part.n for part in parts),
        errors=sum(part.errors for part in parts),
        latency=_latency(parts),
        resources=_resources(parts),
        violations=tuple(sum(counts) for counts in zip(*(part.violations for part in parts), strict=True)),
        body=encode_counts(_total([cells for cells, _ in counts]), _total([moments for _, moments in counts])),
    )


def _stream(part: ProfileMessage) -> tuple[str | int, ...]:
    """Return what windows must have in common to be merged."""
    layout = (part.spec_hash, part.rules, len(part.violations))
    return (part.epoch, part.slot, part.digest, part.variant, *layout)


def _total(counts: Sequence[Counts]) -> Counts:
    total = counts[0].copy()
    for more in counts[1:]:
        total += more
    return total


def _latency(parts: Sequence[ProfileMessage]) -> tuple[int, ...]:
    return tuple(int(count) for count in _total([part.latency_counts() for part in parts]))


def _resources(parts: Sequence[ProfileMessage]) -> dict[str, float]:
    together: dict[str, float] = {}
    for part in parts:
        for name, value in part.resources.items():
            if name in together:
                together[name] = max(together[name], value) if name in _PEAKS else together[name] + value
            else:
                together[name] = value
    return together
