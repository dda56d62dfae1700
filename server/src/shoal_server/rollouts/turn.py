"""One step of the controller in the making: the rollout so far and the effects so far.

Owns how a transition is made and recorded. The decisions are in `controller` and `way_back`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from shoal_server.rollouts.effects import Effect, Notify, Record
from shoal_server.rollouts.machine import Event, StageEvent
from shoal_server.rollouts.outcomes import Facts, Outcome, outcome
from shoal_server.rollouts.rollout import Member, Rollout

MAX_ASSIGNMENTS = 500
"""Assignments of one step, so that its transaction stays short."""

_SHOWN_DEVICES = 5


class Turn:
    """One step in the making: the rollout so far and the effects so far."""

    def __init__(self, rollout: Rollout, facts: Facts, now: float) -> None:
        self.rollout = rollout
        self.facts = facts
        self.now = now
        self.effects: list[Effect] = []

    def outcome(self, member: Member) -> Outcome:
        """Return what became of a member."""
        return outcome(
            member,
            self.facts.devices.get(member.device),
            digest=self.rollout.digest,
            lost_after_s=self.rollout.plan.lost_after_s,
            now=self.now,
        )

    def move(self, event: Event, reason: str, **changes: float | bool | None) -> None:
        """Make a transition of the rollout, recorded."""
        before = self.rollout.state
        self.rollout = self.rollout.after(event, reason=reason, **changes)
        after = self.rollout.state
        self.effects.append(
            Record(action=f"rollout.{after}", reason=reason, before={"state": before}, after={"state": after})
        )

    def move_stage(self, number: int, event: StageEvent, reason: str, **changes: object) -> None:
        """Make a transition of a stage, recorded."""
        stage = self.rollout.stages[number]
        moved = stage.after(event, reason=reason, **changes)
        self.rollout = self.rollout.with_stage(number, moved)
        self.effects.append(
            Record(
                action=f"rollout.stage.{moved.state}",
                reason=reason,
                stage=number + 1,
                before={"state": stage.state},
                after={"state": moved.state, "gates": [gate.as_json() for gate in moved.gates]},
            )
        )

    def set_stage(self, number: int, **changes: object) -> None:
        """Change what a stage shows, without a transition."""
        self.rollout = self.rollout.with_stage(number, replace(self.rollout.stages[number], **changes))  # type: ignore[arg-type]  # the fields are checked by the dataclass

    def notify(self, kind: str, severity: str, title: str) -> None:
        """Raise an alert about the rollout's present state."""
        body = f"{self.rollout.reason} (slot {self.rollout.slot}, bundle {self.rollout.bundle_name})"
        self.effects.append(Notify(kind=kind, severity=severity, title=title, body=body))

    def hold(self, reason: str) -> None:
        """Pause by itself."""
        self.move(Event.HOLD, reason)
        self.notify("rollout.paused", "warning", f"Rollout {self.rollout.name} paused itself")


def listed(devices: Sequence[str]) -> str:
    """Name some devices, in words that stay short for many."""
    shown = ", ".join(sorted(devices)[:_SHOWN_DEVICES])
    more = len(devices) - _SHOWN_DEVICES
    return shown + (f" and {more} more" if more > 0 else "")
