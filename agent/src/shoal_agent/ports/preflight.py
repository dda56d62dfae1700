"""Running a stored bundle's self-test."""

from __future__ import annotations

from typing import Protocol

import msgspec

from shoal_agent.domain.providers import CPU
from shoal_agent.ports.work import Cancelled
from shoal_protocol.bundle.layout import MODEL_ONNX


class PreflightLimits(msgspec.Struct, frozen=True):
    """What the child process runs and may use.

    Attributes:
        variant: Path of the form of the model that would answer here; no other form vouches for it.
        memory_bytes: For the model, over what the interpreter and runtime need themselves; none: by its size.
        wall_s: Seconds until it is killed.
        threads: Of the runtime.
        latency_budget_ms: p95 of one row that the bundle allows; none: any.
        providers: Execution providers of the runtime, the best first.
    """

    variant: str = MODEL_ONNX
    memory_bytes: int | None = None
    wall_s: float = 120.0
    threads: int = 1
    latency_budget_ms: float | None = None
    providers: tuple[str, ...] = (CPU,)


class PreflightOutcome(msgspec.Struct, frozen=True):
    """What the child found.

    Attributes:
        passed: Whether the model may run here.
        code: Why not, as a word.
        message: Why not, in a sentence.
        transient: Not passed, but the model is not to blame: try again later.
        measured: ``rows``, ``p95_ms``, ``rss_bytes``, ``seconds``.
    """

    passed: bool
    code: str = ""
    message: str = ""
    transient: bool = False
    measured: dict[str, float] = {}


class Preflight(Protocol):
    """Runs a stored bundle's self-test where it can do no harm."""

    def run(self, digest: str, *, limits: PreflightLimits, cancelled: Cancelled) -> PreflightOutcome:
        """Return the outcome; never raises for what a model does.

        Raises:
            CancelledError: It was given up.
        """
