"""Read what a fleet counted into numpy: a median by site and hour, with the bounds that the counts give.

    shoalctl drift export quality --since 7d --output windows.npz
    python examples/read_windows.py windows.npz [FEATURE [LABEL]]

LABEL is a label or fact of devices to group by, ``site`` where it is left out; a fleet in which no device has it is one
group. With SHOAL_URL and SHOAL_TOKEN set, a slot's name instead of the file asks the server.
"""

import os
import sys
from pathlib import Path

import numpy as np

from shoal_server.analysis import Recording, Windows, fetch_windows, read_windows


def recording_of(source: str) -> Recording:
    """Read a file, or ask the server for a slot."""
    if Path(source).suffix in {".jsonl", ".npz"}:
        return read_windows(source)
    return fetch_windows(os.environ["SHOAL_URL"], slot=source, token=os.environ.get("SHOAL_TOKEN"))


def groups_of(windows: Windows, label: str) -> np.ndarray:
    """Return the group of each window: the label of its device, or one for all where no device has such a label."""
    if any(label in facts for facts in windows.facts.values()):
        return np.where(windows.fact(label) == "", f"(no {label})", windows.fact(label))
    return np.full(len(windows), "fleet")


def print_medians(windows: Windows, feature: str, groups: np.ndarray) -> None:
    """Print the median of a feature by group, hour by hour."""
    hours = windows.start.astype("datetime64[h]")
    for group in np.unique(groups):
        for hour in np.unique(hours):
            chosen = windows.select((groups == group) & (hours == hour))
            if chosen.n.sum():
                median = chosen.quantile(feature, 0.5)
                print(f"  {hour} {group:10} {feature} {median.value:8.4g} ({median.low:.4g} to {median.high:.4g})")


def main() -> None:
    """Tell of every bundle that the windows are of."""
    source, wanted, label = (*sys.argv[1:4], *("", "", "site")[len(sys.argv) - 1 :])
    recording = recording_of(source)
    for windows in recording.by_digest.values():
        print(f"{windows.name} in slot {recording.slot}: {len(windows)} windows, {windows.n.sum():,} rows")
        numeric = [name for name in windows.features if np.isfinite(windows.edges(name)[2:-1]).any()]
        if wanted or numeric:
            print_medians(windows, wanted or numeric[0], groups_of(windows, label))
        else:
            print("  none of its features is a number")


if __name__ == "__main__":
    main()
