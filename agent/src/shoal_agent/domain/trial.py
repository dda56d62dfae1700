"""The trial: the probation of a newly activated bundle on this device.

Owns what is counted, and the judgement. The counts survive restarts; `left` is persisted down before every start, so a
model that takes the device down with it runs out of starts. Who counts and who saves are others.
"""

from __future__ import annotations

from enum import StrEnum

import msgspec
from msgspec.structs import replace


class Trial(msgspec.Struct, frozen=True):
    """What has been seen of the active bundle so far.

    Attributes:
        left: Starts that remain; at zero the previous bundle starts instead.
        counted: Whether `left` was counted down for the start that runs now, so that an orderly stop gives it back.
        predictions: Predictions answered, errors among them.
        errors: Predictions that failed inside the model (not requests that were refused).
        elapsed_s: Seconds that the model was active, summed over all starts.
        slow: Predictions answered that surely took longer than the bundle's latency budget allows for their rows.
        over_bytes: By how much the process has grown beyond the bundle's memory budget since the model answers.
        answers: Rows whose answers were looked at.
        nans: At least so many of those answers are not a number.
    """

    left: int
    counted: bool = False
    predictions: int = 0
    errors: int = 0
    elapsed_s: float = 0.0
    slow: int = 0
    over_bytes: int = 0
    answers: int = 0
    nans: int = 0

    def started(self) -> Trial:
        """Return the trial after one more start."""
        return replace(self, left=self.left - 1, counted=True)

    def stopped(self) -> Trial:
        """Return the trial after an orderly stop."""
        return replace(self, left=self.left + 1, counted=False) if self.counted else self

    def plus(
        self, *, predictions: int, errors: int, elapsed_s: float, slow: int = 0, over_bytes: int = 0,
        answers: int = 0, nans: int = 0,
    ) -> Trial:  # fmt: skip
        """Return the trial with more counts added."""
        return replace(
            self,
            predictions=self.predictions + predictions,
            errors=self.errors + errors,
            elapsed_s=self.elapsed_s + max(elapsed_s, 0.0),
            slow=self.slow + slow,
            over_bytes=max(self.over_bytes, over_bytes),
            answers=self.answers + answers,
            nans=self.nans + nans,
        )


class TrialRules(msgspec.Struct, frozen=True):
    """When a trial ends, and how.

    Attributes:
        predictions: So many end it.
        seconds: So many seconds end it, whatever was predicted.
        starts: Starts of the agent that a trial may use up.
        max_error_rate: Largest share of predictions that may fail, and of answers that may be no number.
        max_slow_rate: Largest share of predictions that may be slower than the bundle's budget, which is a p95.
        min_errors: Fewer failures, slow predictions or answers that are no number than this never end a trial early.
        call_s: A call that is under way for longer will not end.
    """

    predictions: int = 100
    seconds: float = 600.0
    starts: int = 3
    max_error_rate: float = 0.02
    max_slow_rate: float = 0.05
    min_errors: int = 5
    call_s: float = 60.0


class Verdict(StrEnum):
    """Outcome of a judgement."""

    CONTINUE = "continue"  # neither limit is reached yet
    PASSED = "passed"  # enough was seen and it was good
    FAILED = "failed"  # too many predictions failed
    SLOW = "slow"  # too many took longer than the bundle allows
    HUNGRY = "hungry"  # it takes more memory than the bundle allows
    NO_NUMBERS = "no_numbers"  # too many answers are not a number
    HANGS = "hangs"  # a call does not end


_LONG_SHARE = 0.1
"""A trial does not pass while a call is under way for longer than this share of `TrialRules.call_s`: it may hang."""


def judge(trial: Trial, rules: TrialRules, *, running_s: float = 0.0) -> Verdict:
    """Judge a trial by what was seen so far.

    Args:
        trial: What was seen.
        rules: When it ends.
        running_s: For how long the oldest call is under way now.
    """
    if running_s > rules.call_s:
        return Verdict.HANGS
    over = trial.predictions >= rules.predictions or trial.elapsed_s >= rules.seconds
    found = _fault(trial, rules, over=over)
    if found is not None:
        return found
    return Verdict.PASSED if over and running_s <= _LONG_SHARE * rules.call_s else Verdict.CONTINUE


def _fault(trial: Trial, rules: TrialRules, *, over: bool) -> Verdict | None:
    """Return what is wrong so far.

    Args:
        trial: What was seen.
        rules: When it ends.
        over: Whether it is at its end.
    """
    if trial.over_bytes > 0:
        return Verdict.HUNGRY
    if trial.nans > rules.max_error_rate * trial.answers and trial.nans >= rules.min_errors:
        return Verdict.NO_NUMBERS
    if trial.errors > rules.max_error_rate * trial.predictions and (over or trial.errors >= rules.min_errors):
        return Verdict.FAILED
    too_slow = trial.slow > rules.max_slow_rate * trial.predictions and trial.slow >= rules.min_errors
    return Verdict.SLOW if too_slow and over else None  # the first ones after a switch are slower
