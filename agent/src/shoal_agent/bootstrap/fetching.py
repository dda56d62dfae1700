"""What downloads, made at the first download: a start without one saves its four modules, a fiftieth of its work."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import cached_property
from pathlib import Path

from shoal_agent.adapters.http_client import HttpClient
from shoal_agent.bootstrap.base import Base
from shoal_agent.ports import Cancelled, Fetcher, HeldBlob
from shoal_protocol.bundle.manifest import Descriptor

_MOST_PATCH_BYTES = 256 << 20


class LaterFetcher:
    """A fetcher that is made when it is first asked for something.

    Args:
        make: Makes it.
    """

    def __init__(self, make: Callable[[], Fetcher]) -> None:
        self._make = make

    @cached_property
    def _fetcher(self) -> Fetcher:
        return self._make()

    def manifest(self, model: str, digest: str, *, size: int) -> bytes:
        """See `shoal_agent.ports.Fetcher`."""
        return self._fetcher.manifest(model, digest, size=size)

    def blob(
        self, model: str, blob: Descriptor, part: Path, *, cancelled: Cancelled, held: HeldBlob | None = None,
        came: Callable[[float], None] = lambda _share: None,
    ) -> None:  # fmt: skip
        """See `shoal_agent.ports.Fetcher`."""
        self._fetcher.blob(model, blob, part, cancelled=cancelled, held=held, came=came)


def make_fetcher(base: Base) -> Fetcher:
    """Make what downloads from the server and its mirrors."""
    from shoal_agent.adapters.download import OciFetcher  # noqa: PLC0415 - see the module's docstring
    from shoal_agent.adapters.sources import Sources  # noqa: PLC0415 - likewise
    from shoal_agent.adapters.transfer import Pace, Transfers  # noqa: PLC0415 - likewise

    settings, monotonic = base.settings, base.overrides.monotonic

    def connect(url: str) -> HttpClient:
        return HttpClient(
            url,
            ca_file=base.ca_file,
            certificate_time=base.certificate_time,
            system_too=True,
            lines=base.http.lines,
        )

    patch_bytes = settings.download_patch_bytes
    if patch_bytes is None:
        patch_bytes = min(base.facts.memory_bytes // 8, _MOST_PATCH_BYTES)
    pace = Pace(max_bytes_per_s=settings.download_max_bytes_per_s)
    return OciFetcher(
        Sources(base.http, settings.download_mirrors, connect=connect, clock=monotonic),
        Transfers(pace, clock=monotonic, pause=time.sleep),
        patch_bytes=patch_bytes,
    )
