"""The MQTT topics of Shoal, formatted and parsed from one scheme.

``shoal/v1/{device}/up/{kind}`` carries what a device says, ``shoal/v1/{device}/down/{kind}`` what it is told;
``shoal/v1/server/status`` says whether the server listens. One access pattern each way is enough for a broker.
"""

from __future__ import annotations

import re
from enum import StrEnum

import msgspec

from shoal_protocol.errors import CallerError, ContentError

PREFIX = "shoal/v1"
SERVER_STATUS = f"{PREFIX}/server/status"
UP_FILTER = f"{PREFIX}/+/up/#"
DEVICE_RE = re.compile(r"[A-Za-z0-9_-]{1,64}")
RESERVED_DEVICES = frozenset({"server"})


class Up(StrEnum):
    """What a device sends."""

    PRESENCE = "presence"  # retained, and the last will: is it there?
    BIRTH = "birth"  # what it is and can
    REPORTED = "reported"  # retained: what really runs
    PROFILE = "profile"  # one window's statistics
    EVENT = "event"  # something happened once


class Down(StrEnum):
    """What a device is told."""

    DESIRED = "desired"  # retained: the signed assignment
    ACK = "ack"  # which spooled messages are stored


_UP = {kind.value: kind for kind in Up}
_DOWN = {kind.value: kind for kind in Down}

RETAINED = frozenset({Up.PRESENCE, Up.REPORTED, Down.DESIRED})


class Topic(msgspec.Struct, frozen=True):
    """A parsed topic."""

    device: str
    kind: Up | Down

    def __str__(self) -> str:
        way = "up" if isinstance(self.kind, Up) else "down"
        return f"{PREFIX}/{self.device}/{way}/{self.kind.value}"


def check_device(device: str) -> str:
    """Return the device id.

    Raises:
        CallerError: It is empty, too long, reserved, or has characters that a topic or a file name must not have.
    """
    if DEVICE_RE.fullmatch(device) is None or device in RESERVED_DEVICES:
        raise CallerError(
            f"{device!r:.80} is not a device id: expected 1 to 64 of A-Z a-z 0-9 _ -, and not 'server'",
            hint="choose another name",
        )
    return device


def up(device: str, kind: Up) -> str:
    """Return the topic of a message from a device."""
    return str(Topic(check_device(device), kind))


def down(device: str, kind: Down) -> str:
    """Return the topic of a message to a device."""
    return str(Topic(check_device(device), kind))


def up_filter(device: str) -> str:
    """Return the filter of everything that a device may publish."""
    return f"{PREFIX}/{check_device(device)}/up/#"


def down_filter(device: str) -> str:
    """Return the filter of everything that a device may read."""
    return f"{PREFIX}/{check_device(device)}/down/#"


def parse_topic(topic: str) -> Topic:
    """Parse a topic of a device.

    Raises:
        ContentError: It is none of Shoal's.
    """
    match topic.split("/"):
        case ["shoal", "v1", device, "up", kind] if DEVICE_RE.fullmatch(device) and kind in _UP:
            return Topic(device, _UP[kind])
        case ["shoal", "v1", device, "down", kind] if DEVICE_RE.fullmatch(device) and kind in _DOWN:
            return Topic(device, _DOWN[kind])
    raise ContentError(f"{topic!r:.120} is no topic of Shoal: expected {PREFIX}/<device>/up|down/<kind>")
