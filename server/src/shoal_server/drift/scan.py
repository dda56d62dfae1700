"""The worker that turns new windows into drift states and alerts.

Owns reading windows in the order in which they were stored, sorting them into buckets of time, and writing everything
that a closed bucket changes in one transaction. Leaves the statistics to `watch`, words to `notices`, rows to `store`.

A bucket closes some time after its end; what comes later is judged for itself, see `late`. The scan
keeps nothing between two ticks but what the database holds, so it may be killed at any moment and go on anywhere.

Invariants: a bucket's windows, states, scores, alarms and alerts and the position in the windows are one transaction;
windows of open buckets are read again, so no closed one was ever judged without a window that was there. Of a bundle
whose windows can't be judged nothing is written, and the others are judged all the same.
"""

from __future__ import annotations

import logging
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import TypeAlias

import numpy as np
from sqlalchemy.exc import OperationalError
from sqlmodel import Session

from shoal_protocol.profile.reference import Reference
from shoal_server.alerts import store as alerts
from shoal_server.drift import store
from shoal_server.drift.late_store import take_late
from shoal_server.drift.monitor_state import MonitorState
from shoal_server.drift.notices import finding_key, finding_text, gap_key, gap_text
from shoal_server.drift.rules import Rules
from shoal_server.drift.season import Season, terms, usual
from shoal_server.drift.sensitivity import FalseAlarms
from shoal_server.drift.tables import MonitorRow
from shoal_server.drift.watch import Counts, Notice, Watch, Yardstick
from shoal_server.errors import NotFoundError
from shoal_server.fleet import store as fleet
from shoal_server.fleet.devices import DeviceState
from shoal_server.signals import Signals
from shoal_server.storage.database import Clock, Database, lock_for_transaction
from shoal_server.telemetry.store import StoredWindow, windows_after
from shoal_server.telemetry.windows import stack

_log = logging.getLogger(__name__)

COHORT_KEYS = ("site", "arch", "agent")
"""Labels and facts whose values are watched as cohorts: place, hardware, version of the agent."""

KEPT_S = 7 * 86_400.0
"""What is known of a bundle that sends nothing any more is forgotten after this time."""

MOST_STRANGERS = 32
"""Bundles in slots that nobody is assigned to are watched while there are no more of them than this."""

_BATCH = 2000
_KIND = "drift"
_MAX_BUCKET_MS = 3_600_000
"""Whatever length a device claims: an open bucket holds the position, and all that came later is read again."""
_MIN_GRACE_MS, _MAX_GRACE_MS = 500, 30_000

FactsOf: TypeAlias = Callable[[Session], Mapping[str, Mapping[str, str]]]
"""Session -> for each device that counts, its facts and labels."""

SlotsOf: TypeAlias = Callable[[Session], Collection[str]]
"""Session -> slots that are assigned to anybody."""

_Key: TypeAlias = tuple[str, str]


def fleet_facts(session: Session) -> dict[str, dict[str, str]]:
    """Return the facts of every accepted device: what others send is in no decision."""
    return {
        device.id: device.cohort_facts() for device in fleet.devices(session) if device.state is DeviceState.ACCEPTED
    }


@dataclass(frozen=True, kw_only=True)
class _Batch:
    """Windows read, in buckets; what is closed by now and what stays open.

    Attributes:
        before: Position before.
        after: Position once the closed buckets are written.
        closed: Windows by slot and digest, then by bucket.
        late: Windows that were seen for the first time and too late, by slot and digest, then by bucket.
        bucket_ms: Length of a bucket, by slot and digest.
        facts: Of the devices.
        full: Whether there were more windows than were read.
    """

    before: store.Cursor
    after: store.Cursor
    closed: Mapping[_Key, Mapping[int, Sequence[StoredWindow]]]
    late: Mapping[_Key, Mapping[int, Sequence[StoredWindow]]]
    bucket_ms: Mapping[_Key, int]
    facts: Mapping[str, Mapping[str, str]] = field(repr=False)
    full: bool


class DriftScan:
    """The drift worker; `tick` is called in a loop.

    Args:
        database: With windows, fleet, drift and alerts.
        references: Bundle digest -> its reference, None when it has none: then it isn't watched.
        clock: Seconds since the epoch.
        facts: Which devices count, and their facts.
        rules: Of the sequential rule.
        false_alarms: How often a quiet fleet may be alarmed; None: as the rules say, in windows.
        season: Of fleets that are new; None: a day, where windows are a minute or longer.
        slots: Which slots anybody is meant to run; of others only the first `MOST_STRANGERS` are watched.
        cohort_keys: Labels or facts whose values are watched as cohorts.
        signals: Told `drift` after each change, and `alerts` after an alert.
    """

    def __init__(
        self,
        database: Database,
        references: Callable[[str], Reference | None],
        clock: Clock,
        *,
        facts: FactsOf = fleet_facts,
        rules: Rules | None = None,
        false_alarms: FalseAlarms | None = None,
        season: Season | None = None,
        slots: SlotsOf | None = None,
        cohort_keys: Sequence[str] = COHORT_KEYS,
        signals: Signals | None = None,
    ) -> None:
        self._database = database
        self._clock = clock
        self._facts = facts
        self._rules = rules or Rules()
        self._false_alarms = false_alarms
        self._season = season
        self._slots = slots
        self._cohort_keys = tuple(cohort_keys)
        self._signals = signals

        @lru_cache(maxsize=32)
        def known(digest: str) -> Yardstick:
            reference = references(digest)
            if reference is None:
                raise NotFoundError(f"the bundle {digest} has no reference")
            return Yardstick.of(reference)

        def yardstick(digest: str) -> Yardstick | None:
            try:
                return known(digest)
            except NotFoundError:  # a device may claim to run anything; and what is not there may be learnt yet
                return None

        self._yardstick = yardstick

    def tick(self, now: float | None = None) -> int:
        """Close all buckets that are due; returns how many.

        Args:
            now: Seconds since the epoch; the clock's when left out.
        """
        now = self._clock() if now is None else now
        self._hear_acknowledgements()
        closed, limit = 0, _BATCH
        while True:
            batch = self._read(now, limit)
            if batch.after != batch.before and not self._write(batch, now):
                break  # another scan was faster
            closed += sum(len(buckets) for buckets in batch.closed.values())
            if not batch.full:
                break
            stuck = batch.after.read_through == batch.before.read_through
            limit = 2 * limit if stuck else _BATCH
        if closed:
            self._bump("drift")
        return closed

    def _read(self, now: float, limit: int) -> _Batch:
        with self._database.read() as session:
            before = store.cursor(session)
            found = windows_after(session, before.read_through, limit)
            known = {(row.slot, row.digest): row for row in store.monitors(session)} if found else {}
            slots = None if self._slots is None or not found else self._slots(session)
        full = len(found) == limit
        # while there is a backlog, time is what it was when the last window of this batch was stored
        horizon_ms = 1000 * (min(now, found[-1].received_at) if full else now)
        lengths: dict[_Key, Counter[int]] = defaultdict(Counter)
        read_through = seen = found[-1].id if found else before.read_through
        watched = found if slots is None else _believed(found, known, slots)
        reporters: dict[_Key, dict[str, int]] = defaultdict(dict)
        for window in watched:
            reporters[window.slot, window.digest][window.device] = window.length_ms
        for key, lengths_of in reporters.items():
            lengths[key].update(lengths_of.values())
        bucket_ms = {key: _bucket_ms(usual, known.get(key)) for key, usual in lengths.items()}
        known = {key: row for key, row in known.items() if bucket_ms.get(key, row.bucket_ms) == row.bucket_ms}
        closed: dict[_Key, dict[int, list[StoredWindow]]] = defaultdict(lambda: defaultdict(list))
        late: dict[_Key, dict[int, list[StoredWindow]]] = defaultdict(lambda: defaultdict(list))
        for window in watched:
            key = (window.slot, window.digest)
            # the middle of the window: clocks that are a little off don't move it to a neighbouring bucket
            index = (window.start_ms + window.length_ms // 2) // bucket_ms[key]
            if key in known and index <= known[key].watermark:
                if window.id > before.seen_through:
                    late[key][index].append(window)
            elif (index + 1) * bucket_ms[key] + grace_ms(bucket_ms[key]) <= horizon_ms:
                closed[key][index].append(window)
            else:
                read_through = min(read_through, window.id - 1)
        facts = self._known_facts() if closed or late else {}
        seen = max(before.seen_through, seen)
        return _Batch(
            before=before,
            after=store.Cursor(read_through, seen),
            closed=closed,
            late=late,
            bucket_ms=bucket_ms,
            facts=facts,
            full=full,
        )

    def _known_facts(self) -> Mapping[str, Mapping[str, str]]:
        with self._database.read() as session:
            return self._facts(session)

    def _write(self, batch: _Batch, now: float) -> bool:
        """Store what a batch changes; False when another scan has done so meanwhile."""
        counted = {key: self._counted(key, batch) for key in sorted(batch.closed)}
        cohorts = self._cohorts(batch.facts)
        news = 0
        with self._database.write() as session:
            lock_for_transaction(session, "drift")
            if store.cursor(session) != batch.before:
                return False
            for key in sorted(batch.closed.keys() | batch.late.keys()):
                found = counted.get(key, {})
                news += self._judge(session, key, batch, found, cohorts=cohorts, now=now)
            store.save_cursor(session, batch.after)
        if news:
            self._bump("alerts")
        return True

    def _counted(self, key: _Key, batch: _Batch) -> dict[int, tuple[Counts, int]]:
        """Sum the closed buckets of one bundle in one slot; nothing where that fails."""
        try:
            return {index: self._count(key[1], found, batch) for index, found in sorted(batch.closed[key].items())}
        except OperationalError:
            raise
        except Exception:  # noqa: BLE001 - as in `_judge`
            _log.exception("the windows of %s in %s can't be counted and are skipped", key[1], key[0])
            return {}

    def _judge(
        self,
        session: Session,
        key: _Key,
        batch: _Batch,
        counted: Mapping[int, tuple[Counts, int]],
        *,
        cohorts: Mapping[str, frozenset[str]],
        now: float,
    ) -> int:
        """Judge one bundle in one slot; returns how many alerts have changed. What can't be judged is skipped whole."""
        try:
            yardstick = self._yardstick(key[1])
            if yardstick is None:
                return 0
            with session.begin_nested():
                watch = self._watch(session, key, yardstick, batch)
                news = self._close(session, watch, counted, yardstick, cohorts=cohorts, now=now)
                return news + self._take_late(session, watch, yardstick, batch, now=now)
        except OperationalError:  # the database is not there or busy: all of it is tried again
            raise
        except Exception:  # noqa: BLE001 - devices write the windows: those of one bundle cost the others nothing
            _log.exception("the windows of %s in %s can't be judged and are skipped", key[1], key[0])
            return 0

    def _watch(self, session: Session, key: _Key, yardstick: Yardstick, batch: _Batch) -> Watch:
        watch = store.load(session, *key)
        if watch is not None and batch.bucket_ms.get(key, watch.bucket_ms) != watch.bucket_ms:
            store.drop(session, *key)
            watch = None
        if watch is None:
            store.forget(session, before=self._clock() - KEPT_S)
            layout = yardstick.layout
            bucket_ms = batch.bucket_ms[key]
            season = usual(bucket_ms) if self._season is None else self._season
            state = MonitorState.empty(layout.streams, terms=terms(season))
            watch = Watch(*key, bucket_ms, state, np.zeros(layout.size), season=season)
        watch.late += sum(map(len, batch.late.get(key, {}).values()))
        return watch

    def _take_late(self, session: Session, watch: Watch, yardstick: Yardstick, batch: _Batch, *, now: float) -> int:
        """Judge what came late, after the present was; returns how many alerts have changed."""
        late = batch.late.get((watch.slot, watch.digest), {})
        counted = {index: self._count(watch.digest, windows, batch)[0] for index, windows in late.items()}
        windows = [window for found in late.values() for window in found]
        rules = self._rules_of(watch)
        return take_late(session, watch, windows, counted, yardstick=yardstick, rules=rules, now=now)

    def _close(
        self,
        session: Session,
        watch: Watch,
        counted: Mapping[int, tuple[Counts, int]],
        yardstick: Yardstick,
        *,
        cohorts: Mapping[str, frozenset[str]],
        now: float,
    ) -> int:
        """Close buckets in order; returns how many alerts have changed."""
        rules = self._rules_of(watch)
        first = min(counted, default=watch.watermark)
        watch.localise(yardstick.layout, cohorts)
        told = set(watch.alert_keys.values())
        news = 0
        for index, (counts, damaged) in counted.items():
            watch.damaged += damaged
            for notice in watch.close(index, counts, yardstick=yardstick, cohorts=cohorts, rules=rules):
                news += 1
                self._tell(session, watch, notice, yardstick, now=now)
            told |= set(watch.alert_keys.values())
            store.add_scores(session, watch, index=index, rules=rules)
        for alert_key in sorted(told - set(watch.alert_keys.values())):
            alerts.resolve_alert(session, alert_key, now=now)
            news += 1
        store.save(session, watch, layout=yardstick.layout, rules=rules, changed_since=first, now=now)
        return news

    def _rules_of(self, watch: Watch) -> Rules:
        rules = self._rules.in_season(watch.season, bucket_ms=watch.bucket_ms)
        if self._false_alarms is None:
            return rules
        return replace(rules, mean_time_to_false_alarm=self._false_alarms.windows(watch.bucket_ms))

    def _tell(self, session: Session, watch: Watch, notice: Notice, yardstick: Yardstick, *, now: float) -> None:
        if notice.finding is not None:
            key = finding_key(watch, notice.finding)
            title, body = finding_text(watch, notice.finding, yardstick)
            watch.told(notice.finding, key)
        elif notice.gap is not None:
            key = gap_key(watch)
            title, body = gap_text(watch, notice.gap, yardstick.layout)
        else:
            return
        alerts.raise_alert(
            session,
            kind=_KIND,
            subject=f"slot:{watch.slot}",
            title=title,
            body=body,
            severity="warning",
            key=key,
            now=now,
        )

    def _count(self, digest: str, windows: Sequence[StoredWindow], batch: _Batch) -> tuple[Counts, int]:
        """Sum a bucket's windows by device; devices that don't count and bundles without reference give nothing."""
        yardstick = self._yardstick(digest)
        if yardstick is None:
            return Counts([], np.zeros(0, np.int64), np.zeros((0, 0), np.int64)), 0
        mine = [window for window in windows if window.device in batch.facts and window.n > 0]
        arrays = stack(mine, yardstick.reference.spec)
        names = sorted(set(arrays.devices))
        place = {name: at for at, name in enumerate(names)}
        at = np.array([place[name] for name in arrays.devices], dtype=np.int64)
        rows = np.zeros(len(names), np.int64)
        cells = np.zeros((len(names), yardstick.layout.size), np.int64)
        np.add.at(rows, at, arrays.n)
        np.add.at(cells, at, arrays.cells)
        return Counts(names, rows, cells), arrays.damaged

    def _cohorts(self, facts: Mapping[str, Mapping[str, str]]) -> dict[str, frozenset[str]]:
        members: dict[str, set[str]] = defaultdict(set)
        for device, known in facts.items():
            for key in self._cohort_keys:
                if key in known:
                    members[f"{key}={known[key]}"].add(device)
        return {name: frozenset(devices) for name, devices in members.items()}

    def _hear_acknowledgements(self) -> None:
        """Take in what people have acknowledged, also while no windows come."""
        with self._database.read() as session:
            known = alerts.acknowledged_keys(session, kind=_KIND)
            waiting = store.latched_alert_keys(session) & known
        if waiting:
            with self._database.write() as session:
                lock_for_transaction(session, "drift")
                store.acknowledge_alarms(session, waiting)

    def _bump(self, topic: str) -> None:
        if self._signals is not None:
            self._signals.bump(topic)


def _bucket_ms(reporters: Counter[int], known: MonitorRow | None) -> int:
    """Return the length of a bucket: what most devices report, unless it is known and most still may report it.

    Args:
        reporters: Number of devices of each length of windows.
        known: The bundle as it is watched; it begins anew when more devices than half of those it counts on agree on
            another length, as after a changed setting. A few that come first decide no longer than until then.
    """
    length, devices = reporters.most_common(1)[0]
    length = min(length, _MAX_BUCKET_MS)
    if known is None:
        return length
    return length if 2 * devices > max(known.devices, 1) else known.bucket_ms


def _believed(found: Sequence[StoredWindow], known: Collection[_Key], slots: Collection[str]) -> list[StoredWindow]:
    """Leave out what a device claims to run in ever new slots: each would open a watch, and alerts of its own."""
    strange = {key for key in known if key[0] not in slots}
    kept = []
    for window in found:
        key = (window.slot, window.digest)
        if window.slot not in slots and key not in strange:
            if len(strange) >= MOST_STRANGERS:
                continue
            strange.add(key)
        kept.append(window)
    return kept


def grace_ms(bucket_ms: int) -> int:
    """Return how long after its end a bucket waits for windows: half a bucket, and a bucket of at most 30 s.

    >>> grace_ms(500), grace_ms(300_000)
    (750, 180000)
    """
    return bucket_ms // 2 + min(max(bucket_ms, _MIN_GRACE_MS), _MAX_GRACE_MS)
