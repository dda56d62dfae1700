"""Recorded windows as JSON lines: what is exported, read by the analysis and replayed under other settings.

Owns the form: a header with all that the counts mean (references, devices, settings, alerts), a line a window, and an
end that tells how many there were, so that a stream that broke off is never taken for a whole one. Counts are plain
lists of whole numbers in the order of the bundle's `ProfileSpec`. Fields that are not known are ignored.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import msgspec
import numpy as np

from shoal_protocol.errors import ContentError
from shoal_protocol.profile.profile import Profile, ProfileSpec, check_profile
from shoal_protocol.profile.reference import Reference, encode_reference, parse_reference

FORMAT = "shoal-windows"
FORMAT_VERSION = 1


class RecordedAlert(msgspec.Struct, frozen=True, kw_only=True):
    """An alert that came; times are seconds since the epoch."""

    key: str
    title: str
    raised_at: float
    resolved_at: float | None = None
    body: str = ""


class RecordedBundle(msgspec.Struct, frozen=True, kw_only=True):
    """What a bundle's windows are measured with, and by which settings it was watched.

    Attributes:
        name: ``model:version``, or the digest where nobody knows it.
        reference: The bundle's ``reference.json``.
        window_ms: Length of the buckets of time.
        season: ``none``, ``day`` or ``week``.
        baseline_windows, min_devices, mean_time_to_false_alarm: Of the sequential rule.
    """

    name: str
    reference: dict[str, Any]
    window_ms: int
    season: str = "none"
    baseline_windows: int = 48
    min_devices: int = 5
    mean_time_to_false_alarm: float = 10_000.0

    def parsed(self) -> Reference:
        """Return the reference; raises `ContentError`."""
        return parse_reference(msgspec.json.encode(self.reference))


class Header(msgspec.Struct, frozen=True, kw_only=True):
    """The first line.

    Attributes:
        slot: Whose windows follow.
        exported_at: Seconds since the epoch.
        start_ms, end_ms: Windows that begin in [start, end).
        bundles: By digest.
        devices: Facts and labels of each device that counts; windows of others are kept, and decide nothing.
        cohort_keys: Facts whose values are watched as cohorts.
        alerts: That were open in this time.
    """

    slot: str
    exported_at: float
    start_ms: int
    end_ms: int
    bundles: dict[str, RecordedBundle]
    devices: dict[str, dict[str, str]]
    cohort_keys: tuple[str, ...] = ()
    alerts: tuple[RecordedAlert, ...] = ()
    format: str = FORMAT
    format_version: int = FORMAT_VERSION


class RecordedWindow(msgspec.Struct, frozen=True, kw_only=True):
    """One window; `cells` and `moments` are as in `Profile`, `latency` and `variant` as in `ProfileMessage`."""

    device: str
    digest: str
    seq: int
    start_ms: int
    length_ms: int
    n: int
    errors: int
    received_at: float
    spec_hash: str
    cells: list[int]
    moments: list[tuple[int, int]]
    latency: list[int] = msgspec.field(default_factory=list)
    resources: dict[str, float] = msgspec.field(default_factory=dict)
    variant: str = ""

    def profile(self, spec: ProfileSpec) -> Profile:
        """Return the counts; raises `ContentError` when they are not what this spec can give."""
        try:
            cells = np.array(self.cells, np.int64)
            moments = np.array(self.moments, np.int64).reshape(-1, 2)
        except OverflowError as error:
            raise ContentError("a window has a count that does not fit 64 bits") from error
        return check_profile(Profile(self.spec_hash, self.n, cells, moments), spec)


class _End(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    windows: int


_encoder = msgspec.json.Encoder()
_header = msgspec.json.Decoder(Header)
_window = msgspec.json.Decoder(RecordedWindow)
_end = msgspec.json.Decoder(_End)


def reference_document(reference: Reference) -> dict[str, Any]:
    """Return a reference as it stands in a header."""
    document: dict[str, Any] = msgspec.json.decode(encode_reference(reference))
    return document


def encode_recording(header: Header, windows: Iterable[RecordedWindow]) -> Iterator[bytes]:
    """Yield the lines of a recording."""
    yield _encoder.encode(header) + b"\n"
    number = 0
    for number, window in enumerate(windows, start=1):  # noqa: B007 - the last number is how many there were
        yield _encoder.encode(window) + b"\n"
    yield _encoder.encode(_End(number)) + b"\n"


def parse_header(line: bytes) -> Header:
    """Parse the first line.

    Raises:
        ContentError: It is none, or of a newer format.
    """
    try:
        header = _header.decode(line)
    except (msgspec.DecodeError, RecursionError) as error:
        raise ContentError(
            f"these are no recorded windows: {error}", hint="shoalctl drift export SLOT --output windows.jsonl"
        ) from error
    if header.format != FORMAT or header.format_version > FORMAT_VERSION:
        raise ContentError(
            f"expected {FORMAT} version {FORMAT_VERSION}, got {header.format!r:.40} version {header.format_version}",
            hint="was it exported by a newer Shoal? update Shoal here",
        )
    return header


def parse_windows(lines: Iterable[bytes]) -> Iterator[RecordedWindow]:
    """Yield the windows of all lines but the first.

    Raises:
        ContentError: A line is no window, or the end is missing: the file or the stream broke off.
    """
    found = 0
    for line in lines:
        if not line.strip():
            continue
        if line.startswith(b'{"windows":'):
            end = _end.decode(line)
            if end.windows == found:
                return
            raise ContentError(f"expected {end.windows} windows, got {found}", hint="export them again")
        try:
            window = _window.decode(line)
        except (msgspec.DecodeError, RecursionError) as error:
            raise ContentError(f"window {found + 1} can't be read: {error}", hint="export them again") from error
        found += 1
        yield window
    raise ContentError(f"the windows end early, after {found}: their last line is missing", hint="export them again")
