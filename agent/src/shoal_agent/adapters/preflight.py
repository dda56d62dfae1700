"""PREFLIGHT: a stored bundle's self-test in a child process, where a bad model can do no harm.

Owns starting, bounding and reading the child (`shoal_agent.adapters.preflight_child`), and what each way of its ending
means. The child sets its limits itself, so that they hold from its first large import on; this side holds the wall
clock.
"""

from __future__ import annotations

import signal
import threading
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from shoal_agent.adapters import child
from shoal_agent.errors import CancelledError
from shoal_agent.ports import Cancelled, Clock, PreflightLimits, PreflightOutcome

if TYPE_CHECKING:
    from subprocess import Popen

CHILD = Path(__file__).with_name("preflight_child.py")
_POLL_S = 0.1


class ChildReport(msgspec.Struct, frozen=True):
    """What the child's output says.

    Attributes:
        stage: How far it came: ``started``, ``imported``, ``loaded``, ``done``.
        passed: Outcome, at stage ``done``.
        code: Why not.
        message: Why not, in a sentence.
        transient: Not passed, but this machine is to blame.
        measured: Numbers.
    """

    stage: str = ""
    passed: bool = False
    code: str = ""
    message: str = ""
    transient: bool = False
    measured: dict[str, float] = {}


class ChildPreflight:
    """Runs self-tests in children, a bounded number at a time.

    Args:
        folder: The state folder, whose store the child reads.
        turns: Shared by all agents of a process, so that thirty agents don't start thirty children.
        clock: Monotonic seconds.
    """

    def __init__(self, folder: Path, *, turns: threading.Semaphore, clock: Clock) -> None:
        self._folder = folder
        self._turns = turns
        self._clock = clock

    def run(self, digest: str, *, limits: PreflightLimits, cancelled: Cancelled) -> PreflightOutcome:
        """Return what the child found; never raises for what a model does.

        Raises:
            CancelledError: It was given up.
        """
        while not self._turns.acquire(timeout=_POLL_S):
            if cancelled():
                raise CancelledError("the self-test was given up while it waited for its turn")
        try:
            return self._run(digest, limits, cancelled)
        finally:
            self._turns.release()

    def _run(self, digest: str, limits: PreflightLimits, cancelled: Cancelled) -> PreflightOutcome:
        from subprocess import TimeoutExpired  # noqa: PLC0415 - 2 ms, of which most starts have no use

        request = msgspec.json.encode({"folder": str(self._folder), "digest": digest, "limits": limits})
        process = child.start(CHILD)
        deadline = self._clock() + limits.wall_s
        timed_out = False
        _hand_in(process, child.first_order() + request)
        while True:
            try:
                output, _ = process.communicate(timeout=_POLL_S)
                break
            except TimeoutExpired:
                timed_out = self._clock() >= deadline
                if timed_out or cancelled():
                    child.kill(process)
                    output, _ = process.communicate()
                    if not timed_out:
                        raise CancelledError("the self-test was given up") from None
                    break
        return judge_ending(_parse(output), process.returncode, timed_out=timed_out, limits=limits)


def judge_ending(report: ChildReport, status: int, *, timed_out: bool, limits: PreflightLimits) -> PreflightOutcome:
    """Say what the way in which the child ended means for the model.

    Args:
        report: What it wrote last.
        status: Exit status; negative: the signal that ended it.
        timed_out: Whether this side killed it.
        limits: What it was allowed.
    """
    if report.stage == "done" and not timed_out:
        return PreflightOutcome(report.passed, report.code, report.message, report.transient, report.measured)
    begun = report.stage in {"imported", "loaded", "done"}
    if begun and (timed_out or status == -signal.SIGXCPU):
        return PreflightOutcome(
            passed=False,
            code="preflight_timeout",
            message=f"the self-test did not end within {limits.wall_s:g} s (it came to the stage {report.stage!r})",
        )
    how = child.how_it_ended(status)
    if timed_out:
        how = f"{limits.wall_s:g} s were over"
    if not begun or status == -signal.SIGKILL:
        # before the model is touched it can't be to blame; a SIGKILL that is not ours comes from outside
        message = f"the self-test could not run here: {how} at the stage {report.stage or 'start'!r}"
        return PreflightOutcome(passed=False, code="preflight_not_run", message=message, transient=True)
    where = "loading it" if report.stage == "imported" else "running its golden rows"
    return PreflightOutcome(
        passed=False, code="preflight_crash", message=f"the model ended the process by {how} while {where}"
    )


def _hand_in(process: Popen[bytes], request: bytes) -> None:
    """Write the request, which is far smaller than a pipe's buffer, and end the child's input.

    Not by `communicate`: where that times out before it has written all, its next call writes nothing more (CPython
    3.11, `Popen._communicate`), and the child would wait for the rest until its wall clock ends.
    """
    assert process.stdin is not None
    with suppress(BrokenPipeError), process.stdin:
        process.stdin.write(request)
    process.stdin = None


def _parse(output: bytes) -> ChildReport:
    for line in reversed(output.splitlines()):
        try:
            return msgspec.json.decode(line, type=ChildReport)
        except msgspec.DecodeError:
            continue
    return ChildReport()
