"""Has a model file looked at by a child process with limits, so that no file can hurt the server.

Owns starting, limiting and ending the child. What is looked at stands in `onnx_child`.
"""

import os
import signal
import subprocess
import sys
import threading
from dataclasses import dataclass
from pathlib import Path

import msgspec

from shoal_protocol.errors import LocalError
from shoal_server.registry.refusals import Fault

_BASE_MEMORY = 768 * 1024**2
_MEMORY_FACTOR = 8
_CPU_S = 60
_WALL_S = 120.0
_AT_ONCE = 2


class ModelFacts(msgspec.Struct, frozen=True):
    """What the checker read from a sound model."""

    inputs: list[str]
    outputs: list[str]
    ir_version: int
    opsets: dict[str, int]


class _Answer(msgspec.Struct):
    ok: ModelFacts | None = None
    fault: dict[str, str] | None = None


@dataclass(frozen=True)
class Limits:
    """What one check may use."""

    base_memory: int = _BASE_MEMORY
    """Bytes for the interpreter and the onnx library; the file's size times eight is added."""
    cpu_s: int = _CPU_S
    wall_s: float = _WALL_S


class OnnxChecker:
    """Checks model files, at most two at a time."""

    def __init__(self, limits: Limits | None = None) -> None:
        self._limits = limits or Limits()
        self._slots = threading.BoundedSemaphore(_AT_ONCE)

    def check(self, path: Path) -> ModelFacts | Fault:
        """Return what the model is, or the rule that it breaks.

        Raises:
            LocalError: the child could not be started here.
        """
        memory = self._limits.base_memory + _MEMORY_FACTOR * path.stat().st_size
        command = [
            sys.executable,
            "-I",
            "-m",
            "shoal_server.registry.onnx_child",
            str(path),
            str(memory),
            str(self._limits.cpu_s),
        ]
        with self._slots:
            try:
                child = subprocess.Popen(
                    command,
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.DEVNULL,
                    start_new_session=True,
                    env={"PATH": os.defpath, "OPENBLAS_NUM_THREADS": "1"},
                )
            except OSError as error:
                raise LocalError(f"the model checker can't be started: {error}") from error
            return self._answer_of(child)

    def _answer_of(self, child: "subprocess.Popen[bytes]") -> ModelFacts | Fault:
        try:
            out, _ = child.communicate(timeout=self._limits.wall_s)
        except subprocess.TimeoutExpired:
            os.killpg(child.pid, signal.SIGKILL)
            child.communicate()
            return Fault("onnx_time", f"checking the model took more than {self._limits.wall_s:.0f} s")
        if child.returncode in {-signal.SIGXCPU, -signal.SIGKILL}:
            return Fault("onnx_time", f"checking the model took more than {self._limits.cpu_s} s of processor time")
        try:
            answer = msgspec.json.decode(out, type=_Answer)
        except msgspec.DecodeError:
            return Fault("onnx_crash", f"the checker died on this model (exit status {child.returncode})")
        if answer.fault is not None:
            return Fault(answer.fault["rule"], answer.fault["what"])
        assert answer.ok is not None
        return answer.ok
