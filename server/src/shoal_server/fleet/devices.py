"""What the server knows of one device.

Owns the domain values `Device` and `DeviceState` and the facts that cohorts ask for. Leaves storing to `store` and what
should run to `desired`.

Invariants: a label never changes the meaning of a built-in fact (``label.arch`` is the label, ``arch`` the fact); only
the server sets labels, since they decide what a device gets.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from shoal_protocol.mqtt.messages import HoldReport, SlotReport

ALL_SLOTS = "*"
"""The key of a pin that holds every slot."""

POLL_S = 60.0
"""How often a device asks over HTTP, on average, while MQTT is down or not wanted."""

FACT_NAMES = ("id", "arch", "os", "python", "onnxruntime", "agent")
"""Facts that every device reports and a cohort may ask for, besides labels."""


class DeviceState(StrEnum):
    """Whether a device belongs to the fleet."""

    PENDING = "pending"  # enrolled, an operator still has to accept it
    ACCEPTED = "accepted"  # may connect, counts in decisions
    REVOKED = "revoked"  # its credentials are void


@dataclass(frozen=True, kw_only=True)
class Device:
    """One device; times are seconds since the epoch, UTC.

    Attributes:
        facts: What the device says it is, by the names in `FACT_NAMES` without `id`.
        online: Connected by MQTT now, as far as its presence tells.
        last_seen_at: When its last message about itself was stored.
        polled_at: When it last asked over HTTP what it should run.
        epoch, boot, seq: Of the newest message about its state.
        reported: What really runs, by slot.
        generation: Of the newest assignment that the server made for it; 0 before the first.
        generation_reported: Of the newest assignment that the device has seen.
        pins: Slot, or `ALL_SLOTS`, to the reason why no rollout may change it.
        clone_suspected_at: When two live boots of one epoch were last seen.
        hold: Somebody at the device lets updates wait.
        credential: Number of the credentials that it holds.
        credential_at: Since when.
        credential_wanted: Number of those that it was asked to hold; 0: it was never asked.
    """

    id: str
    state: DeviceState
    labels: Mapping[str, str] = field(default_factory=dict)
    facts: Mapping[str, str] = field(default_factory=dict)
    online: bool = False
    last_seen_at: float | None = None
    polled_at: float | None = None
    enrolled_at: float = 0.0
    epoch: str = ""
    boot: int = 0
    seq: int = 0
    reported: Mapping[str, SlotReport] = field(default_factory=dict)
    generation: int = 0
    generation_reported: int = 0
    pins: Mapping[str, str] = field(default_factory=dict)
    clone_suspected_at: float | None = None
    hold: HoldReport | None = None
    credential: int = 1
    credential_at: float = 0.0
    credential_wanted: int = 0

    @property
    def name(self) -> str:
        """What people call it: its id."""
        return self.id

    @property
    def agent_version(self) -> str:
        """Version of the agent that it runs; empty before its first birth message."""
        return self.facts.get("agent", "")

    def reachable(self, now: float) -> bool:
        """Tell whether it would hear of a new assignment within a minute or two: by MQTT, or by its polling."""
        return self.online or (self.polled_at is not None and now - self.polled_at < 2.5 * POLL_S)

    def cohort_facts(self) -> dict[str, str]:
        """Return what a cohort query is matched with: facts, labels, and labels by their full name."""
        known = {key: value for key, value in self.labels.items() if key not in FACT_NAMES}
        known.update((f"label.{key}", value) for key, value in self.labels.items())
        known.update((key, value) for key, value in self.facts.items() if key in FACT_NAMES)
        known["id"] = self.id
        return known

    def pin(self, slot: str) -> str | None:
        """Return why no rollout may change the slot, or None."""
        return self.pins.get(slot, self.pins.get(ALL_SLOTS))
