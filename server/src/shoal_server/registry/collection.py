"""Garbage collection: takes away manifests and blobs that nothing refers to any more.

Owns the order of steps. Which references count stands in `reachability`, who needs a bundle in `needs`.

Safe beside pushes, in any number of processes, by one rule: linking a blob or manifest (after seeing that it is
stored) and removing one (after seeing that it is not linked) each happen in a transaction that holds
`oci_store.lock_contents`. What somebody pushed or asked for within the grace time stays, linked or not, because the
manifest that needs it may still be under way. A crash between the steps leaves blobs without a row, which the next
turn finds.
"""

import logging
from collections.abc import Collection, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from time import monotonic
from typing import Any

from sqlmodel import Session, col, delete, select

from shoal_protocol.errors import ContentError
from shoal_server.errors import NotFoundError
from shoal_server.registry import forms, oci_store
from shoal_server.registry.needs import Needs
from shoal_server.registry.oci_documents import parse_document
from shoal_server.registry.reachability import Name, Node, kept_blobs, kept_manifests
from shoal_server.registry.tables import BlobForm, ModelVersion, OciBlob, OciManifest, OciTag
from shoal_server.storage.blobs import BlobStore, DeletesRefusedError
from shoal_server.storage.database import Database

GRACE_S = 24 * 3600.0
"""How long what nothing refers to is kept after it was pushed or asked for."""

_AT_ONCE, _AT_ONCE_S = 50, 0.5
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Collected:
    """What was taken away, or would be."""

    manifests: int = 0
    blobs: int = 0
    bytes: int = 0
    kept_blobs: int = 0
    kept_bytes: int = 0
    dry_run: bool = False
    refused: str = ""
    """Why the store doesn't delete; what nothing refers to is then among what was kept."""

    def as_json(self) -> dict[str, Any]:
        """Return it as JSON."""
        return asdict(self)


class Collector:
    """Collects the garbage of one registry.

    Args:
        database: its database.
        blobs: where its bytes are.
        needs: who needs bundles, versions apart.
    """

    def __init__(self, database: Database, blobs: BlobStore, needs: Needs) -> None:
        self._database = database
        self._blobs = blobs
        self._needs = needs

    def collect(self, *, before: float) -> Collected:
        """Take away what nothing refers to and nobody touched since `before`, seconds since the epoch."""
        self._complete_rows()
        with self._database.write() as session:
            oci_store.lock_contents(session)
            gone_manifests, gone_links = self._garbage(session, before)
            for repository, digest in gone_manifests:
                oci_store.remove_manifest(session, repository, digest)
            for repository, digest in gone_links:
                session.exec(
                    delete(OciBlob).where(col(OciBlob.repository) == repository, col(OciBlob.digest) == digest)
                )
            forms.remove(session, self._stale_forms(session, before, gone_links))
        return self._sweep(before, manifests=len(gone_manifests))

    def plan(self, *, before: float) -> Collected:
        """Tell what `collect` would take away now; changes nothing."""
        with self._database.read() as session:
            gone_manifests, gone_links = self._garbage(session, before)
            links = set(session.exec(select(OciBlob.repository, OciBlob.digest)).all()) - gone_links
            manifests = set(session.exec(select(OciManifest.repository, OciManifest.digest)).all()) - gone_manifests
            coded = forms.stored_forms(session) - {row.form for row in self._stale_forms(session, before, gone_links)}
        linked = {digest for _, digest in links | manifests} | coded
        stored = list(self._blobs.stored())
        gone = [blob for blob in stored if blob.digest not in linked and blob.modified_at < before]
        total, freed = sum(blob.size for blob in stored), sum(blob.size for blob in gone)
        return Collected(
            manifests=len(gone_manifests),
            blobs=len(gone),
            bytes=freed,
            kept_blobs=len(stored) - len(gone),
            kept_bytes=total - freed,
            dry_run=True,
        )

    @staticmethod
    def _stale_forms(session: Session, before: float, gone: set[Name]) -> list[BlobForm]:
        """Return the coded forms that go, given the links that do."""
        links = set(session.exec(select(OciBlob.repository, OciBlob.digest)).all()) - gone
        return forms.stale(session, {digest for _, digest in links}, before=before - forms.PATCH_KEPT_S)

    def _garbage(self, session: Session, before: float) -> tuple[set[Name], set[Name]]:
        """Return the manifests and the links of blobs that may go."""
        rows = session.exec(select(OciManifest)).all()
        nodes = [Node(row.repository, row.digest, tuple(row.blobs), tuple(row.manifests), row.subject) for row in rows]
        needed = {need.digest for need in self._needs(session)}
        roots: set[Name] = set(session.exec(select(ModelVersion.model, ModelVersion.digest)).all())
        roots |= {(row.repository, row.digest) for row in rows if row.digest in needed or row.touched_at >= before}
        tags = session.exec(select(OciTag.repository, OciTag.tag, OciTag.digest)).all()
        kept = kept_manifests(nodes, roots=roots, tags=tags)
        links = session.exec(select(OciBlob.repository, OciBlob.digest).where(OciBlob.touched_at < before)).all()
        gone = {(row.repository, row.digest) for row in rows} - kept
        return gone, set(links) - kept_blobs(nodes, kept)

    def _sweep(self, before: float, *, manifests: int) -> Collected:
        """Remove stored blobs without a row, a few at a time so that pushes hardly wait."""
        stored = list(self._blobs.stored())
        waiting = [blob.digest for blob in stored if blob.modified_at < before]
        removed: set[str] = set()
        refused = ""
        while waiting and not refused:
            with self._database.write() as session:
                oci_store.lock_contents(session)
                try:
                    looked_at = self._remove_some(session, waiting[:_AT_ONCE], before, removed)
                except DeletesRefusedError as error:
                    looked_at, refused = 0, error.message
                    _log.warning("garbage stays: %s; %s", error.message, error.hint)
            waiting = waiting[looked_at:]
        gone = [blob for blob in stored if blob.digest in removed]
        total, freed = sum(blob.size for blob in stored), sum(blob.size for blob in gone)
        return Collected(
            manifests=manifests,
            blobs=len(gone),
            bytes=freed,
            kept_blobs=len(stored) - len(gone),
            kept_bytes=total - freed,
            refused=refused,
        )

    def _remove_some(self, session: Session, digests: Sequence[str], before: float, removed: set[str]) -> int:
        """Remove what has no row, as long as pushes may wait for that; returns how many were looked at."""
        known, until = _known(session, digests), monotonic() + _AT_ONCE_S
        for number, digest in enumerate(digests, start=1):
            if digest not in known and self._blobs.remove(digest, before=before):
                removed.add(digest)
            if monotonic() > until:
                return number
        return len(digests)

    def _complete_rows(self) -> None:
        """Fill in what rows of before this was written down don't say: parts of manifests, sizes of blobs."""
        with self._database.read() as session:
            bare = [row for row in session.exec(select(OciManifest)) if not row.blobs and not row.manifests]
            unsized = session.exec(select(OciBlob).where(OciBlob.size == 0)).all()
        if not bare and not unsized:
            return
        with self._database.write() as session:
            for manifest in bare:
                with suppress(ContentError, NotFoundError), self._blobs.open(manifest.digest) as file:
                    document = parse_document(file.read(), manifest.media_type)
                    manifest.blobs, manifest.manifests = list(document.blobs), list(document.manifests)
                    session.merge(manifest)
            for blob in unsized:
                with suppress(NotFoundError):
                    blob.size = self._blobs.size(blob.digest)
                    session.merge(blob)


def _known(session: Session, digests: Collection[str]) -> set[str]:
    linked = session.exec(select(OciBlob.digest).where(col(OciBlob.digest).in_(digests)))
    coded = session.exec(select(BlobForm.form).where(col(BlobForm.form).in_(digests)))
    return {*linked, *coded, *session.exec(select(OciManifest.digest).where(col(OciManifest.digest).in_(digests)))}
