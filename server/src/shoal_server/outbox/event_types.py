"""The catalogue of events that are told outside: their types, what they mean, and what each carries. Pure.

Owns the names that receivers write into their programs, so a type is never renamed and a field never taken away; a
change that would break them is a new version (`.v2`) beside the old one. `docs/reference/webhook-events.md` is made
from here by `outbox.reference`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType
from typing import Annotated, TypeAlias

import msgspec

PREFIX, VERSION = "dev.shoal.", ".v1"


class EventType(StrEnum):
    """What can happen; on the wire `dev.shoal.<this>.v1`."""

    ROLLOUT_CREATED = "rollout.created"  # a rollout was made; its devices are chosen
    ROLLOUT_AWAITING_APPROVAL = "rollout.awaiting_approval"  # it, or its next stage, waits for a person's approval
    ROLLOUT_STARTED = "rollout.started"  # it offers the bundle to its first devices
    ROLLOUT_STAGE_PASSED = "rollout.stage_passed"  # every gate of a stage passed
    ROLLOUT_STAGE_FAILED = "rollout.stage_failed"  # a gate of a stage failed; what follows is told apart
    ROLLOUT_PAUSED = "rollout.paused"  # it stopped where it is: by a person (`actor`), or by itself (`server`)
    ROLLOUT_RESUMED = "rollout.resumed"  # a person let it go on
    ROLLOUT_ABORTED = "rollout.aborted"  # a person ended it; `state` says whether devices are being taken back
    ROLLOUT_ROLLING_BACK = "rollout.rolling_back"  # a gate failed, or a person undid it: devices are being taken back
    ROLLOUT_ROLLED_BACK = "rollout.rolled_back"  # every touched device is back, or listed as out of reach
    ROLLOUT_COMPLETED = "rollout.completed"  # its last stage passed
    ALERT_OPENED = "alert.opened"  # people are told of something new; not while its cause is silenced
    ALERT_WORSENED = "alert.worsened"  # its severity rose, so it is open again; not told while it is silenced
    ALERT_ACKNOWLEDGED = "alert.acknowledged"  # somebody has seen to it
    ALERT_RESOLVED = "alert.resolved"  # its cause is gone
    DEVICE_ENROLLED = "device.enrolled"  # a device joined, or joined again with the same key
    DEVICE_ACCEPTED = "device.accepted"  # an operator let a waiting device in
    DEVICE_REVOKED = "device.revoked"  # its credentials are void
    DEVICE_DECOMMISSIONED = "device.decommissioned"  # it was forgotten; its name is free
    DEVICE_CLONE_SUSPECTED = "device.clone_suspected"  # two machines seem to speak under its name
    MODEL_PUSHED = "model.pushed"  # a new version was admitted
    MODEL_ALIAS_MOVED = "model.alias_moved"  # an alias points at another version, or at none any more
    MODEL_DENIED = "model.denied"  # a version is on the signed deny list
    MODEL_ALLOWED = "model.allowed"  # it was lifted from there
    WEBHOOK_TEST = "webhook.test"  # somebody asked for a test; sent to that one webhook whatever its filter

    @property
    def wire_name(self) -> str:
        """The CloudEvents type, such as `dev.shoal.rollout.rolled_back.v1`."""
        return f"{PREFIX}{self.value}{VERSION}"

    @property
    def family(self) -> str:
        """What it is about: `rollout`, `alert`, `device`, `model` or `webhook`."""
        return self.value.partition(".")[0]


def _field(text: str) -> msgspec.Meta:
    return msgspec.Meta(description=text)


class RolloutData(msgspec.Struct, frozen=True, kw_only=True):
    """What events of rollouts carry."""

    rollout: Annotated[str, _field("name of the rollout")]
    state: Annotated[str, _field("of the rollout now, see [rollout states](rollout-states.md)")]
    reason: Annotated[str, _field("why, in words; the same as in its history")]
    actor: Annotated[str, _field("`person:NAME`, `token:NAME`, or `server` for what nobody asked for")]
    stage: Annotated[int | None, _field("from 1, where it is about one")]
    slot: Annotated[str, _field("of the devices")]
    bundle: Annotated[str, _field("`model:version`")]
    digest: Annotated[str, _field("of the bundle")]
    cohort: Annotated[str, _field("the query that chose the devices")]


class AlertData(msgspec.Struct, frozen=True, kw_only=True):
    """What events of alerts carry."""

    alert: Annotated[int, _field("number, as in `shoalctl alert show`")]
    kind: Annotated[str, _field("such as `drift`, `contract`, `quality`, `rollout.paused`, `clone`, `webhook`")]
    about: Annotated[str, _field("such as `slot:quality` or `device:cam-7`")]
    severity: Annotated[str, _field("`info`, `warning` or `critical`")]
    state: Annotated[str, _field("`open`, `acknowledged` or `resolved`")]
    count: Annotated[int, _field("how often it was raised")]
    raised_at: Annotated[str, _field("RFC 3339")]
    key: Annotated[str, _field("the same for every event of one cause: what to deduplicate incidents by")]


class DeviceData(msgspec.Struct, frozen=True, kw_only=True):
    """What events of devices carry."""

    device: Annotated[str, _field("its name")]
    state: Annotated[str, _field("`pending`, `accepted`, `revoked` or `decommissioned`")]
    labels: Annotated[dict[str, str], _field("of the device")]
    actor: Annotated[str, _field("who caused it; `join_token:ID` for joining, `server` for what nobody asked for")]
    reason: Annotated[str, _field("why, where there is more to say than the type does; else empty")]


class ModelData(msgspec.Struct, frozen=True, kw_only=True):
    """What events of models carry."""

    model: Annotated[str, _field("its name")]
    version: Annotated[str | None, _field("it is about; null where an alias was taken away")]
    digest: Annotated[str | None, _field("of that version's bundle")]
    alias: Annotated[str | None, _field("that was moved; null for other events")]
    previous: Annotated[str | None, _field("version that the alias pointed at before")]
    actor: Annotated[str, _field("who did it")]


class TestData(msgspec.Struct, frozen=True, kw_only=True):
    """What a test carries."""

    webhook: Annotated[str, _field("its name")]
    actor: Annotated[str, _field("who asked for it")]


Data: TypeAlias = RolloutData | AlertData | DeviceData | ModelData | TestData
DATA_OF: Mapping[str, type[Data]] = MappingProxyType(
    {"rollout": RolloutData, "alert": AlertData, "device": DeviceData, "model": ModelData, "webhook": TestData}
)
"""Family of a type -> what its events carry beside `title`, `text` and `url`."""


@dataclass(frozen=True, kw_only=True)
class Event:
    """One thing that happened.

    Attributes:
        subject: What it is about, as in the audit: `rollout:quality-1.4`.
        title: One line for people.
        text: More for people; of an alert exactly what the API, shoalctl and the dashboard say.
        page: Path of the dashboard's page about it; empty: there is none.
        severity: Of alerts only.
        at: Seconds since the epoch.
    """

    type: EventType
    subject: str
    title: str
    text: str = ""
    page: str = ""
    severity: str | None = None
    data: Data
    at: float
