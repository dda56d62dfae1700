"""Queries over repositories as the OCI distribution API sees them: blobs, manifests, tags, referrers."""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from sqlalchemy import or_, update
from sqlmodel import Session, col, delete, select, union

from shoal_server.errors import NotFoundError
from shoal_server.registry.oci_documents import OciDocument
from shoal_server.registry.tables import ModelAlias, ModelVersion, OciBlob, OciManifest, OciTag
from shoal_server.storage.database import insert_ignore, lock_for_transaction


@dataclass(frozen=True)
class StoredManifest:
    """A manifest that a reference names."""

    digest: str
    media_type: str
    size: int


def lock_contents(session: Session) -> None:
    """Keep others from linking or collecting until the transaction ends, so that what was seen stays true."""
    lock_for_transaction(session, "registry contents")


def link_blob(session: Session, repository: str, digest: str, *, size: int, now: float) -> None:
    """Let a blob be pulled from a repository; the caller holds `lock_contents` and has seen that it is stored."""
    values = {"repository": repository, "digest": digest, "size": size, "touched_at": now}
    if not insert_ignore(session, OciBlob, values):
        touch_blob(session, repository, digest, now=now)


def touch_blob(session: Session, repository: str, digest: str, *, now: float) -> None:
    """Note that somebody relies on a blob for a push that is under way."""
    row = session.get(OciBlob, (repository, digest), with_for_update=True)
    if row is not None and row.touched_at < now:
        row.touched_at = now
        session.add(row)


def blob_touched_at(session: Session, repository: str, digest: str) -> float | None:
    """Return when a blob of a repository was relied on last, None when it has no such blob."""
    row = session.get(OciBlob, (repository, digest))
    return None if row is None else row.touched_at


def blob_size(session: Session, repository: str, digest: str) -> int | None:
    """Return the length of a blob of a repository, None when it has no such blob."""
    row = session.get(OciBlob, (repository, digest))
    return None if row is None else row.size


def is_known(session: Session, digest: str) -> bool:
    """Tell whether any repository has a blob or manifest of this digest."""
    anywhere = (
        select(OciBlob.digest).where(OciBlob.digest == digest).limit(1),
        select(OciManifest.digest).where(OciManifest.digest == digest).limit(1),
    )
    return any(session.exec(query).first() is not None for query in anywhere)


def may_pull(session: Session, repository: str, digest: str, allowed: Collection[str]) -> bool:
    """Tell whether a manifest or blob belongs to one of some bundles, or to what was said about them.

    Args:
        session: Of any transaction.
        repository: Where it is pulled from.
        digest: Of the manifest or blob.
        allowed: Digests of the bundles.
    """
    mine = select(OciManifest).where(
        OciManifest.repository == repository,
        or_(col(OciManifest.digest).in_(allowed), col(OciManifest.subject).in_(allowed)),
    )
    return any(digest == row.digest or digest in row.blobs for row in session.exec(mine))


def has_blob(session: Session, repository: str, digest: str) -> bool:
    """Tell whether the blob may be pulled from the repository."""
    return session.get(OciBlob, (repository, digest)) is not None


def has_manifest(session: Session, repository: str, digest: str) -> bool:
    """Tell whether the repository has the manifest."""
    return session.get(OciManifest, (repository, digest)) is not None


def add_manifest(
    session: Session, repository: str, digest: str, document: OciDocument, *, size: int, now: float
) -> None:
    """Write down a manifest whose bytes are stored; the same again only says that it is in use."""
    values: dict[str, Any] = {
        "repository": repository,
        "digest": digest,
        "media_type": document.media_type,
        "artifact_type": document.artifact_type,
        "subject": document.subject,
        "size": size,
        "annotations": document.annotations,
        "blobs": list(document.blobs),
        "manifests": list(document.manifests),
        "touched_at": now,
    }
    if not insert_ignore(session, OciManifest, values):
        session.exec(
            update(OciManifest)
            .where(col(OciManifest.repository) == repository, col(OciManifest.digest) == digest)
            .values(touched_at=now)
        )


def manifest(session: Session, repository: str, reference: str) -> StoredManifest:
    """Return the manifest that a digest or tag names now.

    Raises:
        NotFoundError: the repository has no such manifest.
    """
    digest = reference if ":" in reference else tagged(session, repository, reference)
    found = None if digest is None else session.get(OciManifest, (repository, digest))
    if found is None:
        raise NotFoundError(f"{repository} has no manifest {reference}", oci_code="MANIFEST_UNKNOWN")
    return StoredManifest(found.digest, found.media_type, found.size)


def tagged(session: Session, repository: str, tag: str) -> str | None:
    """Return the digest that a tag names: a version, an alias, or a plain tag."""
    version = session.get(ModelVersion, (repository, tag))
    if version is None and (alias := session.get(ModelAlias, (repository, tag))) is not None:
        version = session.get(ModelVersion, (repository, alias.version))
    if version is not None:
        return version.digest
    plain = session.get(OciTag, (repository, tag))
    return None if plain is None else plain.digest


def set_tag(session: Session, repository: str, tag: str, digest: str) -> None:
    """Point a plain tag at a manifest."""
    session.merge(OciTag(repository=repository, tag=tag, digest=digest))


def tags(session: Session, repository: str, *, after: str = "", limit: int | None = None) -> list[str]:
    """Return up to `limit` tags of all kinds in lexical order, after the tag `after`.

    Raises:
        NotFoundError: nothing was ever pushed to the repository.
    """
    known = select(OciManifest.digest).where(OciManifest.repository == repository).limit(1)
    if session.exec(known).first() is None:
        raise NotFoundError(f"there is no repository {repository!r}", oci_code="NAME_UNKNOWN")
    every = union(
        select(ModelVersion.version.label("tag")).where(ModelVersion.model == repository),  # type: ignore[attr-defined]  # a column
        select(ModelAlias.alias).where(ModelAlias.model == repository),
        select(OciTag.tag).where(OciTag.repository == repository),
    )
    # Sorted here and not by the database, whose order would depend on its locale.
    found = sorted(str(row[0]) for row in session.execute(every))
    return [tag for tag in found if tag > after][:limit]


def referrers(
    session: Session, repository: str, subject: str, *, artifact_type: str | None = None
) -> list[OciManifest]:
    """Return the manifests that say something about `subject`, in a stable order."""
    query = select(OciManifest).where(OciManifest.repository == repository, OciManifest.subject == subject)
    if artifact_type is not None:
        query = query.where(OciManifest.artifact_type == artifact_type)
    return list(session.exec(query.order_by(col(OciManifest.digest))))


def remove_tag(session: Session, repository: str, tag: str) -> bool:
    """Take a plain tag away; False when there is none."""
    found = session.get(OciTag, (repository, tag))
    if found is not None:
        session.delete(found)
    return found is not None


def remove_manifest(session: Session, repository: str, digest: str) -> None:
    """Forget a manifest and the plain tags that name it."""
    session.exec(delete(OciTag).where(col(OciTag.repository) == repository, col(OciTag.digest) == digest))
    session.exec(
        delete(OciManifest).where(col(OciManifest.repository) == repository, col(OciManifest.digest) == digest)
    )
