"""Whether one device is two machines: the signs, the notice, and its end.

A copied disk brings key, secret and name along, and the epoch if the agent had run before. Two signs give it away: a
stored message's number comes again with other content (telemetry sees that), and an earlier run of the agent speaks
again after a newer one has spoken. A run is known by random bits that are never stored, so a copy can't have them; one
machine's runs never take turns.

Invariants: one run after the other is no sign, whatever its clock or count of boots says; neither is a late copy of
what an earlier run said before the newer one spoke. The notice stays until credentials were rotated, which leaves one.
"""

from __future__ import annotations

from sqlmodel import Session

from shoal_server.alerts.store import raise_alert, resolve_alert
from shoal_server.fleet.announcements import announce_device
from shoal_server.fleet.tables import DeviceRow
from shoal_server.outbox import EventType

_KEPT_RUNS = 4
_MAX_RUN = 32


def takes_turns(row: DeviceRow, run: str, *, sent_at: int) -> bool:
    """Note which run of the agent speaks; tell whether it is an earlier one than the newest.

    Args:
        row: Of the device; its `runs` are brought up to date.
        run: As the message names it; empty: an agent that names none.
        sent_at: Of the message, milliseconds by the device's clock.
    """
    run = run.replace("\0", "")[:_MAX_RUN]
    if not run:
        return False
    known, before = dict(row.runs), row.runs[-1] if row.runs else None
    is_late = before is not None and before[0] != run and sent_at <= before[1]  # or by a clock that was set back
    if is_late:
        return False
    if before is None or before[0] == run or run not in known:
        known[run] = max(sent_at, known.get(run, 0))
        row.runs = [[name, at] for name, at in known.items()][-_KEPT_RUNS:]
        return False
    del known[run]
    row.runs = [*([name, at] for name, at in known.items()), [run, sent_at]]
    return True


def suspect(session: Session, device_id: str, *, why: str, now: float) -> None:
    """Tell people that a device seems to be two machines."""
    row = session.get(DeviceRow, device_id, with_for_update=True)
    if row is None:  # decommissioned meanwhile: nobody could settle it
        return
    if row.clone_suspected_at is None:
        announce_device(
            session,
            EventType.DEVICE_CLONE_SUSPECTED,
            device_id,
            state=row.state,
            labels=row.labels,
            reason=why,
            now=now,
        )
    row.clone_suspected_at = now
    session.add(row)
    raise_alert(
        session,
        kind="clone",
        subject=f"device:{device_id}",
        title=f"{device_id} seems to exist twice",
        body=f"{why}: the device's state was probably copied to another machine. "
        f"`shoalctl device rotate {device_id}` leaves the identity to one of them; let the other join under a name "
        "of its own: `shoal-agent join … --again`",
        severity="critical",
        key=_key(device_id),
        now=now,
    )


def settle(session: Session, row: DeviceRow, *, now: float) -> None:
    """Say that the identity is one machine's again, whose next words about itself are believed."""
    if row.clone_suspected_at is None:
        return
    row.clone_suspected_at, row.runs = None, []
    row.epoch, row.past_epochs, row.seen, row.boot, row.seq = "", [], {}, 0, 0  # the machine that stays may be either
    resolve_alert(session, _key(row.id), now=now)


def _key(device_id: str) -> str:
    return f"clone:{device_id}"
