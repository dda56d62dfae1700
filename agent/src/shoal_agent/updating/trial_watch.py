"""Watching the model on trial: what it did since the last look, and the verdict."""

from __future__ import annotations

import msgspec

from shoal_agent.domain.slot import Failed, Measured, Proved, Slot, SlotState
from shoal_agent.domain.trial import TrialRules, Verdict, judge
from shoal_agent.ports import Clock
from shoal_agent.updating.model_host import ModelHost, Seen


class _Look(msgspec.Struct, frozen=True):
    seen: Seen
    at: float


class TrialWatch:
    """Looks at the models on trial of all slots.

    Args:
        host: Where models answer.
        rules: Of trials.
        monotonic: Seconds for durations.
    """

    def __init__(self, host: ModelHost, *, rules: TrialRules, monotonic: Clock) -> None:
        self._host = host
        self._rules = rules
        self._monotonic = monotonic
        self._looks: dict[str, _Look] = {}
        self._rss_bytes: dict[str, int] = {}

    def begins(self, name: str) -> None:
        """Look at the process before another model answers: it may answer for seconds until `began`."""
        self._rss_bytes[name] = self._host.seen(name).rss_bytes

    def began(self, name: str) -> None:
        """Begin anew: another model answers in the slot, and the one before it may have left its memory."""
        self._looks[name] = _Look(Seen(), self._monotonic())
        now = self._host.seen(name).rss_bytes
        self._rss_bytes[name] = min(self._rss_bytes.get(name) or now, now)

    def measure(self, name: str, slot: Slot) -> Measured | None:
        """Return what is to be added to a slot's trial since the last look; none: it is not on trial."""
        if slot.trial is None or slot.state is not SlotState.TRIAL:
            return None
        now = _Look(self._host.seen(name), self._monotonic())
        last = self._looks.get(name, _Look(Seen(), now.at))
        self._looks[name] = now
        return Measured(
            slot.trial.plus(
                predictions=max(now.seen.predictions - last.seen.predictions, 0),
                errors=max(now.seen.errors - last.seen.errors, 0),
                elapsed_s=now.at - last.at,
                slow=max(now.seen.slow - last.seen.slow, 0),
                over_bytes=self._over_bytes(name, now.seen),
                answers=max(now.seen.answers - last.seen.answers, 0),
                nans=max(now.seen.nans - last.seen.nans, 0),
            )
        )

    def _over_bytes(self, name: str, seen: Seen) -> int:
        """Return by how much the process has grown beyond the bundle's budget since the model answers."""
        grown = seen.rss_bytes - self._rss_bytes.get(name, seen.rss_bytes)
        return 0 if seen.memory_budget_bytes is None else max(grown - seen.memory_budget_bytes, 0)

    def verdict(self, name: str, slot: Slot) -> Proved | Failed | None:
        """Return the end of a slot's trial, once there is one; a model that hangs is cut off."""
        if slot.trial is None or slot.state is not SlotState.TRIAL:
            return None
        running_s = self._looks[name].seen.running_s if name in self._looks else 0.0
        match judge(slot.trial, self._rules, running_s=running_s):
            case Verdict.PASSED:
                return Proved()
            case Verdict.FAILED:
                share = f"{slot.trial.errors} of {slot.trial.predictions} predictions failed"
                return Failed("trial_errors", f"{share}; a share of {self._rules.max_error_rate:g} is allowed")
            case Verdict.SLOW:
                share = (
                    f"{slot.trial.slow} of {slot.trial.predictions} predictions took longer than the bundle's budget"
                )
                return Failed("trial_latency", f"{share}; a share of {self._rules.max_slow_rate:g} is allowed")
            case Verdict.HUNGRY:
                over = f"{slot.trial.over_bytes} bytes more than the bundle's memory budget"
                return Failed("trial_memory", f"since this model answers, the process has grown by {over}")
            case Verdict.NO_NUMBERS:
                share = f"{slot.trial.nans} of {slot.trial.answers} answers are not a number"
                why = f"none of its golden rows is; a share of {self._rules.max_error_rate:g} is allowed"
                return Failed("trial_nan", f"{share}; {why}")
            case Verdict.HANGS:
                self._host.cut_off(name)
                return Failed("trial_hang", f"a call has been under way for {running_s:.0f} s; it was cut off")
        return None
