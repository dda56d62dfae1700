"""Who wants which events: patterns of types, and for alerts the lowest severity. Pure.

A pattern is a type with `*` for any run of characters: `rollout.*`, `*.resolved`, `alert.opened`. The full names of the
wire (`dev.shoal.alert.opened.v1`) are taken too.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Collection, Sequence

from shoal_protocol.errors import CallerError
from shoal_server.outbox.event_types import PREFIX, VERSION, EventType

MAX_PATTERNS = 50
SEVERITIES = ("info", "warning", "critical")
_CHOICES = tuple(str(type_) for type_ in EventType if type_ is not EventType.WEBHOOK_TEST)
_PATTERN_RE = re.compile(r"[a-z_.*]{1,80}")


def parse_patterns(words: Sequence[str]) -> tuple[str, ...]:
    """Return the patterns in their short form, each once.

    Raises:
        CallerError: None was given, or one matches no type that exists.

    >>> parse_patterns(["dev.shoal.alert.opened.v1", "rollout.*", "rollout.*"])
    ('alert.opened', 'rollout.*')
    """
    if not 0 < len(words) <= MAX_PATTERNS:
        raise CallerError(f"expected 1 to {MAX_PATTERNS} patterns of event types, got {len(words)}", hint="'*' is all")
    found = []
    for word in words:
        short = word.strip().removeprefix(PREFIX).removesuffix(VERSION)
        if _PATTERN_RE.fullmatch(short) is None or not any(matches(short, name) for name in _CHOICES):
            near = difflib.get_close_matches(short.replace("*", ""), _CHOICES, n=3, cutoff=0.5)
            raise CallerError(
                f"no event has a type like {word!r:.80}",
                hint=f"did you mean {' or '.join(near)}?" if near else "all types: shoalctl webhook types",
            )
        found.append(short)
    return tuple(dict.fromkeys(found))


def parse_min_severity(word: str | None) -> str | None:
    """Return a severity, None for all.

    Raises:
        CallerError: There is no such severity.
    """
    if word is None or word in SEVERITIES:
        return word
    raise CallerError(f"expected a severity among {', '.join(SEVERITIES)}, got {word!r:.40}")


def matches(pattern: str, name: str) -> bool:
    """Tell whether a type's short name fits a pattern.

    >>> matches("rollout.*", "rollout.paused"), matches("rollout.*", "alert.opened")
    (True, False)
    """
    return re.fullmatch(".*".join(map(re.escape, pattern.split("*"))), name) is not None


def wants(patterns: Collection[str], min_severity: str | None, *, name: str, severity: str | None) -> bool:
    """Tell whether an event passes a filter; the severity filters only what has one.

    >>> wants(["*"], "critical", name="alert.opened", severity="warning")
    False
    >>> wants(["*"], "critical", name="rollout.paused", severity=None)
    True
    """
    known = severity in SEVERITIES and min_severity in SEVERITIES
    if known and SEVERITIES.index(str(severity)) < SEVERITIES.index(str(min_severity)):
        return False
    return any(matches(pattern, name) for pattern in patterns)
