"""The states' tables as a page of the documentation.

`python -m shoal_server.rollouts.diagram > docs/reference/rollout-states.md` writes it; a test says when it is stale.
"""

from __future__ import annotations

import inspect
import re
import sys
from collections import defaultdict
from collections.abc import Mapping
from enum import StrEnum
from typing import TypeVar

from shoal_server.rollouts.machine import (
    FINAL,
    ROLLOUT_TABLE,
    STAGE_TABLE,
    Event,
    RolloutState,
    StageEvent,
    StageState,
)

_State = TypeVar("_State", bound=StrEnum)
_Event = TypeVar("_Event", bound=StrEnum)

_COMMENT = re.compile(r'= "(\w+)"  # (.+)')


def page() -> str:
    """Return the page, as Markdown."""
    return "\n".join(
        [
            "# Rollout states",
            "",
            "Made from the tables in `server/src/shoal_server/rollouts/machine.py`: change them there.",
            "",
            "## A rollout",
            "",
            *mermaid(ROLLOUT_TABLE, first=RolloutState.DRAFT, last=FINAL),
            "",
            *meanings("state", RolloutState),
            "",
            *meanings("event", Event),
            "",
            "## A stage",
            "",
            *mermaid(STAGE_TABLE, first=StageState.PENDING, last=frozenset({StageState.PASSED})),
            "",
            *meanings("state", StageState),
            "",
            *meanings("event", StageEvent),
            "",
        ]
    )


def mermaid(table: Mapping[tuple[_State, _Event], _State], *, first: _State, last: frozenset[_State]) -> list[str]:
    """Return a state diagram; events between the same two states share an arrow."""
    arrows: dict[tuple[_State, _State], list[str]] = defaultdict(list)
    for (state, event), after in table.items():
        arrows[state, after].append(str(event))
    lines = [f"    {state} --> {after}: {', '.join(events)}" for (state, after), events in arrows.items()]
    ends = [f"    {state} --> [*]" for state in sorted(last)]
    return ["```mermaid", "stateDiagram-v2", f"    [*] --> {first}", *lines, *ends, "```"]


def meanings(what: str, words: type[StrEnum]) -> list[str]:
    """Return a table of what each member means, from the comment beside it."""
    comments = dict(_COMMENT.findall(inspect.getsource(words)))
    rows = [f"| `{word}` | {comments[word].split('  # noqa')[0]} |" for word in words]
    return [f"| {what} | meaning |", "|---|---|", *rows]


if __name__ == "__main__":
    sys.stdout.write(page())
