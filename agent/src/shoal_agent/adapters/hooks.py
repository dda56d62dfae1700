"""Running the integrator's hooks: child processes with a time limit, few variables and nothing of the agent's.

A hook can neither hang the agent nor take it down: it has a process group of its own, which is killed when the time is
over and also when it ends, so that nothing is left behind; what it prints is read up to a bound; its environment holds
no secret. What its exit code means is decided by `shoal_agent.updating.leave`.
"""

from __future__ import annotations

import os
import selectors
import signal
import subprocess
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Final

import msgspec

from shoal_agent.domain.occasion import HookKind, Occasion
from shoal_agent.ports import Clock, HookOutcome

_PATH: Final = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_MAX_OUTPUT: Final = 4096
_LOOK_S: Final = 0.05
_KILLED_S: Final = 2.0


class ChildHooks(msgspec.Struct, frozen=True):
    """The hooks of one device.

    Attributes:
        programs: The executable of each; what is missing is not called.
        timeout_s: Seconds that one may take.
        beat: Called while it runs, as a sign of life.
        clock: Seconds for durations.
    """

    programs: Mapping[HookKind, Path]
    timeout_s: float
    beat: Callable[[], object] = lambda: None
    clock: Clock = time.monotonic

    def has(self, kind: HookKind) -> bool:
        """Tell whether there is a hook of this kind."""
        return kind in self.programs

    def run(self, occasion: Occasion) -> HookOutcome:
        """Run a hook to its end, or to the end of its time."""
        program = self.programs[occasion.hook]
        environment = {"PATH": _PATH, "LANG": "C.UTF-8", **_clean(occasion.environment())}
        try:
            process = subprocess.Popen(
                [program],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                env=environment,
                cwd="/",
                start_new_session=True,
            )
        except (OSError, ValueError) as error:
            return HookOutcome(fault=f"{program} can't be run: {error}")
        try:
            _tell(process, occasion)
            output = self._output(process)
            ended = process.poll() is not None
        finally:
            _end(process)
        said = _first_line(output)
        if not ended:
            return HookOutcome(fault=f"{program} took longer than {self.timeout_s:g} s and was ended", said=said)
        if process.returncode < 0:
            return HookOutcome(fault=f"{program} was ended by the signal {-process.returncode}", said=said)
        return HookOutcome(exit_code=process.returncode, said=said)

    def _output(self, process: subprocess.Popen[bytes]) -> bytes:
        """Return the first bytes that the hook prints until it ends, or its time is over.

        Its end counts, not the end of the pipe, which a grandchild could hold open for ever.
        """
        assert process.stdout is not None
        deadline, output = self.clock() + self.timeout_s, b""
        os.set_blocking(process.stdout.fileno(), False)
        with selectors.DefaultSelector() as selector:
            selector.register(process.stdout, selectors.EVENT_READ)
            while True:
                ended = process.poll() is not None
                if selector.get_map():
                    ready = selector.select(0 if ended else _LOOK_S)
                    chunk = os.read(process.stdout.fileno(), 65536) if ready else None
                    if chunk:
                        output = (output + chunk)[:_MAX_OUTPUT]
                    elif chunk is not None:
                        selector.unregister(process.stdout)
                else:
                    chunk = None
                    with suppress(subprocess.TimeoutExpired):
                        process.wait(_LOOK_S)
                if (ended and not chunk) or self.clock() >= deadline:
                    return output
                self.beat()


def _tell(process: subprocess.Popen[bytes], occasion: Occasion) -> None:
    """Write the document; a hook that does not read it is no fault, and it fits a pipe, so that nothing blocks."""
    assert process.stdin is not None
    with suppress(BrokenPipeError), process.stdin:
        process.stdin.write(msgspec.json.encode(occasion.document()) + b"\n")


def _end(process: subprocess.Popen[bytes]) -> None:
    """Kill the whole group; one that this user may not kill is left, because waiting for it could take for ever."""
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    with suppress(subprocess.TimeoutExpired):
        process.wait(_KILLED_S)
    if process.stdout is not None:
        process.stdout.close()


def _clean(variables: Mapping[str, str]) -> dict[str, str]:
    return {name: value.replace("\0", "")[:1000] for name, value in variables.items()}


def _first_line(output: bytes) -> str:
    lines = output.decode("utf-8", "replace").strip().splitlines()
    return "".join(character for character in lines[0] if character.isprintable())[:300] if lines else ""
