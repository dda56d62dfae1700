"""One message of a device on its way in: parsed, or with the reason why it can't be. Pure."""

from __future__ import annotations

import logging

import msgspec

from shoal_protocol.errors import ContentError
from shoal_protocol.mqtt.messages import Event, UpMessage, parse_message
from shoal_protocol.mqtt.topics import Up
from shoal_protocol.profile.codec import ProfileMessage

log = logging.getLogger(__name__)

MAX_COUNT = 2**40
"""Rows or errors of one window; more is no count but an attack on the sums."""

MAX_NAME = 64
"""Characters of a slot's name or an event's kind; they become keys, and an index takes no keys of any length."""


class Arrival(msgspec.Struct, frozen=True):
    """One message.

    Attributes:
        device: Who sent it.
        kind: What it is.
        payload: As it came.
        message: Parsed; none when it is malformed.
        fault: Why it is malformed.
    """

    device: str
    kind: Up
    payload: bytes
    message: UpMessage | None
    fault: str = ""


def arrival(device: str, kind: Up, payload: bytes) -> Arrival:
    """Parse hostile bytes; never raises."""
    try:
        message = parse_message(kind, payload)
        if isinstance(message, ProfileMessage):
            _check_profile(message)
        elif isinstance(message, Event):
            _check_event(message)
    except ContentError as error:
        return Arrival(device, kind, payload, None, error.message)
    except Exception as error:
        # A parser that fails otherwise has a fault of its own; one device must not stop the others by it.
        log.exception("the parser of %s messages failed", kind.value)
        return Arrival(device, kind, payload, None, f"the parser failed: {error!r}")
    return Arrival(device, kind, payload, message)


def _check_profile(message: ProfileMessage) -> None:
    _check_number(message.seq)
    if not message.slot.isprintable():
        raise ContentError("profile: the slot's name has characters that can't be printed")
    if message.n > MAX_COUNT or message.errors > MAX_COUNT:
        raise ContentError(f"profile: {message.n} rows and {message.errors} errors are more than {MAX_COUNT}")


def _check_event(message: Event) -> None:
    _check_number(message.seq)
    for what, name in (("kind", message.kind), ("slot", message.slot or "")):
        if len(name) > MAX_NAME or not name.isprintable():
            raise ContentError(f"event: expected a {what} of at most {MAX_NAME} printable characters")


def _check_number(seq: int) -> None:
    if seq == 0:
        raise ContentError("numbers of spooled messages begin at 1")
