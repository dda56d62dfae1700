"""Late windows, stored: what is remembered of each device whose windows came too late, and what people are told."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from sqlmodel import Session, col, select

from shoal_server.alerts import store as alerts
from shoal_server.drift.late import LateFinding, findings, judge_late, late_key, late_text, seeded
from shoal_server.drift.monitor_state import Streams
from shoal_server.drift.rules import Rules
from shoal_server.drift.season import terms
from shoal_server.drift.tables import LateRow
from shoal_server.drift.watch import Counts, Watch, Yardstick
from shoal_server.statistics.views import View
from shoal_server.statistics.words import effect_text
from shoal_server.telemetry.store import StoredWindow
from shoal_server.timestamps import rfc3339

MOST_SHOWN = 50
_SQL_VARIABLES = 500


def take_late(
    session: Session,
    watch: Watch,
    windows: Iterable[StoredWindow],
    buckets: Mapping[int, Counts],
    *,
    yardstick: Yardstick,
    rules: Rules,
    now: float,
) -> int:
    """Judge windows that came late, and tell of those that drift.

    Args:
        session: Of the transaction that notes them as seen.
        watch: Of the bundle.
        windows: As they came.
        buckets: The same, summed by bucket; devices that don't count are left out.
        yardstick: Of the bundle.
        rules: Of the watch.
        now: Seconds since the epoch.

    Returns:
        How many alerts were raised or resolved.
    """
    names = sorted({name for counts in buckets.values() for name in counts.devices})
    if not names:
        return 0
    layout = yardstick.layout
    rows = {row.device: row for row in late_rows(session, watch.slot, watch.digest, devices=names)}
    dumps = [(name, row.memory) for name, row in sorted(rows.items())]
    late = Streams.load(layout.streams, dumps, terms=terms(watch.season))
    seeded(late, watch.state.devices, names, rules=rules)
    late = judge_late(late, buckets, watch=watch, yardstick=yardstick, rules=rules)
    before = {name: row.verdict for name, row in rows.items()}
    counted = set(names)
    _note(session, rows, watch, (window for window in windows if window.device in counted), now=now)
    news = 0
    for found in findings(late, names, watch=watch, layout=layout, rules=rules, before=before):
        row = rows[found.device]
        _remember(row, found, late)
        session.add(row)
        if found.verdict == "drift" != before.get(found.device):
            span = (row.first_ms, row.last_ms)
            title, body = late_text(watch, found, layout=layout, span_ms=span)
            key, subject = late_key(watch, found.device), f"slot:{watch.slot}"
            alerts.raise_alert(
                session, kind="drift", subject=subject, title=title, body=body, severity="info", key=key, now=now
            )
            news += 1
        elif before.get(found.device) == "drift" != found.verdict:
            alerts.resolve_alert(session, late_key(watch, found.device), now=now)
            news += 1
    return news


def late_rows(session: Session, slot: str, digest: str, *, devices: Iterable[str] | None = None) -> list[LateRow]:
    """Return what is known of late windows of a bundle in a slot, by device."""
    wanted = select(LateRow).where(LateRow.slot == slot, LateRow.digest == digest).order_by(LateRow.device)
    if devices is None:
        return list(session.exec(wanted))
    names = sorted(set(devices))
    parts = (names[begin : begin + _SQL_VARIABLES] for begin in range(0, len(names), _SQL_VARIABLES))
    return [row for part in parts for row in session.exec(wanted.where(col(LateRow.device).in_(part)))]


def newest_late(session: Session, slot: str, digest: str) -> list[dict[str, Any]]:
    """Return the devices whose late windows came last, drifting ones first, as HTTP tells it."""
    wanted = select(LateRow).where(LateRow.slot == slot, LateRow.digest == digest)
    ordered = wanted.order_by(col(LateRow.verdict) != "drift", col(LateRow.arrived_at).desc()).limit(MOST_SHOWN)
    return [_document(row) for row in session.exec(ordered)]


def _note(
    session: Session, rows: dict[str, LateRow], watch: Watch, windows: Iterable[StoredWindow], *, now: float
) -> None:
    for window in windows:
        first_ms, last_ms = max(0, window.start_ms), max(0, window.start_ms + window.length_ms)
        row = rows.get(window.device)
        if row is None:
            row = rows[window.device] = LateRow(
                slot=watch.slot,
                digest=watch.digest,
                device=window.device,
                first_ms=first_ms,
                last_ms=last_ms,
                arrived_at=now,
            )
        row.windows += 1
        row.rows += window.n
        row.first_ms, row.last_ms = max(0, min(row.first_ms, first_ms)), max(row.last_ms, last_ms)
        row.arrived_at = now
    session.add_all(rows.values())


def _remember(row: LateRow, found: LateFinding, late: Streams) -> None:
    row.memory = late.dump(int(late.positions([found.device])[0]))
    row.verdict, row.feature, row.view = found.verdict, found.feature, found.view.value
    row.effect, row.evidence, row.since_at = found.effect, found.evidence, found.since_at


def _document(row: LateRow) -> dict[str, Any]:
    drifts = row.verdict == "drift"
    return {
        "device": row.device,
        "windows": row.windows,
        "rows": row.rows,
        "from": rfc3339(max(0, row.first_ms) / 1000),
        "to": rfc3339(row.last_ms / 1000),
        "arrived_at": rfc3339(row.arrived_at),
        "verdict": row.verdict,
        "evidence": round(row.evidence, 4),
        "feature": row.feature if drifts else None,
        "change": effect_text(View(row.view), row.effect) if drifts else None,
        "since": rfc3339(row.since_at) if drifts else None,
    }
