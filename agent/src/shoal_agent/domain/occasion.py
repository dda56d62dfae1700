"""What a hook is told about: the document on its standard input, and the same words as environment. Values only."""

from __future__ import annotations

from enum import StrEnum
from typing import Any

import msgspec


class HookKind(StrEnum):
    """When a hook is called."""

    VETO = "veto"  # before a bundle is tested and activated: may say "not now"
    ON_ACTIVATE = "on_activate"  # a new bundle answers, on trial
    ON_ROLLBACK = "on_rollback"  # the slot went back to an earlier bundle


class Occasion(msgspec.Struct, frozen=True, kw_only=True):
    """What happens, or is about to.

    Attributes:
        hook: Which hook is called.
        device: The device's id.
        slot: Which.
        digest: The bundle that is to answer, or answers now; none: nobody answers.
        name: Its ``model:version``, where it is known.
        other: The bundle that answers so far; after a way back the one that was left.
        code: Why the slot went back; empty otherwise.
        message: Likewise, in words.
    """

    hook: HookKind
    device: str
    slot: str
    digest: str | None
    name: str = ""
    other: str | None = None
    code: str = ""
    message: str = ""

    def document(self) -> dict[str, Any]:
        """Return the JSON object for the hook's standard input."""
        return {
            "hook": self.hook.value,
            "device": self.device,
            "slot": self.slot,
            "bundle": {"digest": self.digest, "name": self.name or None},
            "other": {"digest": self.other},
            "reason": {"code": self.code, "message": self.message} if self.code else None,
        }

    def environment(self) -> dict[str, str]:
        """Return the variables that say the same to a shell script."""
        return {
            "SHOAL_HOOK": self.hook.value,
            "SHOAL_DEVICE": self.device,
            "SHOAL_SLOT": self.slot,
            "SHOAL_DIGEST": self.digest or "",
            "SHOAL_BUNDLE": self.name,
            "SHOAL_OTHER_DIGEST": self.other or "",
            "SHOAL_REASON_CODE": self.code,
            "SHOAL_REASON": self.message,
        }
