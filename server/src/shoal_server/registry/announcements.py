"""Models as events for webhooks: what was pushed, where aliases point, what is denied."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from sqlmodel import Session

from shoal_server.outbox import Event, EventType, announce
from shoal_server.outbox.event_types import ModelData
from shoal_server.outbox.places import page_of
from shoal_server.registry.tables import ModelVersion

_TITLES: Mapping[EventType, str] = MappingProxyType(
    {
        EventType.MODEL_PUSHED: "{name} was pushed",
        EventType.MODEL_DENIED: "{name} was denied: no device installs it or goes back to it",
        EventType.MODEL_ALLOWED: "{name} is allowed again",
    }
)


def announce_version(session: Session, type_: EventType, row: ModelVersion, *, actor: str, now: float) -> None:
    """Announce what became of a version, in the transaction that changes it."""
    name = f"{row.model}:{row.version}"
    data = ModelData(model=row.model, version=row.version, digest=row.digest, alias=None, previous=None, actor=actor)
    announce(
        session,
        Event(
            type=type_,
            subject=f"model:{name}",
            title=_TITLES[type_].format(name=name),
            text=f"By {actor}; {row.digest}",
            page=page_of(f"model:{row.model}"),
            data=data,
            at=now,
        ),
    )


def announce_alias(
    session: Session,
    *,
    model: str,
    alias: str,
    before: str | None,
    after: str | None,
    digest: str | None,
    actor: str,
    now: float,
) -> None:
    """Announce where an alias points now, in the transaction that moves it.

    Args:
        session: Of an open write transaction.
        model: Whose alias.
        alias: Its name.
        before: Version that it pointed at; None: it is new.
        after: Version that it points at; None: it was taken away.
        digest: Of that version.
        actor: Who did it.
        now: Seconds since the epoch.
    """
    ref = f"{model}@{alias}"
    title = f"{ref} points at {after}" if after is not None else f"{ref} was taken away"
    announce(
        session,
        Event(
            type=EventType.MODEL_ALIAS_MOVED,
            subject=f"model:{ref}",
            title=title,
            text=f"By {actor}" + (f"; before: {before}" if before is not None else ""),
            page=page_of(f"model:{model}"),
            data=ModelData(model=model, version=after, digest=digest, alias=alias, previous=before, actor=actor),
            at=now,
        ),
    )
