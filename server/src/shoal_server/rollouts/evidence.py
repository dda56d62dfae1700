"""Answers the gates' questions from the telemetry.

Owns which windows are looked at and how they become a `gates.Difference`. Leaves the statistics to `errors_rate` and
`drift.compare`, and the choice of devices to `control`.

Only windows of the right digest count, so a device's predictions by its old bundle never speak for the new one. At most
`MAX_DEVICES` of a side are looked at, chosen by hash, so that a tick's cost does not grow with the fleet.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from sqlmodel import Session

from shoal_server.drift.compare import Sample, compare_outputs
from shoal_server.rollouts.accuracy import estimated_level, feedback_level
from shoal_server.rollouts.control import Question
from shoal_server.rollouts.errors_rate import Group, Tally, errors_difference
from shoal_server.rollouts.gates import Difference, Evidence
from shoal_server.rollouts.plan import Gates
from shoal_server.rollouts.references import References, known
from shoal_server.rollouts.stages import position
from shoal_server.telemetry.store import StoredWindow, windows
from shoal_server.telemetry.windows import stack

MAX_DEVICES = 500

EARLIER_WINDOWS = 48
"""How many window lengths of a device's own past are looked at."""


@dataclass(frozen=True)
class _Seen:
    """The windows of a question: of canary and control, since the stage was opened and before."""

    canary: Sequence[StoredWindow]
    control: Sequence[StoredWindow]
    canary_before: Sequence[StoredWindow]
    control_before: Sequence[StoredWindow]


class Measurements:
    """The port `runner.Measure`, over the stored windows.

    Args:
        references: Bundle digest -> the profile of its training data, None when it has none.
    """

    def __init__(self, references: References) -> None:
        self._references = references

    def __call__(self, session: Session, asked: Question, gates: Gates, now: float) -> Evidence:
        """Measure what the plan's gates need."""
        seen = _look(session, asked, now)
        if seen is None:
            return Evidence()
        wanted = gates.accuracy
        return Evidence(
            estimated=None
            if wanted is None or wanted.estimated is None
            else estimated_level(seen.canary, known(self._references, asked.digest)),
            feedback=None if wanted is None or wanted.feedback is None else feedback_level(session, asked),
            errors=None if gates.errors is None else _errors(seen, asked.against),
            output=None if gates.output is None else self._output(seen, asked, gates.output.tolerance),
        )

    def _output(self, seen: _Seen, asked: Question, tolerance: float) -> Difference | None:
        canary = self._sample(seen.canary, asked.digest)
        if canary is None:
            return None
        compared = compare_outputs(
            canary=canary,
            control=self._sample(seen.control, asked.control_digest),
            canary_before=self._sample(seen.canary_before, asked.previous_digest),
            control_before=self._sample(seen.control_before, asked.control_digest),
            tolerance=tolerance,
        )
        return Difference(
            value=compared.value,
            low=compared.bound_low,
            high=compared.bound_high,
            n=compared.n,
            devices=compared.devices,
            against=asked.against if compared.control_devices else "its own past or the bundle's reference",
            detail=compared.sentence,
        )

    def _sample(self, found: Sequence[StoredWindow], digest: str | None) -> Sample | None:
        reference = known(self._references, digest)
        if reference is None:
            return None
        counted = stack((window for window in found if window.n), reference.spec)
        return Sample(counted, reference) if len(counted) else None


def _look(session: Session, asked: Question, now: float) -> _Seen | None:
    """Return the windows to compare, None while the new bundle has not predicted."""
    canaries, controls = _some(asked.canary), _some(asked.control)
    canary = _of(session, asked, asked.digest, canaries, since=asked.since, until=now)
    if not canary:
        return None
    longest_ms = max(window.length_ms for window in canary)
    # The control's span is the canary's, so that both lived through the same world.
    first = min(window.start_ms for window in canary) - longest_ms
    last = max(window.start_ms for window in canary) + longest_ms
    control = [
        window
        for window in _of(session, asked, asked.control_digest, controls, since=asked.since, until=now)
        if first < window.start_ms < last
    ]
    begin = asked.since - EARLIER_WINDOWS * longest_ms / 1000
    return _Seen(
        canary=canary,
        control=control,
        canary_before=_of(session, asked, asked.previous_digest, canaries, since=begin, until=asked.since),
        control_before=_of(session, asked, asked.control_digest, controls, since=begin, until=asked.since),
    )


def _of(
    session: Session, asked: Question, digest: str | None, devices: Iterable[str], *, since: float, until: float
) -> list[StoredWindow]:
    if digest is None:
        return []
    start_ms, end_ms = int(since * 1000), int(until * 1000)
    found = windows(session, slot=asked.slot, start_ms=start_ms, end_ms=end_ms, digests=[digest], devices=devices)
    return [window for window in found if window.n + window.errors > 0]


def _some(devices: Sequence[str]) -> list[str]:
    return sorted(devices, key=lambda device: position(device, "evidence"))[:MAX_DEVICES]


def _errors(seen: _Seen, against: str) -> Difference | None:
    return errors_difference(
        Group(_tallies(seen.canary), _tallies(seen.canary_before)),
        Group(_tallies(seen.control), _tallies(seen.control_before)),
        against=against if seen.control else "their own past",
    )


def _tallies(found: Iterable[StoredWindow]) -> dict[str, Tally]:
    n: Counter[str] = Counter()
    errors: Counter[str] = Counter()
    for window in found:
        n[window.device] += window.n + window.errors
        errors[window.device] += window.errors
    return {device: Tally(count, errors[device]) for device, count in n.items()}
