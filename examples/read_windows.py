"""Read what a fleet counted into numpy: a quantile by site and hour, with the bounds that the counts give.

    shoalctl drift export quality --since 7d --output windows.npz
    python examples/read_windows.py windows.npz [FEATURE]

With SHOAL_URL and SHOAL_TOKEN set, a slot's name instead of the file asks the server.
"""

import os
import sys
from pathlib import Path

import numpy as np

from shoal_server.analysis import Recording, fetch_windows, read_windows


def recording_of(source: str) -> Recording:
    """Read a file, or ask the server for a slot."""
    if Path(source).suffix in {".jsonl", ".npz"}:
        return read_windows(source)
    return fetch_windows(os.environ["SHOAL_URL"], slot=source, token=os.environ.get("SHOAL_TOKEN"))


def main() -> None:
    """Print the median of a feature by site, hour by hour."""
    recording = recording_of(sys.argv[1])
    for windows in recording.by_digest.values():
        numeric = [name for name in windows.features if np.isfinite(windows.edges(name)[2:-1]).any()]
        feature = sys.argv[2] if len(sys.argv) > 2 else numeric[0]
        print(f"{windows.name} in slot {recording.slot}: {len(windows)} windows, {windows.n.sum():,} rows")
        sites, hours = windows.fact("site"), windows.start.astype("datetime64[h]")
        for site in np.unique(sites):
            for hour in np.unique(hours):
                chosen = windows.select((sites == site) & (hours == hour))
                if chosen.n.sum():
                    median = chosen.quantile(feature, 0.5)
                    print(f"  {hour} {site:10} {feature} {median.value:8.4g} ({median.low:.4g} to {median.high:.4g})")


if __name__ == "__main__":
    main()
