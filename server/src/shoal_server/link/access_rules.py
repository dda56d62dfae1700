"""Who may say and hear what on the line: one rule each way, the same that the ACL file of an external broker holds."""

from __future__ import annotations

from shoal_protocol.errors import ContentError
from shoal_protocol.mqtt.topics import SERVER_STATUS, Down, Topic, Up, down, parse_topic


def spoken(device: str, topic: str) -> Up | None:
    """Return what a device says on a topic; none when it is not its own or not known."""
    try:
        parsed = parse_topic(topic)
    except ContentError:
        return None
    return parsed.kind if parsed.device == device and isinstance(parsed.kind, Up) else None


def hearable(device: str) -> tuple[str, ...]:
    """Return every topic that a device may hear."""
    return (SERVER_STATUS, *(down(device, kind) for kind in Down))


def addressee(topic: str) -> str | None:
    """Return the device that a topic of the server is for; none when it is for all.

    Raises:
        ContentError: The server does not speak on this topic.
    """
    if topic == SERVER_STATUS:
        return None
    parsed: Topic = parse_topic(topic)
    if not isinstance(parsed.kind, Down):
        raise ContentError(f"the server does not speak on {topic!r}, only devices do")
    return parsed.device


def matches(topic_filter: str, topic: str) -> bool:
    """Tell whether a filter covers a topic (MQTT 3.1.1, 4.7).

    >>> matches("a/+/c", "a/b/c"), matches("a/#", "a"), matches("+", "a/b")
    (True, True, False)
    """
    wanted, levels = topic_filter.split("/"), topic.split("/")
    for at, level in enumerate(wanted):
        if level == "#":
            return True
        if at >= len(levels) or level not in {"+", levels[at]}:
            return False
    return len(wanted) == len(levels)
