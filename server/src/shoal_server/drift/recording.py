"""A slot's stored windows as a recording, streamed: for export, analysis and replay. Read-only.

Windows are read in pages, each in a transaction of its own, in the order in which they were stored: a long export holds
neither the database nor memory.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass

from sqlmodel import Session

from shoal_protocol.profile.codec import decode_counts
from shoal_protocol.profile.recording import (
    Header,
    RecordedAlert,
    RecordedBundle,
    RecordedWindow,
    encode_recording,
    reference_document,
)
from shoal_protocol.profile.reference import Reference
from shoal_server.alerts import store as alerts
from shoal_server.drift import store
from shoal_server.drift.scan import COHORT_KEYS, fleet_facts
from shoal_server.telemetry import store as telemetry
from shoal_server.telemetry.store import StoredWindow

_PAGE = 500
_MOST_ALERTS = 1000


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What shall be recorded: windows of a slot that begin in [start, end), of these bundles or of all."""

    slot: str
    start_ms: int
    end_ms: int
    now: float
    digests: frozenset[str] | None = None


def header_of(
    session: Session, asked: Asked, references: Callable[[str], Reference | None], names: Mapping[str, str]
) -> Header:
    """Return what the windows mean; bundles without a reference are left out, with their windows."""
    bundles = {}
    for row in store.monitors(session, slot=asked.slot):
        reference = references(row.digest)
        if reference is None or (asked.digests is not None and row.digest not in asked.digests):
            continue
        bundles[row.digest] = RecordedBundle(
            name=names.get(row.digest, row.digest),
            reference=reference_document(reference),
            window_ms=row.bucket_ms,
            season=row.season,
            baseline_windows=row.baseline_windows,
            min_devices=row.min_devices,
            mean_time_to_false_alarm=row.mean_time_to_false_alarm,
        )
    told = alerts.alerts(session, kind="drift", subject=f"slot:{asked.slot}", limit=_MOST_ALERTS)
    return Header(
        slot=asked.slot,
        exported_at=asked.now,
        start_ms=asked.start_ms,
        end_ms=asked.end_ms,
        bundles=bundles,
        devices=fleet_facts(session),
        cohort_keys=COHORT_KEYS,
        alerts=tuple(
            RecordedAlert(
                key=one.key, title=one.title, body=one.body, raised_at=one.raised_at, resolved_at=one.resolved_at
            )
            for one in reversed(told)
            if one.raised_at * 1000 < asked.end_ms
            and (one.resolved_at is None or one.resolved_at * 1000 >= asked.start_ms)
        ),
    )


def recording_of(read: Callable[[], AbstractContextManager[Session]], asked: Asked, header: Header) -> Iterator[bytes]:
    """Yield the lines of a recording.

    Args:
        read: Opens a transaction, `Database.read`.
        asked: What shall be recorded.
        header: Of `header_of`.
    """
    return encode_recording(header, _windows(read, asked, frozenset(header.bundles)))


def _windows(
    read: Callable[[], AbstractContextManager[Session]], asked: Asked, digests: frozenset[str]
) -> Iterator[RecordedWindow]:
    after = 0
    while digests:
        with read() as session:
            page = telemetry.windows_stored(
                session,
                slot=asked.slot,
                start_ms=asked.start_ms,
                end_ms=asked.end_ms,
                digests=digests,
                after_id=after,
                limit=_PAGE,
            )
        for window in page:
            yield _recorded(window)
        if len(page) < _PAGE:
            return
        after = page[-1].id


def _recorded(window: StoredWindow) -> RecordedWindow:
    message = window.message
    cells, moments = decode_counts(message.body)
    return RecordedWindow(
        device=window.device,
        digest=window.digest,
        seq=window.seq,
        start_ms=window.start_ms,
        length_ms=window.length_ms,
        n=window.n,
        errors=window.errors,
        received_at=window.received_at,
        spec_hash=window.spec_hash,
        cells=cells.tolist(),
        moments=[(first, second) for first, second in moments.tolist()],
        latency=list(message.latency),
        resources=message.resources,
        variant=message.variant,
    )
