"""Which `model:version` a digest is, for pages that show what devices run."""

from collections.abc import Iterable

from sqlmodel import Session

from shoal_server.registry import store
from shoal_server.registry.versions import ResolvedBundle


def names_of(session: Session, digests: Iterable[str | None]) -> dict[str, ResolvedBundle]:
    """Return the bundles among these digests that the registry knows; there are few, however large the fleet."""
    found = {}
    for digest in {digest for digest in digests if digest}:
        row = store.version_of_digest(session, digest)
        if row is not None:
            found[digest] = ResolvedBundle(row.model, row.version, row.digest)
    return found
