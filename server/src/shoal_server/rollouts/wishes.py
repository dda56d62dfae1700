"""Carries out a person's wish on a stored rollout, in one transaction."""

from __future__ import annotations

from sqlmodel import Session

from shoal_server.errors import ConflictError
from shoal_server.rollouts import store
from shoal_server.rollouts.carry_out import Circumstances, carry_out
from shoal_server.rollouts.commands import Verb, Wish, command
from shoal_server.rollouts.rollout import Rollout
from shoal_server.storage.database import lock_for_transaction


def act(session: Session, name: str, wish: Wish, about: Circumstances) -> Rollout:
    """Carry out a wish, or find it fulfilled already.

    Args:
        session: Of an open write transaction.
        name: Of the rollout.
        wish: Who wants what, and why.
        about: When, and on whose request.

    Raises:
        NotFoundError: There is no such rollout.
        IllegalEventError, ConflictError: It is not possible now; nothing was changed.
    """
    lock_for_transaction(session, "rollouts")
    found = store.load(session, name, lock="wait")
    assert found is not None
    before = found.rollout
    if wish.verb is Verb.UNDO:
        _check_free(session, before)
    after, effects = command(before, wish, about.now)
    if after == before and not effects:
        return before
    after = carry_out(session, after, effects, about)
    store.save(session, before, after)
    return after


def _check_free(session: Session, rollout: Rollout) -> None:
    """Refuse to take back what another active rollout is just replacing."""
    held = store.holders(session, rollout.slot, apart_from=rollout.name)
    taken = sorted(member.device for member in rollout.touched() if member.device in held)
    if taken:
        other = held[taken[0]]
        raise ConflictError(
            f"the rollout {other} is active on {len(taken)} of these devices, among them {taken[0]}",
            hint=f"end it first: shoalctl rollout abort {other}",
            rollout=other,
        )
