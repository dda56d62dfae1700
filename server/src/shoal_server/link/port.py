"""What the server needs of the line to its devices, whoever carries it.

Owns the port and the words that cross it. Adapters: `endpoint` (an MQTT endpoint inside this process) and `broker` (an
external one); the in-memory fake is `shoal_server.testing.link`. All three pass one contract test.

Invariants that every adapter keeps:
    - A device speaks and is spoken to under its own id only; what it forges is dropped before the handler.
    - A message of QoS 1 is acknowledged to its sender's broker only after `done()`, and never on another connection
      than the one it came by.
    - What has been handed over and not yet been `done()` is bounded; beyond it the link stops reading.
    - The handler is called by one thread of the link's, must not block, and is not called after `stop()` has returned.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Protocol, TypeAlias

import msgspec

from shoal_protocol.errors import PeerError
from shoal_protocol.mqtt.topics import Up


class LinkError(PeerError):
    """The line to the devices is down, or did not confirm in time."""

    code = "link"


class Inbound(msgspec.Struct, frozen=True):
    """One message from a device.

    Attributes:
        device: Who sent it; proven by the device's credentials.
        kind: What it is.
        payload: Its bytes, not yet parsed.
        retained: It is a stored copy, sent again because we have just subscribed.
        done: Call it once, from any thread, when the effects are committed.
    """

    device: str
    kind: Up
    payload: bytes
    retained: bool
    done: Callable[[], None]


InboundHandler: TypeAlias = Callable[[Inbound], None]
Credential: TypeAlias = tuple[str, str]
"""A device id and its verifier line (`shoal_server.link.verifiers`)."""


class DeviceLink(Protocol):
    """The line to the devices."""

    @property
    def connected(self) -> bool:
        """Whether messages flow now."""

    @property
    def connections(self) -> int:
        """How often the line was established. When it grew, stored (retained) messages may be lost: send them again."""

    @property
    def url(self) -> str:
        """Where devices connect: ``mqtt(s)://host:port``, without credentials."""

    def start(self, handler: InboundHandler) -> None:
        """Begin to hand over what devices send.

        Raises:
            LocalError: The line can't be opened on this machine. An unreachable broker is no error: it is tried again.
        """

    def publish(self, topic: str, payload: bytes, *, retain: bool = False) -> None:
        """Send a message; any thread may.

        With `retain` it returns when the message is stored for devices that come later, and an empty payload clears
        what is stored. Without, it is sent as far as there is anybody to hear it, and nothing is promised.

        Raises:
            LinkError: A message to be retained could not be stored.
        """

    def sync_credentials(self, credentials: Sequence[Credential]) -> None:
        """Let exactly these devices in; who is gone or changed is thrown out before this returns.

        Raises:
            LinkError: The broker does not take them.
        """

    def kick(self, device: str) -> None:
        """End the device's session; it may come back if its credentials still hold."""

    def stop(self) -> None:
        """Say goodbye and close; returns when the handler will not be called again."""


class LettingIn:
    """What all share that tell one line whom to let in.

    Attributes:
        order: Held while the devices are read and told.
        is_due: Whether the line has not taken the newest list: somebody has to tell it again.
    """

    def __init__(self) -> None:
        self.order = threading.Lock()
        self.is_due = False
