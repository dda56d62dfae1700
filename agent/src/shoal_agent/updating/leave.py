"""Leave to download and to activate: what somebody or something at the device says against it just now.

Owns who is asked, and in which order: the operator's hold, the application's lock file, the windows of the week, and
last the veto hook, which costs a process. A refusal is a `Deferred`: nothing failed, nothing is final, it is reported
with its reason and asked again.

Never asked about the way back to a proven model after a failure, nor about emptying a slot: stopping must not wait. A
server's wish for a bundle that this device can return to anyway, or for a slot without a model, waits for no window.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Final

import msgspec

from shoal_agent.domain.hold import Hold
from shoal_agent.domain.occasion import HookKind, Occasion
from shoal_agent.domain.slot import Deferred, Slot, Target
from shoal_agent.ports import HoldSource, Hooks
from shoal_protocol.errors import ContentError
from shoal_protocol.maintenance import DAY_S, DAYS, WEEK_S, Instant, MaintenanceWindow, closed_s, parse_windows

NOT_NOW: Final = 75
"""Exit code of a veto hook that says "not now" (EX_TEMPFAIL of sysexits.h)."""

PLANNED: Final = frozenset({"held", "locked", "vetoed", "download_window", "activation_window", "rollout_window"})
"""Reasons of a wait that somebody wants; all others tell of a fault."""

_LOOK_S: Final = 5.0
_WINDOW_LOOK_S: Final = 60.0
_log = logging.getLogger(__name__)


class LeaveRules(msgspec.Struct, frozen=True):
    """What the device's configuration says.

    Attributes:
        download: Windows in which files are fetched; none: always.
        activation: Windows in which models are tested and activated; none: always.
        locked: Tells whether the application's lock file exists.
        veto_retry_s: So long after a veto the hook is asked again.
    """

    download: Sequence[MaintenanceWindow] = ()
    activation: Sequence[MaintenanceWindow] = ()
    locked: Callable[[], str] = lambda: ""
    veto_retry_s: float = 60.0


class Leave:
    """Asks on behalf of one device.

    Args:
        device: Its id.
        rules: Of the configuration.
        holds: The operator's word.
        hooks: The integrator's programs.
        now_ms: Reference time, milliseconds since the epoch.
        instant: The moment of the week; none: the clock is not to be believed.
    """

    def __init__(
        self,
        device: str,
        rules: LeaveRules,
        *,
        holds: HoldSource,
        hooks: Hooks,
        now_ms: Callable[[], int],
        instant: Callable[[], Instant | None],
    ) -> None:
        self._device = device
        self._rules = rules
        self._holds = holds
        self._hooks = hooks
        self._now_ms = now_ms
        self._instant = instant

    def hold(self) -> Hold | None:
        """Return the hold that holds now."""
        hold = self._holds.load()
        return hold if hold is not None and hold.holds_at(self._now_ms()) else None

    def to_download(self) -> Deferred | None:
        """Return why no file should be fetched now; none: go on."""
        return self._held() or self._window("download", self._rules.download)

    def to_activate(self, name: str, slot: Slot) -> Deferred | None:
        """Return why a slot's target should not be tested and activated now; none: go on.

        Args:
            name: Of the slot.
            slot: As it is, with its target.
        """
        target = slot.target
        digest = target.digest if target else None
        waits_for_window = slot.active is not None and digest not in {slot.previous, slot.fallback}
        deferred = self._held() or self._locked()
        if deferred is None and waits_for_window:
            deferred = self._window("activation", self._rules.activation) or self._rollout_window(target)
        if deferred is not None or not self._hooks.has(HookKind.VETO):
            return deferred
        return self._vetoed(
            Occasion(
                hook=HookKind.VETO,
                device=self._device,
                slot=name,
                digest=digest,
                name=target.name if target else "",
                other=slot.active,
            )
        )

    def _held(self) -> Deferred | None:
        hold = self.hold()
        if hold is None:
            return None
        return Deferred("held", f"updates are on hold{f': {hold.reason}' if hold.reason else ''}", _LOOK_S)

    def _locked(self) -> Deferred | None:
        path = self._rules.locked()
        return Deferred("locked", f"the application's lock file {path} is there", _LOOK_S) if path else None

    def _window(
        self, what: str, windows: Sequence[MaintenanceWindow], *, code: str = "", whose: str = ""
    ) -> Deferred | None:
        if not windows:
            return None
        instant = self._instant()
        told = f"{what}s wait for a window{whose} ({'; '.join(map(str, windows))})"
        if instant is None:
            fault = f"{told}, and this device's clock can't be right: set it"
            return Deferred("clock", fault, _WINDOW_LOOK_S)
        wait_s = closed_s(windows, instant)
        if wait_s == 0:
            return None
        opens = _weekday_and_time(instant.local_s + wait_s)
        return Deferred(
            code or f"{what}_window", f"{told}; the next opens {opens} local time", min(wait_s, _WINDOW_LOOK_S)
        )

    def _rollout_window(self, target: Target | None) -> Deferred | None:
        """Return why a target waits by its rollout's word; both that and the device's own windows must be open."""
        if target is None or not target.windows:
            return None
        try:
            windows = parse_windows("; ".join(target.windows))
        except ContentError as error:
            fault = f"the windows of the rollout can't be read, so none opens: {error.message}"
            return Deferred("rollout_window", fault, _WINDOW_LOOK_S)
        return self._window("activation", windows, code="rollout_window", whose=" of the rollout")

    def _vetoed(self, occasion: Occasion) -> Deferred | None:
        outcome = self._hooks.run(occasion)
        if outcome.exit_code == 0:
            return None
        if outcome.exit_code == NOT_NOW:
            why = outcome.said or "it gave no reason"
            return Deferred("vetoed", f"the veto hook says not now: {why}", self._rules.veto_retry_s)
        fault = outcome.fault or f"it ended with {outcome.exit_code}, expected 0 (go on) or {NOT_NOW} (not now)"
        said = f"; it said: {outcome.said}" if outcome.said else ""
        _log.warning("the veto hook failed: %s%s", fault, said)
        return Deferred("hook_failed", f"the veto hook failed: {fault}{said}", self._rules.veto_retry_s)


def _weekday_and_time(seconds: int) -> str:
    """Return ``Sat 22:00`` for seconds since a Monday's midnight."""
    day, second = divmod(seconds % WEEK_S, DAY_S)
    return f"{DAYS[day].title()} {second // 3600:02d}:{second % 3600 // 60:02d}"
