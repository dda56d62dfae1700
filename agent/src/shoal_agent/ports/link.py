"""How the server is talked to."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import msgspec

from shoal_protocol.mqtt.topics import Down, Up


class LinkHandlers(msgspec.Struct, frozen=True):
    """Whom a link calls, on a thread of its own; they only enqueue."""

    on_message: Callable[[Down, bytes], None]
    """Something came from the server."""
    on_connected: Callable[[], None]
    """Messages can be handed over, from the beginning."""
    greeting: Callable[[], tuple[bytes, bytes]]
    """Gives the presence of a new connection, and its last will."""
    farewell: Callable[[], bytes]
    """Gives the presence of an orderly end."""
    on_refused: Callable[[Up, bytes, str], None] = lambda _kind, _payload, _fault: None
    """The server said that it can't take a message, and why."""


class LinkFault(msgspec.Struct, frozen=True):
    """Why a way to the server is not open, or does not carry everything."""

    code: str
    message: str


class LinkReport(msgspec.Struct, frozen=True, kw_only=True):
    """How the server is talked to now.

    Attributes:
        protocol: ``MQTT 5``, ``MQTT 3.1.1`` or ``HTTP``; empty: there is no way now.
        fault: What is wrong with the preferred way; none: nothing.
        replaced: Threads that had ended or hung and were replaced, since the start.
    """

    protocol: str = ""
    fault: LinkFault | None = None
    replaced: int = 0


class Link(Protocol):
    """A way to talk to the server."""

    def start(self, handlers: LinkHandlers) -> None:
        """Begin to connect, for ever, in the background."""

    @property
    def connected(self) -> bool:
        """Whether messages can be handed over now."""

    def publish(self, kind: Up, payload: bytes) -> bool:
        """Hand a message to the transport; return whether it took it. That proves nothing about the server."""

    def tend(self) -> None:
        """Look after the background work, which may have ended or hang; called every few seconds."""

    def report(self) -> LinkReport:
        """Return how the server is talked to now."""

    def stop(self) -> None:
        """Say good-bye and end the background work."""
