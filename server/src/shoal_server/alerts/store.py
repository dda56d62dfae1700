"""Alerts, stored: raised once for each cause, listed, acknowledged, silenced, resolved.

Owns the queries; what an event does to an alert stands in `rules`. Every change takes the session of an open write
transaction, so that an alert stands or falls with the change that it tells of.
"""

from __future__ import annotations

from collections.abc import Collection

from sqlalchemy import or_
from sqlmodel import Session, col, select

from shoal_server.alerts.announcements import announce_alert
from shoal_server.alerts.rules import AlertEvent, AlertState, Severity, after, parse_severity, raised_again
from shoal_server.alerts.tables import Alert
from shoal_server.errors import NotFoundError
from shoal_server.outbox import EventType
from shoal_server.storage.database import lock_for_transaction

MAX_TITLE, MAX_BODY = 300, 20_000


def raise_alert(
    session: Session, *, kind: str, subject: str, title: str, body: str, severity: str, key: str, now: float
) -> Alert:
    """Tell people of a cause; while an alert of the same key is not resolved, that one is told again.

    A silence outlives its alert: a cause that went and is back before the silence ends is a new alert, silenced too,
    unless it is worse than the one that somebody silenced.

    Args:
        session: Of `Database.write()`.
        kind: For example `drift` or `rollout`.
        subject: What it is about, as in the audit: `slot:quality`, `rollout:quality-1.4`.
        title: One line.
        body: More, in plain text.
        severity: `info`, `warning` or `critical`; an alert's severity never falls.
        key: The same for each report of the same cause.
        now: Seconds since the epoch.
    """
    told = parse_severity(severity)
    alert = _open_for_change(session, key)
    news: EventType | None = None
    if alert is None:
        silenced_until = _silence_before(session, key, told, now)
        news = EventType.ALERT_OPENED if silenced_until is None else None
        alert = Alert(
            key=key,
            kind=kind,
            subject=subject,
            severity=told,
            title=title[:MAX_TITLE],
            body=body[:MAX_BODY],
            state=AlertState.OPEN,
            raised_at=now,
            updated_at=now,
            silenced_until=silenced_until,
        )
    else:
        event = raised_again(parse_severity(alert.severity), told)
        alert.state = after(AlertState(alert.state), event)
        if event is AlertEvent.WORSE:
            alert.severity = told
            alert.acknowledged_at = alert.acknowledged_by = None  # nobody has seen to what it is now
            news = None if _is_silenced(alert, now) else EventType.ALERT_WORSENED
        alert.title, alert.body = title[:MAX_TITLE], body[:MAX_BODY]
        alert.updated_at = now
        alert.count += 1
    return _saved(session, alert, news, now=now)


def lock_alerts(session: Session) -> None:
    """Let no other transaction change alerts until this one ends; every change of an alert does so.

    Who writes the audit too does this first: two that take both in different orders would wait for each other.
    """
    lock_for_transaction(session, "alerts")


def retell(session: Session, key: str, *, title: str, body: str, now: float) -> bool:
    """Bring the words of an alert that is not resolved up to date; it is no new report, and nobody is told again.

    Returns:
        Whether they differ from what it said.
    """
    alert = _open_for_change(session, key)
    if alert is None or (alert.title, alert.body) == (title[:MAX_TITLE], body[:MAX_BODY]):
        return False
    alert.title, alert.body, alert.updated_at = title[:MAX_TITLE], body[:MAX_BODY], now
    _saved(session, alert, now=now)
    return True


def resolve_alert(session: Session, key: str, *, now: float) -> Alert | None:
    """Say that a cause is gone; returns its alert, None when there was none."""
    alert = _open_for_change(session, key)
    if alert is None:
        return None
    alert.state = after(AlertState(alert.state), AlertEvent.GONE)
    alert.resolved_at = alert.updated_at = now
    return _saved(session, alert, EventType.ALERT_RESOLVED, now=now)


def acknowledge(session: Session, alert_id: int, *, by: str, now: float) -> Alert:
    """Say that somebody has seen to it; does nothing to an alert that is resolved or acknowledged already.

    Raises:
        NotFoundError: There is no such alert.
    """
    alert = _get_for_change(session, alert_id)
    state = after(AlertState(alert.state), AlertEvent.ACKNOWLEDGE)
    if state != alert.state:
        alert.state, alert.acknowledged_at, alert.acknowledged_by = state, now, by
        alert.updated_at = now
        return _saved(session, alert, EventType.ALERT_ACKNOWLEDGED, now=now)
    return alert


def silence(session: Session, alert_id: int, *, until: float | None) -> Alert:
    """Keep an alert, and what its cause raises after it, out of what is shown and sent unasked, until an instant.

    Args:
        session: Of `Database.write()`.
        alert_id: Which alert.
        until: Seconds since the epoch; None: no longer.

    Raises:
        NotFoundError: There is no such alert.
    """
    alert = _get_for_change(session, alert_id)
    alert.silenced_until = until
    session.add(alert)
    session.flush()
    return alert


def get(session: Session, alert_id: int) -> Alert:
    """Return one alert.

    Raises:
        NotFoundError: There is none of that id.
    """
    return _found(session.get(Alert, alert_id), alert_id)


def open_alert(session: Session, key: str) -> Alert | None:
    """Return the alert of this key that is not resolved."""
    wanted = select(Alert).where(Alert.key == key, Alert.state != AlertState.RESOLVED)
    return session.exec(wanted).first()


def alerts(
    session: Session,
    *,
    states: Collection[AlertState] = (),
    open_only: bool = False,
    kind: str | None = None,
    subject: str | None = None,
    before_id: int | None = None,
    audible_at: float | None = None,
    limit: int = 100,
) -> list[Alert]:
    """Return alerts, the newest first.

    Args:
        session: Of any transaction.
        states: Only in these; empty: all.
        open_only: Only those that nobody has seen to.
        kind: Only of this kind.
        subject: Only about this.
        before_id: Only older ones than this.
        audible_at: Only those that are not silenced at this instant.
        limit: At most so many.
    """
    wanted = select(Alert).order_by(col(Alert.id).desc()).limit(limit)
    states = (AlertState.OPEN,) if open_only else states
    if states:
        wanted = wanted.where(col(Alert.state).in_(list(states)))
    if kind is not None:
        wanted = wanted.where(Alert.kind == kind)
    if subject is not None:
        wanted = wanted.where(Alert.subject == subject)
    if audible_at is not None:
        wanted = wanted.where(or_(col(Alert.silenced_until).is_(None), col(Alert.silenced_until) <= audible_at))
    if before_id is not None:
        wanted = wanted.where(col(Alert.id) < before_id)
    return list(session.exec(wanted))


def unresolved_keys(session: Session, *, kind: str) -> frozenset[str]:
    """Return the keys of a kind's alerts that are not resolved."""
    wanted = select(Alert.key).where(col(Alert.kind) == kind, col(Alert.state) != AlertState.RESOLVED)
    return frozenset(session.exec(wanted))


def acknowledged_keys(session: Session, *, kind: str) -> frozenset[str]:
    """Return the keys of the alerts of a kind that are acknowledged and not resolved."""
    wanted = select(Alert.key).where(Alert.state == AlertState.ACKNOWLEDGED, Alert.kind == kind)
    return frozenset(session.exec(wanted))


def _open_for_change(session: Session, key: str) -> Alert | None:
    """Return the alert of this key that is not resolved, once whoever changes alerts at this moment has done so."""
    lock_alerts(session)
    wanted = select(Alert).where(Alert.key == key, Alert.state != AlertState.RESOLVED)
    return session.exec(wanted, execution_options={"populate_existing": True}).first()


def _silence_before(session: Session, key: str, severity: Severity, now: float) -> float | None:
    """Return how long what was last told of a cause is silenced; None: it is not, or was not as bad as this."""
    wanted = select(Alert).where(Alert.key == key).order_by(col(Alert.id).desc()).limit(1)
    last = session.exec(wanted).first()
    if last is None or not _is_silenced(last, now):
        return None
    worse = raised_again(parse_severity(last.severity), severity) is AlertEvent.WORSE
    return None if worse else last.silenced_until


def _get_for_change(session: Session, alert_id: int) -> Alert:
    lock_alerts(session)
    return _found(session.get(Alert, alert_id, populate_existing=True), alert_id)


def _found(alert: Alert | None, alert_id: int) -> Alert:
    if alert is None:
        raise NotFoundError(f"there is no alert {alert_id}", hint="shoalctl alert list")
    return alert


def _is_silenced(alert: Alert, now: float) -> bool:
    return alert.silenced_until is not None and alert.silenced_until > now


def _saved(session: Session, alert: Alert, news: EventType | None = None, *, now: float) -> Alert:
    """Store an alert, and announce what became of it if that is worth telling outside."""
    session.add(alert)
    session.flush()
    if news is not None:
        announce_alert(session, alert, news, now=now)
    return alert
