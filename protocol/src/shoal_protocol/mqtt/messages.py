"""The messages between device and server, formatted and parsed from one set of types.

Every message can be lost, doubled, reordered or replayed without harm. JSON, but for the window's profile, which is
binary (`shoal_protocol.profile.codec`). Times are integer milliseconds since the epoch, UTC, by the sender's clock.

The order of messages of one device is (epoch, boot, seq): `epoch` is 64 random bits in hexadecimal, new whenever the
device's state is recreated; `boot` is persisted and grows with every start; `seq` of a profile or event is the spool's
persisted number, one sequence for both kinds, which `Ack` covers; for presence, birth and reported it counts within the
boot.
"""

from __future__ import annotations

import re
from typing import Any, TypeAlias, TypeVar

import msgspec

from shoal_protocol.errors import ContentError
from shoal_protocol.mqtt.topics import Up
from shoal_protocol.profile.codec import ProfileMessage, decode_profile

MAX_PAYLOAD = 64 * 1024
"""Bytes of any message, checked before parsing."""

EPOCH_RE = re.compile(r"[0-9a-f]{16}")


class Message(msgspec.Struct, frozen=True, kw_only=True):
    """What every message from a device carries."""

    epoch: str
    boot: int
    seq: int
    sent_at: int

    @property
    def order(self) -> tuple[int, int]:
        """Position among the messages of the same epoch."""
        return (self.boot, self.seq)


class Fault(msgspec.Struct, frozen=True, kw_only=True):
    """Why something failed; final for `digest` until the assignment's attempt grows."""

    code: str
    message: str
    digest: str | None = None


class Presence(Message, frozen=True, kw_only=True):
    """Whether the device is connected; the offline form is its last will."""

    online: bool
    run: str = ""
    """64 random bits of the process, never stored: two machines with one identity differ by it."""


class Birth(Message, frozen=True, kw_only=True):
    """What the device is; sent after every connect."""

    agent_version: str
    protocol: int = 1
    arch: str = ""
    os: str = ""
    python: str = ""
    onnxruntime: str = ""
    cpu_count: int = 0
    memory_bytes: int = 0
    providers: tuple[str, ...] = ()
    labels: dict[str, str] = msgspec.field(default_factory=dict)
    slots: tuple[str, ...] = ()
    window_s: float = 300.0
    targets_version: int = 0
    """Of the newest verified list of releases."""


class ShadowReport(msgspec.Struct, frozen=True, kw_only=True):
    """What became of a slot's shadow, which sees the same inputs and answers nobody."""

    digest: str
    state: str
    """``waiting``, ``running`` or ``failed``."""
    error: Fault | None = None


class SlotReport(msgspec.Struct, frozen=True, kw_only=True):
    """What one slot really does. HEALTHY for a digest means: it is both `active` and `proven`."""

    state: str
    """A state of the agent's slot machine, in lower case, or ``no_model``."""
    active: str | None = None
    variant: str | None = None
    previous: str | None = None
    proven: str | None = None
    """The newest digest whose trial passed on this device."""
    fallback: str | None = None
    """The first digest that ever passed its trial here, kept as the last resort."""
    target: str | None = None
    attempt: int = 0
    progress: float = 0.0
    """Of the download, 0 to 1."""
    error: Fault | None = None
    waiting: Fault | None = None
    """What keeps the slot from its target just now: nothing final, it goes on by itself."""
    shadow: ShadowReport | None = None
    revoked: str | None = None
    """Why the active bundle may not be installed or returned to any more; it runs on until something else comes."""


class HoldReport(msgspec.Struct, frozen=True, kw_only=True):
    """Somebody at the device said that updates should wait; times in milliseconds since the epoch."""

    since: int
    until: int | None = None
    """When it ends by itself; none: when that somebody says so."""
    reason: str = ""


class Reported(Message, frozen=True, kw_only=True):
    """What really runs, per slot."""

    generation: int
    slots: dict[str, SlotReport]
    run: str = ""
    """As in `Presence`."""
    hold: HoldReport | None = None


class Event(Message, frozen=True, kw_only=True):
    """Something that happened once, kept in the spool until it is acknowledged."""

    at: int
    kind: str
    slot: str | None = None
    digest: str | None = None
    data: dict[str, Any] = msgspec.field(default_factory=dict)


class Ack(msgspec.Struct, frozen=True, kw_only=True):
    """Which spooled messages the server has committed: all up to `through`, and the closed `ranges` beyond."""

    epoch: str
    through: int
    ranges: tuple[tuple[int, int], ...] = ()

    def covers(self, seq: int) -> bool:
        """Tell whether a message is stored at the server."""
        return seq <= self.through or any(first <= seq <= last for first, last in self.ranges)


class ServerStatus(msgspec.Struct, frozen=True, kw_only=True):
    """Whether the server listens; devices spool while it does not."""

    online: bool
    at: int


UpMessage: TypeAlias = Presence | Birth | Reported | Event | ProfileMessage

_TYPES: dict[Up, type[Presence | Birth | Reported | Event]] = {
    Up.PRESENCE: Presence,
    Up.BIRTH: Birth,
    Up.REPORTED: Reported,
    Up.EVENT: Event,
}
_encoder = msgspec.json.Encoder()
_Down = TypeVar("_Down", Ack, ServerStatus)


def encode_message(message: Message | Ack | ServerStatus) -> bytes:
    """Return the JSON form of a message.

    Raises:
        ContentError: It is larger than `MAX_PAYLOAD`.
    """
    raw = _encoder.encode(message)
    if len(raw) > MAX_PAYLOAD:
        raise ContentError(f"a {type(message).__name__} of {len(raw)} bytes is over the limit of {MAX_PAYLOAD}")
    return raw


def parse_message(kind: Up, raw: bytes) -> UpMessage:
    """Parse what a device sent, from hostile bytes.

    Raises:
        ContentError: Too large, not of the kind's form, or a value out of its range.
    """
    if len(raw) > MAX_PAYLOAD:
        raise ContentError(f"a message of {len(raw)} bytes is over the limit of {MAX_PAYLOAD}")
    if kind is Up.PROFILE:
        return decode_profile(raw)
    try:
        message = msgspec.json.decode(raw, type=_TYPES[kind])
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise ContentError(f"{kind.value}: {error}") from error
    if EPOCH_RE.fullmatch(message.epoch) is None or not 0 <= message.boot < 2**53 or not 0 <= message.seq < 2**53:
        raise ContentError(f"{kind.value}: epoch, boot or seq is out of range")
    return message


def parse_ack(raw: bytes) -> Ack:
    """Parse an acknowledgement.

    Raises:
        ContentError: It does not parse.
    """
    return _parse_down(raw, Ack)


def parse_server_status(raw: bytes) -> ServerStatus:
    """Parse the server's status.

    Raises:
        ContentError: It does not parse.
    """
    return _parse_down(raw, ServerStatus)


def _parse_down(raw: bytes, kind: type[_Down]) -> _Down:
    try:
        return msgspec.json.decode(raw, type=kind)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise ContentError(f"{kind.__name__}: {error}") from error
