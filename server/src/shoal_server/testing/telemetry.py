"""Windows for tests: small, and valid in every part."""

from __future__ import annotations

from typing import Any

import numpy as np

from shoal_protocol.profile.codec import ProfileMessage, encode_counts, encode_profile
from shoal_protocol.profile.grid import CategoricalGrid, unit_interval_grid
from shoal_protocol.profile.profile import ProfileSpec, Stream, summarise

EPOCH = "0123456789abcdef"
DIGEST = "sha256:" + "ab" * 32
START_MS = 1_799_999_700_000
"""Five minutes before the time at which the tests' clock stands."""

SPEC = ProfileSpec(
    (
        Stream("confidence", "output", unit_interval_grid(bins=16), "scores", None, "row_max"),
        Stream("label", "output", CategoricalGrid(("0", "1")), "label"),
    )
)


def profile_message(**changes: Any) -> ProfileMessage:
    """Return a window of `SPEC` with `n` rows; `changes` are its fields."""
    n = changes.get("n", 10)
    rows = min(n, 1000)
    scores = np.linspace(0.0, 1.0, rows, dtype=np.float32).reshape(rows, 1)
    profile = summarise(SPEC, {"scores": scores, "label": np.arange(rows) % 2})
    fields: dict[str, Any] = {
        "epoch": EPOCH,
        "boot": 1,
        "seq": 1,
        "sent_at": START_MS + 300_000,
        "slot": "quality",
        "digest": DIGEST,
        "spec_hash": SPEC.hash,
        "start_ms": START_MS,
        "length_ms": 300_000,
        "n": n,
        "errors": 0,
        "latency": (0, 0, 0, rows),
        "resources": {"cpu_s": 0.5},
        "body": encode_counts(profile.cells, profile.moments),
    }
    return ProfileMessage(**{**fields, **changes})


def profile_payload(**changes: Any) -> bytes:
    """Return the bytes of `profile_message`."""
    return encode_profile(profile_message(**changes))
