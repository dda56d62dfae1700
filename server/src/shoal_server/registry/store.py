"""Queries over versions and aliases of models."""

from collections.abc import Iterator

from sqlmodel import Session, col, func, or_, select

from shoal_protocol.refs import parse_ref
from shoal_server.errors import NotFoundError
from shoal_server.outbox import EventType
from shoal_server.registry.announcements import announce_alias, announce_version
from shoal_server.registry.needs import Need
from shoal_server.registry.tables import AliasChange, DeletedVersion, ModelAlias, ModelVersion
from shoal_server.registry.versions import ResolvedBundle
from shoal_server.storage.database import lock_for_transaction


def resolve(session: Session, ref: str) -> ResolvedBundle:
    """Return the bundle that `name:1.4.0`, `name@champion` or `name@sha256:…` names now.

    Raises:
        CallerError: the text is no reference.
        NotFoundError: there is no such model, version, alias or digest.
    """
    parsed = parse_ref(ref)
    if parsed.digest is not None:
        query = select(ModelVersion).where(ModelVersion.model == parsed.name, ModelVersion.digest == parsed.digest)
        row = session.exec(query).first()
        if row is None:
            raise NotFoundError(f"no version of {parsed.name} has the digest {parsed.digest}")
        return _resolved(row)
    wanted = parsed.version
    if parsed.alias is not None:
        wanted = alias(session, parsed.name, parsed.alias).version
    return _resolved(version(session, parsed.name, wanted or ""))


def models(session: Session, *, after: str | None = None, limit: int = 100, matching: str = "") -> list[str]:
    """Return up to `limit` names of models, in order, after the name `after`.

    Args:
        session: Of any transaction.
        after: The last name of the page before.
        limit: Names at most.
        matching: Only models with this text, in any case, in name, a version, an alias, the framework or the task.
    """
    query = select(ModelVersion.model).distinct().order_by(col(ModelVersion.model)).limit(limit)
    if after is not None:
        query = query.where(col(ModelVersion.model) > after)
    if matching:
        columns = (ModelVersion.model, ModelVersion.version, ModelVersion.framework, ModelVersion.task)
        by_alias = select(ModelAlias.model).where(
            func.lower(ModelAlias.alias).contains(matching.lower(), autoescape=True)
        )
        said = [func.lower(column).contains(matching.lower(), autoescape=True) for column in columns]
        query = query.where(or_(*said, col(ModelVersion.model).in_(by_alias)))
    return list(session.exec(query))


def version(session: Session, model: str, name: str) -> ModelVersion:
    """Return one version; raises `NotFoundError`."""
    found = session.get(ModelVersion, (model, name))
    if found is None:
        raise NotFoundError(
            f"there is no version {name!r} of {model!r}", hint="list them with: shoalctl model show NAME"
        )
    return found


def find_version(session: Session, model: str, name: str) -> ModelVersion | None:
    """Return one version, None when it doesn't exist."""
    return session.get(ModelVersion, (model, name))


def version_of_digest(session: Session, digest: str) -> ModelVersion | None:
    """Return the version with this digest, None when no model has it."""
    return session.exec(select(ModelVersion).where(ModelVersion.digest == digest)).first()


def versions(
    session: Session, model: str, *, below_counter: int | None = None, limit: int | None = None
) -> list[ModelVersion]:
    """Return a model's versions, the newest first."""
    query = select(ModelVersion).where(ModelVersion.model == model).order_by(col(ModelVersion.counter).desc())
    if below_counter is not None:
        query = query.where(ModelVersion.counter < below_counter)
    return list(session.exec(query.limit(limit)))


def digest_of_name(session: Session, model: str, name: str) -> str | None:
    """Return the digest for which a version's name is taken, also by a version that was deleted; None: it is free."""
    found = session.get(ModelVersion, (model, name)) or session.get(DeletedVersion, (model, name))
    return None if found is None else found.digest


def used_counters(session: Session, model: str) -> list[int]:
    """Return the release counters that a model's versions have or had."""
    present = session.exec(select(ModelVersion.counter).where(ModelVersion.model == model)).all()
    return [*present, *session.exec(select(DeletedVersion.counter).where(DeletedVersion.model == model))]


def remove_version(session: Session, row: ModelVersion, *, by: str, now: float) -> None:
    """Delete a version; its name stays taken for its digest. The caller holds `lock_model`."""
    session.merge(
        DeletedVersion(
            model=row.model,
            version=row.version,
            digest=row.digest,
            counter=row.counter,
            deleted_at=now,
            deleted_by=by,
        )
    )
    session.delete(row)


def alias_needs(session: Session) -> Iterator[Need]:
    """Go through the bundles that aliases name."""
    query = select(ModelVersion.digest, ModelAlias.model, ModelAlias.alias).where(
        ModelAlias.model == ModelVersion.model, ModelAlias.version == ModelVersion.version
    )
    for digest, model, name in session.exec(query):
        yield Need(digest, f"alias {model}@{name}")


def add_version(session: Session, row: ModelVersion) -> None:
    """Write down a version that was admitted; the caller holds `lock_model`."""
    session.add(row)
    session.flush()
    announce_version(session, EventType.MODEL_PUSHED, row, actor=row.created_by, now=row.created_at)


def lock_model(session: Session, model: str) -> None:
    """Keep other pushes of this model waiting until the transaction ends."""
    lock_for_transaction(session, f"model {model}")


def alias(session: Session, model: str, name: str) -> ModelAlias:
    """Return what an alias points at; raises `NotFoundError`."""
    found = session.get(ModelAlias, (model, name))
    if found is None:
        raise NotFoundError(f"the model {model!r} has no alias {name!r}")
    return found


def aliases(session: Session, model: str) -> list[ModelAlias]:
    """Return a model's aliases, by name."""
    query = select(ModelAlias).where(ModelAlias.model == model).order_by(col(ModelAlias.alias))
    return list(session.exec(query))


def set_alias(session: Session, *, model: str, name: str, version_name: str, by: str, now: float) -> str | None:
    """Point an alias at a version and remember what it pointed at before.

    Returns:
        The version it pointed at until now, None when it is new; nothing is written when it stays the same.

    Raises:
        NotFoundError: there is no such version.
    """
    digest = version(session, model, version_name).digest
    lock_model(session, model)
    found = session.get(ModelAlias, (model, name), with_for_update=True)
    before = None if found is None else found.version
    if before == version_name:
        return before
    session.merge(ModelAlias(model=model, alias=name, version=version_name, set_at=now, set_by=by))
    session.add(AliasChange(model=model, alias=name, version=version_name, at=now, by=by))
    announce_alias(
        session, model=model, alias=name, before=before, after=version_name, digest=digest, actor=by, now=now
    )
    return before


def remove_alias(session: Session, *, model: str, name: str, by: str, now: float) -> str:
    """Take an alias away; returns what it pointed at; raises `NotFoundError`."""
    found = alias(session, model, name)
    session.delete(found)
    session.add(AliasChange(model=model, alias=name, version=None, at=now, by=by))
    announce_alias(session, model=model, alias=name, before=found.version, after=None, digest=None, actor=by, now=now)
    return found.version


def alias_history(session: Session, model: str, name: str) -> list[AliasChange]:
    """Return what an alias pointed at and since when, the newest first."""
    query = select(AliasChange).where(AliasChange.model == model, AliasChange.alias == name)
    return list(session.exec(query.order_by(col(AliasChange.id).desc())))


def _resolved(row: ModelVersion) -> ResolvedBundle:
    return ResolvedBundle(row.model, row.version, row.digest)
