"""Which programs the configuration names as hooks, and which of them can't be run by this user as things stand.

Owns the look before anything happens, for those who tell about it: the start, `doctor` and `config show`. Running one
is `shoal_agent.adapters.hooks`'s; that a veto hook which can't be run lets nothing through is
`shoal_agent.updating.leave`'s.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from shoal_agent.domain.occasion import HookKind

if TYPE_CHECKING:
    from shoal_agent.settings import Settings


def programs(settings: Settings) -> dict[HookKind, Path]:
    """Return the program of each hook that is configured."""
    named = {
        HookKind.VETO: settings.hooks_veto,
        HookKind.ON_ACTIVATE: settings.hooks_on_activate,
        HookKind.ON_ROLLBACK: settings.hooks_on_rollback,
    }
    return {kind: Path(path) for kind, path in named.items() if path}


def faults(hooks: Mapping[HookKind, Path]) -> list[str]:
    """Say of each hook that can't be run why, and what follows from it."""
    return [f"hooks.{kind} = {path} {why}; {_FOLLOWS[kind]}" for kind, path in hooks.items() if (why := _fault(path))]


_FOLLOWS: Mapping[HookKind, str] = {
    HookKind.VETO: "until it can be run, no update is activated",
    HookKind.ON_ACTIVATE: "updates go on without it",
    HookKind.ON_ROLLBACK: "the way back goes on without it",
}


def _fault(path: Path) -> str:
    if not os.path.lexists(path):
        return "is not there"
    if not path.is_file():
        return "is no file"
    return "" if os.access(path, os.X_OK) else "is not executable by this user"
