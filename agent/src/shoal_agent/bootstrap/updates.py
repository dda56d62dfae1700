"""The parts that bring models in: downloads, the slots' transactions, what puts an update off, files by hand."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from shoal_agent import hook_programs
from shoal_agent.adapters.hold_file import HoldFile
from shoal_agent.adapters.identity import IdentityFolder
from shoal_agent.adapters.preflight import ChildPreflight
from shoal_agent.adapters.state_file import StateFile as FolderStateFile
from shoal_agent.domain.backoff import Backoff
from shoal_agent.domain.reference_time import plausible, reference_ms
from shoal_agent.domain.trial import TrialRules
from shoal_agent.machine import batching_of, week_instant
from shoal_agent.ports import Cancelled, Hooks, Parcel
from shoal_agent.settings import Settings
from shoal_agent.updating.assignments import AssignmentIntake
from shoal_agent.updating.callouts import Callouts, NoHooks
from shoal_agent.updating.desk import Desk
from shoal_agent.updating.leave import Leave, LeaveRules
from shoal_agent.updating.list_watch import ListWatch
from shoal_agent.updating.model_host import ModelHost
from shoal_agent.updating.surroundings import Rhythm, Surroundings
from shoal_agent.updating.transaction import Transactions
from shoal_agent.updating.updater import Updater
from shoal_agent.updating.uplink import Uplink
from shoal_agent.updating.work import Parts, Work
from shoal_protocol.errors import LocalError, TrustError
from shoal_protocol.maintenance import Instant, parse_windows

if TYPE_CHECKING:
    from shoal_agent.updating.courier import Courier
from shoal_agent.bootstrap.base import Base
from shoal_agent.bootstrap.fetching import LaterFetcher, make_fetcher

_log = logging.getLogger(__name__)


def make_updater(
    base: Base,
    transactions: Transactions,
    uplink: Uplink,
    *,
    desk: Desk,
    beat: Callable[[], None],
    rotate: Callable[[int], None],
) -> Updater:
    """Make what takes assignments over and lets the slots go on."""
    settings, monotonic = base.settings, base.overrides.monotonic
    return Updater(
        transactions,
        intake=lambda: AssignmentIntake(base.identity.device, base.trust),
        inbox=base.inbox,
        spool=base.spool,
        messages=base.messages,
        desk=desk,
        tick_s=min(max(settings.trial_seconds / 20, 0.2), 5.0),
        monotonic=monotonic,
        watch=ListWatch(base.trust, monotonic=monotonic, every_s=settings.trust_refresh_s),
        by_hand=partial(_courier, base, uplink),
        beat=beat,
        rotate=rotate,
    )


def _courier(base: Base, uplink: Uplink) -> Courier:
    from shoal_agent.updating.courier import Courier  # noqa: PLC0415 - few devices get anything by hand
    from shoal_agent.updating.delivery import Delivery  # noqa: PLC0415 - likewise
    from shoal_agent.updating.mail import Mail  # noqa: PLC0415 - likewise

    def open_parcel(path: Path) -> AbstractContextManager[Parcel]:
        from shoal_agent.adapters.parcel_file import ParcelFile  # noqa: PLC0415 - few devices get parcels

        return ParcelFile(path)

    def sign(message: bytes) -> str:
        from shoal_agent.adapters.device_key import signature  # noqa: PLC0415 - likewise

        key = IdentityFolder(base.state / "identity").key(base.credentials.identity.known_key_file)
        if key is None:
            raise LocalError("this device has no key of its own", hint="let it join again")
        return signature(key, message)

    mail = Mail(base.identity.device, base.spool, standing=uplink.standing, sign=sign, now_ms=base.messages.now_ms)
    return Courier(base.identity.device, Delivery(base.trust, base.store, base.facts), mail, open_parcel=open_parcel)


def make_hooks(settings: Settings, *, beat: Callable[[], None]) -> Hooks:
    """Make what calls the integrator's programs, if there are any."""
    given = hook_programs.programs(settings)
    if not given:
        return NoHooks()
    from shoal_agent.adapters.hooks import ChildHooks  # noqa: PLC0415 - few devices have hooks

    for fault in hook_programs.faults(given):
        _log.warning("%s", fault)
    return ChildHooks(given, timeout_s=settings.hooks_timeout_s, beat=beat)


def _leave(base: Base, hooks: Hooks) -> Leave:
    settings, clock, trust = base.settings, base.overrides.clock, base.trust
    lock_file = settings.activation_lock_file

    def floor_ms() -> int:
        try:
            return trust.floors().time_ms
        except (TrustError, OSError):  # said by whoever needs the floors for what they are
            return 0

    def instant() -> Instant | None:
        now = clock()
        return week_instant(now) if plausible(int(now * 1000), floor_ms()) else None

    rules = LeaveRules(
        download=parse_windows(settings.download_windows),
        activation=parse_windows(settings.activation_windows),
        locked=lambda: lock_file if lock_file and os.path.lexists(lock_file) else "",
        veto_retry_s=settings.hooks_retry_s,
    )
    return Leave(
        base.identity.device,
        rules,
        holds=HoldFile(base.state),
        hooks=hooks,
        now_ms=lambda: reference_ms(int(clock() * 1000), floor_ms()),
        instant=instant,
    )


def make_transactions(base: Base, *, hooks: Hooks, cancelled: Cancelled) -> Transactions:
    """Make the slots' updates, with all that they are done by."""
    settings, overrides, leave = base.settings, base.overrides, _leave(base, hooks)
    store = base.store
    preflight = ChildPreflight(base.state, turns=overrides.preflight_turns, clock=overrides.monotonic)
    parts = Parts(
        store=store,
        fetcher=LaterFetcher(partial(make_fetcher, base)),
        trust=base.trust,
        preflight=overrides.preflight or preflight,
        facts=base.facts,
        may_download=leave.to_download,
    )
    around = Surroundings(
        state_file=overrides.state_file(FolderStateFile(base.state)),
        store=store,
        host=ModelHost(
            store,
            base.slots,
            facts=base.facts,
            threads=settings.threads,
            feedback=base.feedback,
            shadow_share=settings.shadow_share,
            batching=batching_of(settings),
            holds_one=settings.activation_mode == "stop-then-load",
        ),
        work=Work(parts, preflight_s=settings.preflight_seconds, threads=settings.threads or 1),
        spool=base.spool,
        messages=base.messages,
        leave=leave,
        callouts=Callouts(base.identity.device, hooks, spool=base.spool, messages=base.messages),
    )
    rhythm = Rhythm(
        clock=overrides.clock,
        monotonic=overrides.monotonic,
        chance=overrides.chance,
        backoff=Backoff(base_s=1.0, cap_s=settings.retry_max_s),
        rules=TrialRules(
            predictions=settings.trial_predictions,
            seconds=settings.trial_seconds,
            max_error_rate=settings.trial_max_error_rate,
            call_s=settings.trial_call_s,
        ),
        longest_call_s=settings.calls_longest_s,
    )
    changed = partial(base.relay.call, "changed")
    return Transactions(around, rhythm=rhythm, cancelled=cancelled, changed=changed)
