"""Devices that do what an agent does with an assignment, as values and without any transport."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from shoal_protocol.mqtt.messages import Fault, Presence, Reported, SlotReport
from shoal_protocol.trust.assignment import SlotTarget

NOW_MS = 1_800_000_000_000


class Behaviour(StrEnum):
    """What happens when a device installs one bundle."""

    GOOD = "good"  # its trial passes
    FAILS = "fails"  # it is rejected or taken back by the device
    HANGS = "hangs"  # the device falls silent after it has taken the offer
    SLOW = "slow"  # it is under way for ever
    WAITS = "waits"  # somebody at the device lets updates wait, for ever
    RELAPSES = "relapses"  # its trial passes; taken back when `relapse` is called


@dataclass
class SimulatedDevice:
    """One device with one slot.

    Args:
        id: Of the device.
        active: Digest that it runs and has proven.
        behaviours: By digest; `GOOD` for all others.
        online: Whether it is connected.
        deaf: Connected, but no assignment reaches it.
        waits_for: The word by which it says what it waits for, where it does.
    """

    id: str
    active: str | None = None
    behaviours: Mapping[str, Behaviour] = field(default_factory=dict)
    online: bool = True
    deaf: bool = False
    generation: int = 0
    proven: str | None = None
    previous: str | None = None
    target: str | None = None
    attempt: int = 0
    state: str = "idle"
    bad: dict[str, int] = field(default_factory=dict)
    boot: int = 1
    seq: int = 0
    waits_for: str = "held"

    def __post_init__(self) -> None:
        """Take what runs as proven."""
        self.proven = self.proven or self.active
        self.target = self.target or self.active

    def assigned(self, generation: int, target: SlotTarget | None) -> None:
        """Take an assignment, if it is online and newer than the one it has."""
        if not self.online or self.deaf or generation <= self.generation:
            return
        self.generation = generation
        digest = None if target is None else target.digest
        self.target, self.attempt = digest, 0 if target is None else target.attempt
        if digest is None:
            self.active = self.proven = self.previous = None
            self.state = "no_model"
        elif digest != self.active:
            self.state = "downloading"

    def advance(self) -> None:
        """Come one step further with what was assigned."""
        if not self.online or self.state != "downloading" or self.target is None:
            return
        behaviour = self.behaviours.get(self.target, Behaviour.GOOD)
        if self.bad.get(self.target, -1) >= self.attempt or behaviour is Behaviour.FAILS:
            self.bad[self.target] = self.attempt
            self.state = "idle"
        elif behaviour is Behaviour.HANGS:
            self.active = self.target
            self.online = False
        elif behaviour is Behaviour.WAITS:
            self.state = "verified"
        elif behaviour is not Behaviour.SLOW:
            self.previous, self.active, self.proven = self.active, self.target, self.target
            self.state = "idle"

    def relapse(self) -> None:
        """Take the active bundle back, as a device does after a crash loop."""
        assert self.active is not None
        self.bad[self.active] = self.attempt
        self.active = self.proven = self.previous

    def report(self) -> SlotReport:
        """Return what the slot reports."""
        target = self.target
        failed = target is not None and self.bad.get(target, -1) >= self.attempt
        error = Fault(code="golden_rows", message="differs", digest=target) if failed else None
        waits = Fault(code=self.waits_for, message="on hold", digest=target) if self.state == "verified" else None
        return SlotReport(
            state=self.state,
            active=self.active,
            proven=self.proven,
            previous=self.previous,
            target=target,
            attempt=self.attempt,
            error=error,
            waiting=waits,
        )

    def presence(self) -> Presence:
        """Return its presence message."""
        return Presence(**self._head(), online=self.online)

    def reported(self, slot: str) -> Reported:
        """Return its reported message."""
        return Reported(**self._head(), generation=self.generation, slots={slot: self.report()})

    def _head(self) -> dict[str, Any]:
        self.seq += 1
        return {"epoch": "0" * 16, "boot": self.boot, "seq": self.seq, "sent_at": NOW_MS + self.seq}


def fleet_of(
    count: int, *, active: str | None, behaviours: Mapping[str, Behaviour] | None = None, prefix: str = "cam"
) -> dict[str, SimulatedDevice]:
    """Return devices `cam-0`, `cam-1`, … that all run one bundle."""
    names: Iterable[str] = (f"{prefix}-{number}" for number in range(count))
    return {name: SimulatedDevice(name, active=active, behaviours=behaviours or {}) for name in names}
