"""What a signed list from elsewhere changes here: the states of versions, and what devices have to hear.

Owns the step between the list and the registry's own rows, within the transaction that takes the list in.
"""

from sqlmodel import Session, select

from shoal_protocol.trust.signed_list import SignedList
from shoal_server.outbox import EventType
from shoal_server.registry.announcements import announce_version
from shoal_server.registry.list_rules import Held, state_by_list
from shoal_server.registry.tables import ModelVersion, OciManifest
from shoal_server.registry.versions import VersionState


def held_in(session: Session) -> Held:
    """Return the question what the registry holds under a version."""

    def held(model: str, version: str) -> tuple[str, int] | None:
        row = session.get(ModelVersion, (model, version))
        manifest = None if row is None else session.get(OciManifest, (model, row.digest))
        return None if row is None or manifest is None else (row.digest, manifest.size)

    return held


def follow_list(session: Session, *, before: SignedList, after: SignedList, by: str, now: float) -> list[ModelVersion]:
    """Bring the states of all versions in line with a new list.

    A version that an operator denied here stays denied until it is allowed here, unless the list itself lifts it.

    Args:
        session: Of an open write transaction.
        before: The list until now.
        after: The new one.
        by: Who brought it, for the events that are announced.
        now: Seconds since the epoch.

    Returns:
        The versions that devices may no longer install or return to, and could before.
    """
    barred = []
    for row in session.exec(select(ModelVersion)):
        was = VersionState(row.state)
        here_only = was is VersionState.DENIED and row.digest not in before.deny
        state = state_by_list(after, row.digest, was=was)
        if state is was or (here_only and state is VersionState.RELEASED):
            continue
        if state in {VersionState.DENIED, VersionState.REVOKED} and was is VersionState.RELEASED:
            barred.append(row)
            announce_version(session, EventType.MODEL_DENIED, row, actor=by, now=now)
        elif was is VersionState.DENIED and state is VersionState.RELEASED:
            announce_version(session, EventType.MODEL_ALLOWED, row, actor=by, now=now)
        row.state = state.value
        session.add(row)
    return barred
