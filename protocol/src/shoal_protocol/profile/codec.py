"""The wire form of one window's profile: about a kilobyte for twenty features.

A MessagePack array (fields are only ever appended, so older and newer programs read each other) whose body is the flat
vector of coarse counts, one byte a count with wide counts apart, then the moments in byte planes, compressed by zstd
where that helps. All of it is vectorised both ways: a list of integers would decode twenty times slower.
"""

from __future__ import annotations

import math

import msgspec
import numpy as np
import numpy.typing as npt

from shoal_protocol.bundle.contract import MOST_RULES
from shoal_protocol.canonical import Digest
from shoal_protocol.errors import ContentError
from shoal_protocol.profile.labels import ErrorSums, LabelGroup, check_labels
from shoal_protocol.profile.profile import Counts, Profile, ProfileSpec, check_profile
from shoal_protocol.profile.shadow import ShadowSums, check_shadows
from shoal_protocol.zstandard import zstandard

LATENCY_EDGES_US = (*(m * 10**e for e in range(1, 7) for m in (1, 2, 5)), 10_000_000)
"""Upper edges of the latency counts in microseconds, 10 us to 10 s; one more count is for all beyond."""

LATENCIES = len(LATENCY_EDGES_US) + 1
MAX_CELLS = 1 << 18
MOST_WINDOW_MS = 366 * 86_400_000
"""Longest window: devices merge waiting ones into days, so anything longer is a setting gone wrong, or a lie."""

MOST_VARIANT_CHARACTERS = 200
_FORMAT = 1
_WIDE = 255
_ZSTD_FROM = 200
_RAW, _COMPRESSED = b"\x00", b"\x01"


class ProfileMessage(msgspec.Struct, frozen=True, kw_only=True):
    """One closed window of one slot; immutable, its key is (device, epoch, seq).

    Attributes:
        epoch, boot, seq, sent_at: As in `shoal_protocol.mqtt.messages`.
        slot: The slot that predicted.
        digest: Of the bundle that predicted.
        spec_hash: Of the profile spec that gives the layout of `body`.
        start_ms: Begin of the window, milliseconds since the epoch by the device's clock.
        length_ms: Its length, at most `MOST_WINDOW_MS`.
        n: Rows predicted.
        errors: Predictions that failed.
        latency: Counts of predictions by `LATENCY_EDGES_US`; those that are left out at the end are zero.
        resources: ``cpu_s``, ``rss_bytes`` and the like.
        body: Coded counts; `profile` decodes it.
        labels: Counts of true labels of earlier predictions, whatever bundle and window these are of.
        shadows: How far shadow models agreed with this one.
        violations: Rows that break each rule of the bundle's contract, in its order, then of rules beside it.
        rules: `counting.rules_hash` of the rules beside the bundle's contract; empty: there are none.
        variant: Path of the form of the model that predicted; empty: the canonical one.
    """

    epoch: str
    boot: int
    seq: int
    sent_at: int
    slot: str
    digest: str
    spec_hash: str
    start_ms: int
    length_ms: int
    n: int
    errors: int
    latency: tuple[int, ...]
    resources: dict[str, float]
    body: bytes
    labels: tuple[LabelGroup, ...] = ()
    shadows: tuple[ShadowSums, ...] = ()
    violations: tuple[int, ...] = ()
    rules: str = ""
    variant: str = ""

    @property
    def end_ms(self) -> int:
        """End of the window."""
        return self.start_ms + self.length_ms

    @property
    def order(self) -> tuple[int, int]:
        """Position among the messages of the same epoch."""
        return (self.boot, self.seq)

    def latency_counts(self) -> Counts:
        """Return the counts by `LATENCY_EDGES_US`, int64 of its length + 1."""
        counts = np.zeros(LATENCIES, np.int64)
        counts[: len(self.latency)] = self.latency
        return counts

    def profile(self, spec: ProfileSpec) -> Profile:
        """Decode the counts.

        Raises:
            ContentError: They are not what this spec can give.
        """
        cells, moments = decode_counts(self.body)
        return check_profile(Profile(self.spec_hash, self.n, cells, moments), spec)


class _WireLabels(msgspec.Struct, array_like=True, frozen=True):
    slot: str
    digest: bytes
    start_ms: int
    length_ms: int
    cells: tuple[tuple[int, int, int, int], ...] = ()
    errors: ErrorSums | None = None


class _Wire(msgspec.Struct, array_like=True, frozen=True):
    format: int
    epoch: bytes
    boot: int
    seq: int
    sent_at: int
    slot: str
    digest: bytes
    spec_hash: bytes
    start_ms: int
    length_ms: int
    n: int
    errors: int
    latency: tuple[int, ...]
    resources: dict[str, float]
    body: bytes
    labels: tuple[_WireLabels, ...] = ()
    shadows: tuple[ShadowSums, ...] = ()
    violations: tuple[int, ...] = ()
    rules: bytes = b""
    variant: str = ""


_decoder = msgspec.msgpack.Decoder(_Wire)
_encoder = msgspec.msgpack.Encoder()


def encode_profile(message: ProfileMessage) -> bytes:
    """Return the message's wire form."""
    return _encoder.encode(
        _Wire(
            _FORMAT,
            bytes.fromhex(message.epoch),
            message.boot,
            message.seq,
            message.sent_at,
            message.slot,
            bytes.fromhex(message.digest.removeprefix("sha256:")),
            bytes.fromhex(message.spec_hash),
            message.start_ms,
            message.length_ms,
            message.n,
            message.errors,
            message.latency,
            message.resources,
            message.body,
            tuple(
                _WireLabels(
                    group.slot,
                    bytes.fromhex(group.digest.removeprefix("sha256:")),
                    group.start_ms,
                    group.length_ms,
                    group.cells,
                    group.errors,
                )
                for group in message.labels
            ),
            message.shadows,
            message.violations,
            bytes.fromhex(message.rules),
            message.variant,
        )
    )


def decode_profile(raw: bytes) -> ProfileMessage:
    """Parse hostile bytes; the counts themselves are checked by `ProfileMessage.profile`.

    Raises:
        ContentError: They are no profile message, or a number is out of range.
    """
    try:
        wire = _decoder.decode(raw)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise ContentError(f"profile: {error}") from error
    if len(wire.epoch) != 8 or len(wire.digest) != 32 or len(wire.spec_hash) != 8 or not 0 < len(wire.slot) <= 64:
        raise ContentError("profile: epoch, digest, spec hash or slot has a wrong length")
    if len(wire.variant) > MOST_VARIANT_CHARACTERS or not wire.variant.isprintable():
        raise ContentError("profile: the variant is no path of a file in a bundle")
    if len(wire.rules) not in {0, 8}:
        raise ContentError("profile: the hash of the rules has a wrong length")
    numbers = (wire.boot, wire.seq, wire.sent_at, wire.start_ms, wire.length_ms, wire.n, wire.errors, *wire.latency)
    if len(wire.latency) > LATENCIES:
        raise ContentError(f"profile: {len(wire.latency)} latency counts, at most {LATENCIES} are known")
    if min(numbers) < 0 or max(numbers) >= 2**53 or not 0 < wire.length_ms <= MOST_WINDOW_MS:
        raise ContentError("profile: a number is negative, too large, or the window has no length or is over a year")
    if len(wire.resources) > 32 or not all(map(math.isfinite, wire.resources.values())):
        raise ContentError("profile: resources are too many or not finite")
    if len(wire.violations) > MOST_RULES or any(not 0 <= count <= wire.n for count in wire.violations):
        raise ContentError("profile: more rows break a rule than there are, or there are too many rules")
    return ProfileMessage(
        epoch=wire.epoch.hex(),
        boot=wire.boot,
        seq=wire.seq,
        sent_at=wire.sent_at,
        slot=wire.slot,
        digest=Digest("sha256:" + wire.digest.hex()),
        spec_hash=wire.spec_hash.hex(),
        start_ms=wire.start_ms,
        length_ms=wire.length_ms,
        n=wire.n,
        errors=wire.errors,
        latency=wire.latency,
        resources=wire.resources,
        body=wire.body,
        labels=_labels(wire.labels),
        shadows=check_shadows(wire.shadows, latencies=LATENCIES),
        violations=wire.violations,
        rules=wire.rules.hex(),
        variant=wire.variant,
    )


def _labels(groups: tuple[_WireLabels, ...]) -> tuple[LabelGroup, ...]:
    if any(len(group.digest) != 32 for group in groups):
        raise ContentError("profile: the digest of labels has a wrong length")
    return check_labels(
        tuple(
            LabelGroup(g.slot, Digest("sha256:" + g.digest.hex()), g.start_ms, g.length_ms, g.cells, g.errors)
            for g in groups
        )
    )


def encode_counts(cells: Counts, moments: Counts) -> bytes:
    """Code a flat vector of counts and the moments.

    Args:
        cells: Non-negative, shape (size,).
        moments: Non-negative, shape (streams, 2).
    """
    wide = cells >= _WIDE
    narrow = np.where(wide, _WIDE, cells).astype(np.uint8)
    head = np.array([len(cells), len(moments)], dtype="<u4").tobytes()
    payload = head + narrow.tobytes() + _planes(cells[wide]) + _planes(moments.ravel())
    if len(payload) > _ZSTD_FROM:
        packed: bytes = zstandard().compress(payload, level=3)
        if len(packed) < len(payload):
            return _COMPRESSED + packed
    return _RAW + payload


def decode_counts(raw: bytes) -> tuple[Counts, Counts]:
    """Decode what `encode_counts` wrote.

    Returns:
        Counts of shape (size,) and moments of shape (streams, 2), int64.

    Raises:
        ContentError: The bytes are cut off, too large, or a count is negative.
    """
    payload = _payload(raw)
    if len(payload) < 8:
        raise ContentError("profile: the counts are cut off")
    size, streams = (int(x) for x in np.frombuffer(payload, dtype="<u4", count=2))
    if size > MAX_CELLS or streams > MAX_CELLS or len(payload) < 8 + size:
        raise ContentError(f"profile: {size} counts of {streams} streams do not fit the {len(payload)} bytes")
    narrow = np.frombuffer(payload, dtype=np.uint8, count=size, offset=8)
    cells = narrow.astype(np.int64)
    wide = np.flatnonzero(narrow == _WIDE)
    if len(payload) != 8 + size + 8 * (len(wide) + 2 * streams):
        raise ContentError("profile: the counts are cut off or followed by something else")
    at = 8 + size
    cells[wide] = _unplanes(payload[at : at + 8 * len(wide)])
    moments = _unplanes(payload[at + 8 * len(wide) :]).reshape(streams, 2)
    if (cells < 0).any() or (moments < 0).any():
        raise ContentError("profile: a count is negative")
    return cells, moments


def _payload(raw: bytes) -> bytes:
    if raw[:1] == _RAW:
        return raw[1:]
    if raw[:1] != _COMPRESSED:
        raise ContentError("profile: the coding of the counts is unknown")
    limit = 8 + 9 * MAX_CELLS
    zstd = zstandard()
    try:
        payload = zstd.ZstdDecompressor().decompress(raw[1:], max_length=limit)
    except zstd.ZstdError as error:
        raise ContentError(f"profile: {error}") from error
    return bytes(payload)


def _planes(values: npt.NDArray[np.int64]) -> bytes:
    """Return the bytes of all values, lowest bytes first: the zero planes compress to nothing."""
    return values.astype("<i8").view(np.uint8).reshape(-1, 8).T.tobytes()


def _unplanes(raw: bytes) -> Counts:
    planes = np.frombuffer(raw, dtype=np.uint8).reshape(8, -1)
    return np.ascontiguousarray(planes.T).view("<i8").ravel().astype(np.int64)
