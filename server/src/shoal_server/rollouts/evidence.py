"""Answers the gates' questions from the telemetry.

Owns which windows are looked at and how they become a `gates.Difference`. Leaves the statistics to `errors_rate` and
`drift.compare`, and the choice of devices to `control`.

Only windows of the right digest count, so a device's predictions by its old bundle never speak for the new one.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from typing import Protocol

from sqlmodel import Session

from shoal_protocol.profile.profile import ProfileSpec
from shoal_protocol.profile.reference import Reference
from shoal_server.rollouts.control import Question
from shoal_server.rollouts.errors_rate import Group, Tally, errors_difference
from shoal_server.rollouts.gates import Difference, Evidence
from shoal_server.rollouts.plan import Gates
from shoal_server.telemetry.store import StoredWindow, windows

EARLIER_S = 3600.0
"""How far back a device's own past is looked at, at least as far as the stage has lasted."""


class Compared(Protocol):
    """What `drift.compare` answers."""

    value: float
    bound_low: float | None
    bound_high: float | None
    n: int
    devices: int
    feature: str
    view: str


class CompareOutputs(Protocol):
    """The comparison of `drift.compare`."""

    def __call__(
        self,
        canary: Sequence[StoredWindow],
        control: Sequence[StoredWindow],
        *,
        spec: ProfileSpec,
        new_reference: Reference,
        parent_reference: Reference | None,
        tolerance: float,
    ) -> Compared | None:
        """Return how far the outputs moved beyond what the references explain; None: nothing to compare."""


class Measurements:
    """The port `runner.Measure`, over the stored windows.

    Args:
        references: Bundle digest -> the profile of its training data.
        compare_outputs: Of `drift.compare`.
    """

    def __init__(self, *, references: Callable[[str], Reference | None], compare_outputs: CompareOutputs) -> None:
        self._references = references
        self._compare_outputs = compare_outputs

    def __call__(self, session: Session, asked: Question, gates: Gates, now: float) -> Evidence:
        """Measure what the plan's gates need."""
        canary = _of(session, asked, asked.digest, asked.canary, since=asked.since, until=now)
        if not canary:
            return Evidence()
        # The control's span is the canary's, so that both lived through the same world.
        span = min(window.start_ms for window in canary), max(window.start_ms for window in canary) + 1
        control: list[StoredWindow] = []
        if asked.control_digest is not None:
            there = _of(session, asked, asked.control_digest, asked.control, since=asked.since, until=now)
            longest = max(window.length_ms for window in canary)
            control = [window for window in there if span[0] - longest < window.start_ms < span[1] + longest]
        return Evidence(
            errors=None if gates.errors is None else self._errors(session, asked, canary, control, now),
            output=None if gates.output is None else self._output(asked, canary, control, gates.output.tolerance),
        )

    def _errors(
        self,
        session: Session,
        asked: Question,
        canary: Sequence[StoredWindow],
        control: Sequence[StoredWindow],
        now: float,
    ) -> Difference | None:
        begin = asked.since - max(EARLIER_S, now - asked.since)
        before: list[StoredWindow] = []
        control_before: list[StoredWindow] = []
        if asked.previous_digest is not None:
            before = _of(session, asked, asked.previous_digest, asked.canary, since=begin, until=asked.since)
        if asked.control_digest is not None:
            control_before = _of(session, asked, asked.control_digest, asked.control, since=begin, until=asked.since)
        return errors_difference(
            Group(_tallies(canary), _tallies(before)),
            Group(_tallies(control), _tallies(control_before)),
            against=asked.against,
        )

    def _output(
        self, asked: Question, canary: Sequence[StoredWindow], control: Sequence[StoredWindow], tolerance: float
    ) -> Difference | None:
        new = self._references(asked.digest)
        if new is None:
            return None
        parent = None if asked.control_digest is None else self._references(asked.control_digest)
        counted = [window for window in canary if window.n]
        beside = [] if parent is None else [window for window in control if window.n]
        compared = self._compare_outputs(
            counted, beside, spec=new.spec, new_reference=new, parent_reference=parent, tolerance=tolerance
        )
        if compared is None:
            return None
        return Difference(
            value=compared.value,
            low=compared.bound_low,
            high=compared.bound_high,
            n=compared.n,
            devices=compared.devices,
            against=asked.against if beside else "the bundle's own reference",
            detail=f"most in {compared.feature} ({compared.view})" if compared.feature else "",
        )


def _of(
    session: Session, asked: Question, digest: str, devices: Iterable[str], *, since: float, until: float
) -> list[StoredWindow]:
    found = windows(
        session,
        slot=asked.slot,
        start_ms=int(since * 1000),
        end_ms=int(until * 1000),
        digests=[digest],
        devices=devices,
    )
    return [window for window in found if window.n + window.errors > 0]


def _tallies(found: Iterable[StoredWindow]) -> dict[str, Tally]:
    n: Counter[str] = Counter()
    errors: dict[str, int] = defaultdict(int)
    for window in found:
        n[window.device] += window.n + window.errors
        errors[window.device] += window.errors
    return {device: Tally(count, errors[device]) for device, count in n.items()}
