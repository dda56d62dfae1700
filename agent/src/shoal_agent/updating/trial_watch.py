"""Watching the model on trial: what it did since the last look, and the verdict."""

from __future__ import annotations

from dataclasses import dataclass

from shoal_agent.domain.slot import Failed, Measured, Proved, Slot, SlotState
from shoal_agent.domain.trial import TrialRules, Verdict, judge
from shoal_agent.ports import Clock
from shoal_agent.updating.model_host import ModelHost, Seen


@dataclass(frozen=True)
class _Look:
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

    def began(self, name: str) -> None:
        """Begin anew: another model answers in the slot."""
        self._looks[name] = _Look(Seen(), self._monotonic())

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
            )
        )

    def verdict(self, slot: Slot) -> Proved | Failed | None:
        """Return the end of a slot's trial, once there is one."""
        if slot.trial is None or slot.state is not SlotState.TRIAL:
            return None
        match judge(slot.trial, self._rules):
            case Verdict.PASSED:
                return Proved()
            case Verdict.FAILED:
                share = f"{slot.trial.errors} of {slot.trial.predictions} predictions failed"
                return Failed("trial_errors", f"{share}; a share of {self._rules.max_error_rate:g} is allowed")
        return None
