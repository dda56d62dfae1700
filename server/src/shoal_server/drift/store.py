"""Drift, stored: what the scan remembers, and what pages and programs ask for.

Owns the queries. A `Watch` is loaded and saved whole; readers get `DriftState`s, decoded from the same rows, so nothing
is stored twice.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from sqlalchemy import delete, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlmodel import Session, SQLModel, col, select

from shoal_server.drift.alarms import Alarm, AlarmKey, AlarmState
from shoal_server.drift.baselines import threshold
from shoal_server.drift.monitor_state import Field, MonitorState, Scope, Streams
from shoal_server.drift.rules import WARM_UP, Rules
from shoal_server.drift.season import Season, period_windows, terms
from shoal_server.drift.tables import AlarmRow, LateRow, MonitorRow, ScanRow, ScoreRow, StreamRow
from shoal_server.drift.watch import Watch
from shoal_server.statistics.layout import Floats, Layout
from shoal_server.statistics.views import View

KEPT_BUCKETS = 500
"""Buckets of scores that are kept for histories."""

_CURSOR = 1


@dataclass(frozen=True)
class Cursor:
    """How far windows were read: up to here for good, and the largest id ever seen."""

    read_through: int = 0
    seen_through: int = 0


def cursor(session: Session) -> Cursor:
    """Return how far the scan has read."""
    row = session.get(ScanRow, _CURSOR)
    return Cursor() if row is None else Cursor(row.read_through, row.seen_through)


def save_cursor(session: Session, now: Cursor) -> None:
    """Store how far the scan has read."""
    session.merge(ScanRow(id=_CURSOR, read_through=now.read_through, seen_through=now.seen_through))


def monitors(session: Session, *, slot: str | None = None) -> list[MonitorRow]:
    """Return the bundles under watch, by slot and digest."""
    wanted = select(MonitorRow).order_by(MonitorRow.slot, MonitorRow.digest)
    return list(session.exec(wanted if slot is None else wanted.where(MonitorRow.slot == slot)))


def load(session: Session, slot: str, digest: str) -> Watch | None:
    """Return a watch, None when the bundle was never seen in that slot."""
    row = session.get(MonitorRow, (slot, digest))
    if row is None:
        return None
    alarms, keys = alarms_of(session, slot, digest)
    return Watch(
        slot=slot,
        digest=digest,
        bucket_ms=row.bucket_ms,
        watermark=row.watermark,
        state=state_of(session, row),
        live=_floats(row.live),
        alarms=alarms,
        alert_keys=keys,
        gap_told=row.gap_told,
        late=row.late,
        damaged=row.damaged,
        season=Season(row.season),
    )


def save(session: Session, watch: Watch, *, layout: Layout, rules: Rules, changed_since: int, now: float) -> None:
    """Store a watch.

    Args:
        session: Of `Database.write()`.
        watch: As it is now.
        layout: Of the bundle's streams.
        rules: Of the scan.
        changed_since: Scopes that were last scored or learnt before this bucket are stored already.
        now: Seconds since the epoch.
    """
    session.merge(
        MonitorRow(
            slot=watch.slot,
            digest=watch.digest,
            bucket_ms=watch.bucket_ms,
            watermark=watch.watermark,
            features=list(layout.names),
            titles=list(layout.titles),
            categorical=layout.categorical.tolist(),
            baseline_windows=rules.baseline_windows,
            min_devices=rules.min_devices,
            live=watch.live.astype("<f8").tobytes(),
            late=watch.late,
            damaged=watch.damaged,
            gap_told=watch.gap_told,
            devices=int((watch.state.devices.latest == watch.watermark).sum()),
            season=watch.season.value,
            mean_time_to_false_alarm=rules.mean_time_to_false_alarm,
            updated_at=now,
        )
    )
    session.flush()
    streams = [
        {"slot": watch.slot, "digest": watch.digest, "scope": scope.value, "scope_name": name, "memory": memory}
        for scope in Scope
        for name, memory in _changed(watch.state.level(scope), changed_since)
    ]
    _upsert(session, StreamRow, streams)
    _save_alarms(session, watch)


def add_scores(session: Session, watch: Watch, *, index: int, rules: Rules) -> None:
    """Store what fleet and cohorts scored in a bucket, and forget the oldest bucket that is no longer kept."""
    rows: list[Mapping[str, Any]] = []
    for scope in (Scope.FLEET, Scope.COHORT):
        streams = watch.state.level(scope)
        limit = threshold(watch.state, scope, rules)
        rows.extend(
            {
                "slot": watch.slot,
                "digest": watch.digest,
                "bucket": index,
                "scope": scope.value,
                "scope_name": streams.names[at],
                "at": watch.since(index + 1),
                "devices": round(streams.members[at] / max(streams.windows[at], 1)),
                "evidence": evidence(streams.values[at, Field.R], limit).astype("<f4").tobytes(),
                "effect": streams.values[at, Field.CHANGE, :, :1].astype("<f4").tobytes(),
            }
            for at in np.flatnonzero(streams.latest == index).tolist()
        )
    _upsert(session, ScoreRow, rows)
    session.execute(
        delete(ScoreRow).where(
            col(ScoreRow.slot) == watch.slot,
            col(ScoreRow.digest) == watch.digest,
            col(ScoreRow.bucket) <= index - KEPT_BUCKETS,
        )
    )


def forget(session: Session, *, before: float) -> int:
    """Delete what is known of bundles that have sent nothing since an instant; returns how many."""
    old = [(row.slot, row.digest) for row in monitors(session) if row.updated_at < before]
    for slot, digest in old:
        drop(session, slot, digest)
    return len(old)


def drop(session: Session, slot: str, digest: str) -> None:
    """Delete all that is known of a bundle in a slot."""
    for table in (MonitorRow, StreamRow, AlarmRow, ScoreRow, LateRow):
        session.execute(delete(table).where(col(table.slot) == slot, col(table.digest) == digest))


def state_of(session: Session, row: MonitorRow) -> MonitorState:
    """Return what the sequential rule remembers of a bundle in a slot."""
    fleet, cohorts, devices = (streams_of(session, row, scope) for scope in Scope)
    return MonitorState(fleet, cohorts, devices)


def streams_of(session: Session, row: MonitorRow, scope: Scope) -> Streams:
    """Return what it remembers of one level."""
    wanted = select(StreamRow).where(
        StreamRow.slot == row.slot, StreamRow.digest == row.digest, StreamRow.scope == scope.value
    )
    dumps = [(stream.scope_name, stream.memory) for stream in session.exec(wanted.order_by(StreamRow.scope_name))]
    return Streams.load(len(row.features), dumps, terms=terms(Season(row.season)) if scope is Scope.DEVICE else 0)


def rules_of(row: MonitorRow) -> Rules:
    """Return the rules by which a bundle is watched, as far as its states depend on them."""
    season = Season(row.season)
    return Rules(
        baseline_windows=row.baseline_windows,
        min_devices=row.min_devices,
        mean_time_to_false_alarm=row.mean_time_to_false_alarm,
        warm_up=max(WARM_UP, period_windows(season, row.bucket_ms)),
        season=season,
    )


def alarms_of(session: Session, slot: str, digest: str) -> tuple[dict[AlarmKey, Alarm], dict[AlarmKey, str]]:
    """Return the open alarms of a bundle in a slot, and the alerts that tell of them."""
    alarms: dict[AlarmKey, Alarm] = {}
    keys: dict[AlarmKey, str] = {}
    for row in alarm_rows(session, slot, digest):
        alarm = Alarm(
            scope=Scope(row.scope),
            name=row.scope_name,
            feature=row.feature,
            component=row.component,
            view=View(row.view),
            onset=row.onset,
            raised=row.raised,
            state=AlarmState(row.state),
            hint=row.hint,
        )
        alarms[alarm.key] = alarm
        if row.alert_key:
            keys[alarm.key] = row.alert_key
    return alarms, keys


def alarm_rows(session: Session, slot: str, digest: str) -> list[AlarmRow]:
    """Return the rows of the open alarms of a bundle in a slot."""
    wanted = select(AlarmRow).where(AlarmRow.slot == slot, AlarmRow.digest == digest)
    return list(session.exec(wanted.order_by(AlarmRow.scope, AlarmRow.scope_name, AlarmRow.feature)))


def latched_alert_keys(session: Session) -> frozenset[str]:
    """Return the keys of the alerts whose alarms nobody has acknowledged."""
    wanted = select(AlarmRow.alert_key).where(AlarmRow.state == AlarmState.LATCHED.value, AlarmRow.alert_key != "")
    return frozenset(session.exec(wanted.distinct()))


def acknowledge_alarms(session: Session, alert_keys: frozenset[str]) -> None:
    """Note that somebody knows of the alarms that these alerts tell of."""
    session.execute(
        update(AlarmRow)
        .where(col(AlarmRow.alert_key).in_(sorted(alert_keys)))
        .values(state=AlarmState.ACKNOWLEDGED.value)
    )


def scores(session: Session, slot: str, digest: str, *, scope: Scope, name: str) -> list[ScoreRow]:
    """Return the stored scores of a scope, the oldest first."""
    wanted = select(ScoreRow).where(
        ScoreRow.slot == slot, ScoreRow.digest == digest, ScoreRow.scope == scope.value, ScoreRow.scope_name == name
    )
    return list(session.exec(wanted.order_by(col(ScoreRow.bucket))))


def live_counts(row: MonitorRow) -> Floats:
    """Return the fleet's recent counts, shape (size,)."""
    return _floats(row.live)


def evidence(r: Floats, limit: float) -> Floats:
    """Return log R over log threshold: 0 nothing, 1 an alarm.

    Args:
        r: Of any shape.
        limit: The threshold.
    """
    return np.asarray(np.log(np.maximum(r, 1.0)) / np.log(limit))


def _changed(streams: Streams, since: int) -> Iterable[tuple[str, bytes]]:
    return ((streams.names[at], streams.dump(at)) for at in np.flatnonzero(streams.latest >= since).tolist())


def _save_alarms(session: Session, watch: Watch) -> None:
    roles = watch.roles()
    session.execute(delete(AlarmRow).where(col(AlarmRow.slot) == watch.slot, col(AlarmRow.digest) == watch.digest))
    rows: list[Mapping[str, Any]] = [
        {
            "slot": watch.slot,
            "digest": watch.digest,
            "scope": alarm.scope.value,
            "scope_name": alarm.name,
            "feature": alarm.feature,
            "component": alarm.component,
            "view": alarm.view.value,
            "onset": alarm.onset,
            "raised": alarm.raised,
            "state": alarm.state.value,
            "role": roles[key][0].value,
            "cause": roles[key][1],
            "hint": alarm.hint,
            "alert_key": watch.alert_keys.get(key, ""),
        }
        for key, alarm in watch.alarms.items()
    ]
    _upsert(session, AlarmRow, rows)


def _upsert(session: Session, table: type[SQLModel], rows: Sequence[Mapping[str, Any]]) -> None:
    if not rows:
        return
    target = table.__table__  # type: ignore[attr-defined]  # SQLModel sets it on table classes only
    insert = sqlite.insert if session.get_bind().dialect.name == "sqlite" else postgresql.insert
    statement = insert(target)
    keys = [column.name for column in target.primary_key.columns]
    values = {name: statement.excluded[name] for name in rows[0] if name not in keys}
    session.connection().execute(statement.on_conflict_do_update(index_elements=keys, set_=values), list(rows))


def _floats(raw: bytes) -> Floats:
    return np.frombuffer(raw, dtype="<f8").astype(np.float64)
