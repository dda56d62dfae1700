"""What people call a bundle: ``quality:1.4.0 (1a2b3c4d5e6f)``, in logs and in what the service manager shows.

The name is the bundle's own, from its stored ``bundle.json``; the digest is its true name, cut to what tells bundles
apart. Messages and ``--json`` carry whole digests.
"""

from __future__ import annotations

from shoal_agent.ports import BlobStore
from shoal_protocol.bundle.layout import BUNDLE_JSON
from shoal_protocol.bundle.schema import parse_bundle_info
from shoal_protocol.errors import ShoalError

_SHOWN_DIGITS = 12


def stored_name(store: BlobStore, digest: str) -> str | None:
    """Return ``name:version`` of a bundle; none where that much of it is not stored, or can't be read."""
    try:
        manifest = store.manifest(digest)
        blob = None if manifest is None else manifest.files().get(BUNDLE_JSON)
        if blob is None:
            return None
        info = parse_bundle_info(store.read(blob.digest))
    except (OSError, ShoalError):
        return None
    return f"{info.name}:{info.version}"


def shown(digest: str, name: str | None) -> str:
    """Return how a bundle is shown to people.

    Args:
        digest: Of the bundle.
        name: ``name:version``; none or empty: nobody knows it here.
    """
    short = digest.removeprefix("sha256:")[:_SHOWN_DIGITS]
    return f"{name} ({short})" if name else f"bundle {short}"


def shown_stored(store: BlobStore, digest: str, known: str | None = None) -> str:
    """Return how a bundle is shown to people, by what is stored of it.

    Args:
        store: Where it may be stored.
        digest: Of the bundle.
        known: What else is known of its name, where it is not stored.
    """
    return shown(digest, stored_name(store, digest) or known)
