"""What happened and shall be told outside: the types of events, who wants which, and the rows that wait to be sent."""

from shoal_server.outbox.announce import announce
from shoal_server.outbox.event_types import Event, EventType

__all__ = ["Event", "EventType", "announce"]
