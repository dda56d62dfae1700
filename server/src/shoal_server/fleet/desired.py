"""What a device should run, as the document that is signed for it.

Owns the lifetime of an assignment and the decision when it is signed again. Leaves keys to the registry's trust
service, storing to `assignments`, sending to `publisher`.

Invariants: a document that is only signed again keeps its generation and content; it is signed again when half of its
life is over, so that a device that listens never holds an expired one.
"""

from __future__ import annotations

from collections.abc import Mapping

from shoal_protocol.trust.assignment import Assignment, SlotTarget

LIFETIME_S = 14 * 86_400.0
"""How long a signed assignment allows new installs; an expired one never stops a running model."""


def compose(
    device: str,
    *,
    generation: int,
    slots: Mapping[str, SlotTarget],
    now: float,
    credential: int = 0,
    lifetime_s: float = LIFETIME_S,
) -> Assignment:
    """Return the assignment to sign.

    Args:
        device: Whom it is for.
        generation: From 1, grows with every change of `slots` and `credential`.
        slots: What each slot should run.
        now: Seconds since the epoch.
        credential: Number of the credentials that it should hold; 0: any.
        lifetime_s: Seconds until it expires.
    """
    return Assignment(
        device=device,
        generation=generation,
        slots=dict(sorted(slots.items())),
        issued=int(now * 1000),
        expires=int((now + lifetime_s) * 1000),
        credential=credential,
    )


def half_life(*, issued_at: float, expires_at: float) -> float:
    """Return the instant from which a document is signed again, seconds since the epoch."""
    return issued_at + (expires_at - issued_at) / 2


def next_generation(*, own: int, reported: int) -> int:
    """Return the generation of the next change.

    After a restore from backup the devices report higher generations than the server knows; it continues above both.
    """
    return max(own, reported) + 1
