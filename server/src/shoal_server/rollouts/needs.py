"""Which bundles rollouts still need, and which ones a member may fetch.

Owns what counts: a rollout that isn't over, or that stands as its cohort's assignment, needs its bundle and every
member's way back. One that was rolled back or cancelled needs nothing.
"""

from __future__ import annotations

from collections.abc import Iterator

from sqlmodel import Session, col, select

from shoal_server.registry.needs import Need
from shoal_server.rollouts.machine import RolloutState
from shoal_server.rollouts.tables import MemberRow, RolloutRow

_OVER = (RolloutState.ROLLED_BACK, RolloutState.CANCELLED)


def rollout_needs(session: Session) -> Iterator[Need]:
    """Go through the bundles of rollouts, and those to which their members would return."""
    alive = col(RolloutRow.state).not_in(_OVER)
    for name, state, digest in session.exec(select(RolloutRow.name, RolloutRow.state, RolloutRow.digest).where(alive)):
        yield Need(digest, f"rollout {name} ({state})")
    ways_back = (
        select(MemberRow.rollout, MemberRow.previous)
        .join(RolloutRow, col(RolloutRow.name) == MemberRow.rollout)
        .where(alive, col(MemberRow.previous).is_not(None))
        .distinct()
    )
    for name, previous in session.exec(ways_back):
        if previous is not None:
            yield Need(previous, f"rollout {name} (way back)")


def offered_digests(session: Session, device: str) -> set[str]:
    """Return the bundles of all rollouts that a device is or was a member of, its offer still to come included."""
    query = (
        select(RolloutRow.digest)
        .join(MemberRow, col(MemberRow.rollout) == RolloutRow.name)
        .where(MemberRow.device == device)
    )
    return set(session.exec(query))
