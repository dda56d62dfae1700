"""The AsyncAPI 3 document of what crosses MQTT, derived from the topics and message types themselves.

``docs/reference/asyncapi.json`` is its printed form; a test holds the two against each other. To renew it:
``python -m shoal_protocol.mqtt.asyncapi > docs/reference/asyncapi.json``.
"""

from __future__ import annotations

import json
import sys
from typing import Any

import msgspec

from shoal_protocol.mqtt.messages import Ack, Birth, Event, Presence, Reported, ServerStatus
from shoal_protocol.mqtt.topics import PREFIX, RETAINED, SERVER_STATUS, Down, Up

_JSON = "application/json"
_UP: dict[Up, tuple[str, type | None]] = {
    Up.PRESENCE: ("Whether the device is connected; retained, and its last will", Presence),
    Up.BIRTH: ("What the device is, after every connect", Birth),
    Up.REPORTED: ("What really runs; retained", Reported),
    Up.PROFILE: ("One window's statistics, MessagePack (see bundle-format.md and the codec's docstring)", None),
    Up.EVENT: ("Something that happened once, kept until acknowledged", Event),
}
_DOWN: dict[Down, tuple[str, type | None]] = {
    Down.DESIRED: ("The signed assignment, a DSSE envelope; retained", None),
    Down.ACK: ("Which spooled messages the server has committed", Ack),
}
_BINARY = {Up.PROFILE: "application/vnd.msgpack", Down.DESIRED: "application/vnd.shoal.assignment.v1+json"}


def document() -> dict[str, Any]:
    """Return the AsyncAPI document (https://www.asyncapi.com/docs/reference/specification/v3.0.0)."""
    types = [kind for _, kind in [*_UP.values(), *_DOWN.values()] if kind is not None]
    _, schemas = msgspec.json.schema_components([*types, ServerStatus], ref_template="#/components/schemas/{name}")
    channels = {
        kind.value: _channel(f"{PREFIX}/{{device}}/{way}/{kind.value}", kind.value, summary)
        for way, entries in (("up", _UP), ("down", _DOWN))
        for kind, (summary, _) in entries.items()
    }
    channels["status"] = _channel(SERVER_STATUS, "status", "Whether the server listens; retained, and its last will")
    messages = {kind.value: _message(kind, payload) for kind, (_, payload) in _UP.items()}
    messages |= {kind.value: _message(kind, payload) for kind, (_, payload) in _DOWN.items()}
    messages["status"] = {
        "contentType": _JSON,
        "payload": {"$ref": "#/components/schemas/ServerStatus"},
        "bindings": {"mqtt": {"bindingVersion": "0.2.0"}},
    }
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "Shoal over MQTT",
            "version": "1",
            "description": "QoS 1 everywhere; at most 64 KiB a message.",
        },
        "defaultContentType": _JSON,
        "channels": channels,
        "operations": {
            **{f"receive_{kind.value}": _operation("receive", kind.value) for kind in Up},
            **{f"send_{kind.value}": _operation("send", kind.value) for kind in Down},
            "send_status": _operation("send", "status"),
        },
        "components": {"schemas": schemas, "messages": messages},
    }


def _channel(address: str, name: str, summary: str) -> dict[str, Any]:
    channel: dict[str, Any] = {
        "address": address,
        "summary": summary,
        "messages": {name: {"$ref": f"#/components/messages/{name}"}},
    }
    if "{device}" in address:
        channel["parameters"] = {"device": {"description": "Device id: 1 to 64 of A-Z a-z 0-9 _ -"}}
    return channel


def _message(kind: Up | Down, payload: type | None) -> dict[str, Any]:
    message: dict[str, Any] = {"contentType": _BINARY.get(kind, _JSON), "x-retained": kind in RETAINED}
    if payload is not None:
        message["payload"] = {"$ref": f"#/components/schemas/{payload.__name__}"}
    return message


def _operation(action: str, name: str) -> dict[str, Any]:
    return {"action": action, "channel": {"$ref": f"#/channels/{name}"}, "bindings": {"mqtt": {"qos": 1}}}


def printed() -> str:
    """Return the document's printed form, with a line feed at its end."""
    return json.dumps(document(), indent=1, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    sys.stdout.write(printed())
