"""The reference profiles of bundles, by digest, as far as they are known.

A digest that devices report may be of a bundle that this registry has never seen: that is no error here, it only means
that there is nothing to compare with.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

from shoal_protocol.profile.reference import Reference
from shoal_server.errors import NotFoundError

References: TypeAlias = Callable[[str], Reference | None]
"""Bundle digest -> the profile of its training data, None when it has none."""


def known(references: References, digest: str | None) -> Reference | None:
    """Return the reference of a bundle, None when there is no bundle, none in this registry, or none in the bundle."""
    if digest is None:
        return None
    try:
        return references(digest)
    except NotFoundError:
        return None
