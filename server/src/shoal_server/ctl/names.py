"""Digests as `model:version`, looked up once a command."""

from __future__ import annotations

from shoal_server.ctl.client import Client, segment
from shoal_server.ctl.errors import ProblemError
from shoal_server.ctl.output import NOTHING, short_digest


class BundleNames:
    """What the registry calls the bundles that devices report.

    Args:
        client: asked once, when the first digest is named.
    """

    def __init__(self, client: Client) -> None:
        self._client = client
        self._names: dict[str, str] | None = None

    def of(self, digest: str | None) -> str:
        """Return `model:version`, or the shortened digest of a bundle that the registry doesn't know."""
        if not digest:
            return NOTHING
        if self._names is None:
            self._names = self._read()
        return self._names.get(digest) or short_digest(digest)

    def _read(self) -> dict[str, str]:
        try:
            models = [model["name"] for model in self._client.items("/api/v1/models")]
            versions = [v for model in models for v in self._client.items(f"/api/v1/models/{segment(model)}/versions")]
        except ProblemError:
            return {}
        return {version["digest"]: version["ref"] for version in versions}
