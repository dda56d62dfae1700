"""What is sent of an event: a CloudEvent, or a message for a chat. Pure.

Owns the formats. A chat's incoming webhook takes only its own form and checks no signature, so those formats carry the
same words as the CloudEvent without its data.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from enum import StrEnum
from types import MappingProxyType
from typing import Any

from shoal_protocol.errors import CallerError
from shoal_server.outbox.event_types import EventType
from shoal_server.outbox.tables import EventRow
from shoal_server.timestamps import rfc3339

MAX_CHAT_TEXT = 3000
"""Characters of an event's text that a chat is sent: Slack takes 3,000 in a block, Teams 28 kB in all."""


class Format(StrEnum):
    """The form in which a webhook gets its events."""

    CLOUDEVENTS = "cloudevents"  # CloudEvents 1.0, structured JSON: for programs
    SLACK = "slack"  # {"text": …} in Slack's mrkdwn: Slack, Mattermost, Rocket.Chat, Discord's /slack address
    TEAMS = "teams"  # an Adaptive Card: the Workflows app of Microsoft Teams


def parse_format(word: str) -> Format:
    """Return the format of this name.

    Raises:
        CallerError: There is none.
    """
    try:
        return Format(word)
    except ValueError as error:
        raise CallerError(f"expected a format among {', '.join(Format)}, got {word!r:.40}") from error


def render(event: EventRow, format_: Format, *, source: str) -> tuple[str, bytes]:
    """Return content type and body.

    Args:
        event: As it was announced.
        format_: Of the webhook.
        source: Address of this server, for links and as the CloudEvents source.
    """
    content_type, made = _FORMATS[format_]
    body = made(event, source.rstrip("/"))
    return content_type, json.dumps(body, ensure_ascii=False, separators=(",", ":")).encode()


def _cloudevent(event: EventRow, source: str) -> dict[str, Any]:
    return {
        "specversion": "1.0",
        "id": event.id,
        "type": EventType(event.type).wire_name,
        "source": source,
        "subject": event.subject,
        "time": rfc3339(event.at),
        "datacontenttype": "application/json",
        "data": {"title": event.title, "text": event.text, "url": _link(event, source), **event.data},
    }


def _slack(event: EventRow, source: str) -> dict[str, Any]:
    lines = [f"{_sign(event)}*{_mrkdwn(event.title)}*"]
    if event.text:
        lines.append(_mrkdwn(_cut(event.text)))
    link = _link(event, source)
    if link is not None:
        lines.append(f"<{link}|open in Shoal>")
    return {"text": "\n".join(lines)}


def _teams(event: EventRow, source: str) -> dict[str, Any]:
    blocks = [{"type": "TextBlock", "text": f"{_sign(event)}{event.title}", "weight": "bolder", "wrap": True}]
    if event.text:
        blocks.append({"type": "TextBlock", "text": _cut(event.text), "wrap": True})
    card: dict[str, Any] = {"type": "AdaptiveCard", "version": "1.4", "body": blocks}
    link = _link(event, source)
    if link is not None:
        card["actions"] = [{"type": "Action.OpenUrl", "title": "Open in Shoal", "url": link}]
    kind = "application/vnd.microsoft.card.adaptive"
    return {"type": "message", "attachments": [{"contentType": kind, "contentUrl": None, "content": card}]}


def _link(event: EventRow, source: str) -> str | None:
    return f"{source}{event.page}" if event.page else None


def _sign(event: EventRow) -> str:
    resolved = EventType(event.type) is EventType.ALERT_RESOLVED
    return "resolved: " if resolved else f"{event.severity}: " if event.severity else ""


def _cut(text: str) -> str:
    return text if len(text) <= MAX_CHAT_TEXT else text[: MAX_CHAT_TEXT - 1] + "…"


def _mrkdwn(text: str) -> str:
    """Escape Slack's three control characters, so that no device's words become a link or a mention."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


_FORMATS: Mapping[Format, tuple[str, Callable[[EventRow, str], dict[str, Any]]]] = MappingProxyType(
    {
        Format.CLOUDEVENTS: ("application/cloudevents+json; charset=utf-8", _cloudevent),
        Format.SLACK: ("application/json; charset=utf-8", _slack),
        Format.TEAMS: ("application/json; charset=utf-8", _teams),
    }
)
