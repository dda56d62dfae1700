"""The catalogue of events as a page of the documentation.

`python -m shoal_server.outbox.reference > docs/reference/webhook-events.md` writes it; a test says when it is stale.
"""

from __future__ import annotations

import inspect
import re
import sys
from typing import Any, get_args, get_type_hints

import msgspec

from shoal_server.outbox import event_types
from shoal_server.outbox.event_types import DATA_OF, EventType

_COMMENT = re.compile(r'= "([\w.]+)"  # (.+)')
_ABOUT = {
    "rollout": ("Rollouts", "`rollout:NAME`"),
    "alert": ("Alerts", "`alert:NUMBER`"),
    "device": ("Devices", "`device:NAME`"),
    "model": ("Models", "`model:NAME:VERSION`, or `model:NAME@ALIAS`"),
    "webhook": ("Tests", "`webhook:NAME`"),
}

_BEGINNING = """# Events of webhooks

Made from `server/src/shoal_server/outbox/event_types.py`: change them there. How to receive them:
[send events to other programs](../how-to/webhooks.md).

Each is a [CloudEvent 1.0](https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/spec.md) in structured JSON, sent
by `POST` as `application/cloudevents+json`:

| attribute | holds |
|---|---|
| `specversion` | `1.0` |
| `id` | `evt_…`, the same in every attempt and every redelivery, and in the header `webhook-id` |
| `type` | `dev.shoal.` + a type below + `.v1` |
| `source` | the address of the server |
| `subject` | what it is about, as in the audit |
| `time` | when it happened, RFC 3339 in UTC |
| `datacontenttype` | `application/json` |
| `data` | see below |

`data` always has `title` (one line), `text` (more, plain text, may be empty) and `url` (a page of the dashboard, or
null), then the fields of its family. Fields may be added, never renamed or taken away; what would break a receiver
becomes `.v2`, sent beside `.v1`.
"""


def page() -> str:
    """Return the page, as Markdown."""
    return _BEGINNING + "".join(_family(family) for family in DATA_OF)


def meanings() -> dict[str, str]:
    """Return what each type means, from the comment beside it."""
    return dict(_COMMENT.findall(inspect.getsource(EventType)))


def _family(family: str) -> str:
    title, subject = _ABOUT[family]
    comments = meanings()
    types = [f"| `{type_.wire_name}` | {comments[type_]} |" for type_ in EventType if type_.family == family]
    fields = [f"| `{name}` | {kind} | {text} |" for name, kind, text in _fields(DATA_OF[family])]
    return "\n".join(
        [
            "",
            f"## {title}",
            "",
            f"Subject: {subject}.",
            "",
            "| type | when |",
            "|---|---|",
            *types,
            "",
            "| field of `data` | is | holds |",
            "|---|---|---|",
            *fields,
            "",
        ]
    )


def _fields(struct: type[msgspec.Struct]) -> list[tuple[str, str, str]]:
    hints = get_type_hints(struct, vars(event_types), include_extras=True)
    return [(name, _kind(get_args(hints[name])[0]), get_args(hints[name])[1].description) for name in hints]


def _kind(hint: Any) -> str:
    words = {str: "text", int: "number", dict[str, str]: "texts by name"}
    inner = [part for part in get_args(hint) if part is not type(None)] if type(None) in get_args(hint) else []
    return f"{words[inner[0]]} or null" if inner else words[hint]


if __name__ == "__main__":
    sys.stdout.write(page())
