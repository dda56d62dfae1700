"""Many windows as arrays, so that a fleet is summed in one call. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from shoal_protocol.errors import ContentError
from shoal_protocol.profile.profile import ProfileSpec
from shoal_server.telemetry.store import StoredWindow

Numbers: TypeAlias = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class WindowArrays:
    """W windows counted on one spec, in the order in which they were given.

    Attributes:
        devices: Device of each window.
        digests: Bundle of each window.
        n: Rows, int64[W].
        cells: Coarse counts, int64[W, spec.size].
        moments: Sums of cell index and its square, int64[W, streams, 2].
        start_ms: Begin, int64[W].
        damaged: How many windows were left out because their counts are not what the spec can give.
    """

    devices: list[str]
    digests: list[str]
    n: Numbers
    cells: Numbers
    moments: Numbers
    start_ms: Numbers
    damaged: int

    def __len__(self) -> int:
        return len(self.devices)


def stack(windows: Iterable[StoredWindow], spec: ProfileSpec) -> WindowArrays:
    """Decode the windows that were counted on a spec; those of other specs are left out.

    Args:
        windows: Any windows.
        spec: The layout wanted.
    """
    kept, profiles, damaged = [], [], 0
    for window in windows:
        if window.spec_hash != spec.hash:
            continue
        try:
            profiles.append(window.message.profile(spec))
        except ContentError:
            damaged += 1
            continue
        kept.append(window)
    streams = len(spec.streams)
    return WindowArrays(
        devices=[window.device for window in kept],
        digests=[window.digest for window in kept],
        n=np.array([window.n for window in kept], np.int64),
        cells=np.array([p.cells for p in profiles], np.int64).reshape(len(kept), spec.size),
        moments=np.array([p.moments for p in profiles], np.int64).reshape(len(kept), streams, 2),
        start_ms=np.array([window.start_ms for window in kept], np.int64),
        damaged=damaged,
    )
