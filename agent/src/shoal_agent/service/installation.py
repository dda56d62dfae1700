"""Installing the service: a list of steps, decided first, shown or carried out then.

Owns what is done to the system: a user, the unit file, systemd's own commands. Every step can be done twice.
"""

from __future__ import annotations

import os
import shlex
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from shoal_agent.adapters.durable import put
from shoal_agent.errors import SettingsError, StateFolderError
from shoal_agent.service.unit import Unit, unit_text

UNIT_FOLDER: Final = Path("/etc/systemd/system")
_HIDDEN: Final = (Path("/home"), Path("/root"), Path("/run/user"), Path("/tmp"), Path("/var/tmp"))  # noqa: S108 - told, not used
"""Places that the unit hides from the service: ProtectHome, PrivateTmp."""

Run = Callable[[Sequence[str]], str]
"""Runs a command and returns what went wrong; empty: nothing."""


@dataclass(frozen=True)
class Command:
    """A command to run.

    Attributes:
        words: The command.
        unless: A command whose success says that there is nothing to do; empty: always run.
        may_fail: Whether its failure ends nothing.
    """

    words: tuple[str, ...]
    unless: tuple[str, ...] = ()
    may_fail: bool = False

    def __str__(self) -> str:
        unless = f"{shlex.join(self.unless)} >/dev/null || " if self.unless else ""
        return unless + shlex.join(self.words)


@dataclass(frozen=True)
class Write:
    """A file to write."""

    path: Path
    content: str

    def __str__(self) -> str:
        return f"write {self.path} ({len(self.content.encode())} bytes; see it by --print)"


@dataclass(frozen=True)
class Remove:
    """A file to delete."""

    path: Path

    def __str__(self) -> str:
        return f"rm -f {shlex.quote(str(self.path))}"


Step = Command | Write | Remove


def installation(unit: Unit, *, name: str, start_now: bool, folder: Path = UNIT_FOLDER) -> list[Step]:
    """Return the steps that make the agent a service.

    Args:
        unit: What the unit is made of.
        name: Of the service.
        start_now: Whether it is started at once, not only at the next start of the machine.
        folder: Where units are.

    Raises:
        SettingsError: The program lies where the service could not see it.
    """
    program = Path(unit.program[0])
    hidden = next((place for place in _HIDDEN if program.is_relative_to(place)), None)
    if hidden is not None:
        raise SettingsError(
            f"{program} lies in {hidden}, which a service is kept from",
            hint="install the agent for all, for example: python3 -m venv /opt/shoal && "
            "/opt/shoal/bin/pip install shoal_protocol-*.whl shoal_agent-*.whl",
        )
    add_user = ("useradd", "--system", "--no-create-home", "--home-dir", f"/var/lib/{unit.state}")
    steps: list[Step] = [
        Command((*add_user, "--shell", "/usr/sbin/nologin", "--user-group", unit.user), unless=("id", "-u", unit.user)),
        Write(folder / f"{name}.service", unit_text(unit)),
        Command(("systemctl", "daemon-reload")),
        Command(("systemctl", "enable", f"{name}.service")),
    ]
    return [*steps, Command(("systemctl", "restart", f"{name}.service"))] if start_now else steps


def removal(*, name: str, folder: Path = UNIT_FOLDER) -> list[Step]:
    """Return the steps that take the service away; the state folder and the user stay."""
    return [
        Command(("systemctl", "disable", "--now", f"{name}.service"), may_fail=True),
        Remove(folder / f"{name}.service"),
        Command(("systemctl", "daemon-reload")),
    ]


def carry_out(steps: Sequence[Step], *, run: Run | None = None, tell: Callable[[str], None] = print) -> None:
    """Carry steps out, one after the other.

    Args:
        steps: What to do.
        run: Runs a command; none: as a process.
        tell: Hears of each step.

    Raises:
        StateFolderError: A step failed; those before it are done, and doing all again is safe.
    """
    run = run or _process
    for step in steps:
        try:
            _carry_out(step, run, tell)
        except OSError as error:
            hint = "see `journalctl -e`; what was done before holds, and all can be done again"
            if os.geteuid() != 0:
                hint = "installing a service needs root: try with sudo"
            raise StateFolderError(f"{step}: {error.strerror or error}", hint=hint) from error


def _carry_out(step: Step, run: Run, tell: Callable[[str], None]) -> None:
    match step:
        case Write(path, content):
            put(path, content.encode())
        case Remove(path):
            path.unlink(missing_ok=True)
        case Command(words, unless, may_fail):
            if unless and not run(unless):
                return
            fault = run(words)
            if fault and not may_fail:
                raise OSError(fault)
    tell(str(step))


def _process(words: Sequence[str]) -> str:
    try:
        done = subprocess.run(words, capture_output=True, text=True, check=False)
    except FileNotFoundError as error:
        raise OSError(f"there is no {words[0]} here; does systemd run this machine?") from error
    return f"exit code {done.returncode}: {done.stderr.strip()}" if done.returncode else ""
