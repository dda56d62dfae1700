"""Sampled rows: raw inputs with what the model said, sent over HTTP only while the signed assignment allows it.

Owns the wire form, JSON, and its limits. A batch is told again after a transport fault with the same `batch`, so that
it is stored once.
"""

from __future__ import annotations

import re
from typing import Any, Literal

import msgspec

from shoal_protocol.canonical import parse_digest
from shoal_protocol.errors import ContentError

SAMPLES_PATH = "/api/v1/device/samples"
MAX_BATCH_ROWS = 256
MAX_BATCH_BYTES = 512 * 1024
MAX_ROW_BYTES = 32 * 1024

Reason = Literal["random", "low_confidence", "out_of_range"]


class SampledRow(msgspec.Struct, frozen=True, kw_only=True):
    """One row.

    Attributes:
        at: When it was answered, milliseconds since the epoch by the device's clock.
        reason: Why it was chosen.
        inputs: By feature; a missing value is None.
        outputs: By output tensor.
    """

    at: int
    reason: Reason
    inputs: dict[str, Any]
    outputs: dict[str, Any]


class SampleBatch(msgspec.Struct, frozen=True, kw_only=True):
    """Rows of one model in one slot.

    Attributes:
        batch: 32 hexadecimal digits, drawn by the device.
        slot: Where it answered.
        digest: Of the bundle.
        seen: Rows that were answered since the batch before.
        dropped: Rows that were chosen, but found no room.
        rows: The rows.
    """

    batch: str
    slot: str
    digest: str
    seen: int = 0
    dropped: int = 0
    rows: tuple[SampledRow, ...]


def parse_samples(raw: bytes) -> SampleBatch:
    """Parse a batch from a device.

    Raises:
        ContentError: It does not parse, or is over a limit.
    """
    if len(raw) > MAX_BATCH_BYTES:
        raise ContentError(f"a batch of samples has at most {MAX_BATCH_BYTES} bytes, got {len(raw)}")
    try:
        found = msgspec.json.decode(raw, type=SampleBatch)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ContentError(f"samples: {error}") from error
    if not re.fullmatch("[0-9a-f]{32}", found.batch) or not 0 < len(found.slot) <= 64:
        raise ContentError(f"samples: batch {found.batch!r:.60}, slot {found.slot!r:.80}")
    parse_digest(found.digest)
    if not 0 < len(found.rows) <= MAX_BATCH_ROWS or min(found.seen, found.dropped) < 0:
        raise ContentError(f"samples: {len(found.rows)} rows, expected 1 to {MAX_BATCH_ROWS}")
    return found
