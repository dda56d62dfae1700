"""All recorded windows of a slot: a header, and the windows as arrays by bundle. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np

from shoal_protocol.errors import CallerError, ContentError
from shoal_protocol.profile.recording import Header, RecordedWindow
from shoal_server.analysis.windows import Windows


@dataclass(frozen=True, eq=False)
class Recording:
    """Recorded windows of one slot.

    Attributes:
        header: References, devices, settings, alerts.
        by_digest: The windows of each bundle, by its digest.
        damaged: Windows that were left out, because their counts are not what their bundle can give.
    """

    header: Header
    by_digest: dict[str, Windows] = field(default_factory=dict)
    damaged: int = 0

    @classmethod
    def of(cls, header: Header, windows: Iterable[RecordedWindow]) -> Recording:
        """Sort windows by bundle, and check them."""
        references = {digest: bundle.parsed() for digest, bundle in header.bundles.items()}
        kept: dict[str, list[RecordedWindow]] = {digest: [] for digest in references}
        damaged = 0
        for window in windows:
            reference = references.get(window.digest)
            try:
                if reference is None:
                    raise ContentError(f"nothing is known of the bundle {window.digest}")
                window.profile(reference.spec)
            except ContentError:
                damaged += 1
                continue
            kept[window.digest].append(window)
        found = {
            digest: Windows.of(
                mine,
                digest=digest,
                name=header.bundles[digest].name,
                reference=references[digest],
                facts=header.devices,
            )
            for digest, mine in kept.items()
        }
        return cls(header, found, damaged)

    @property
    def slot(self) -> str:
        """Whose windows these are."""
        return self.header.slot

    @property
    def bundles(self) -> dict[str, str]:
        """Digest of each bundle by its name."""
        return {bundle.name: digest for digest, bundle in self.header.bundles.items()}

    def __repr__(self) -> str:
        windows = "".join(f"\n  {one!r}" for one in self.by_digest.values())
        damaged = f"\n  {self.damaged:,} damaged windows were left out" if self.damaged else ""
        return f"<Recording of slot {self.slot}>{windows}{damaged}"

    def __len__(self) -> int:
        return sum(len(windows) for windows in self.by_digest.values())

    def windows(self, bundle: str | None = None) -> Windows:
        """Return one bundle's windows.

        Args:
            bundle: Name such as ``quality:1.4.0``, or digest; left out: the only one that has windows.

        Raises:
            CallerError: There is none of that name, or several and none was named.
        """
        if bundle is not None:
            digest = self.bundles.get(bundle, bundle)
            if digest not in self.by_digest:
                raise CallerError(f"there is no bundle {bundle!r:.80}; there are: {', '.join(self.bundles) or 'none'}")
            return self.by_digest[digest]
        present = [windows for windows in self.by_digest.values() if len(windows)] or list(self.by_digest.values())
        if len(present) != 1:
            raise CallerError(
                f"expected which bundle: {', '.join(self.bundles) or 'there is none'}", hint="windows('name:version')"
            )
        return present[0]

    def times(self) -> tuple[np.datetime64, np.datetime64]:
        """Return from when until when windows were asked for, in UTC."""
        return np.datetime64(self.header.start_ms, "ms"), np.datetime64(self.header.end_ms, "ms")
