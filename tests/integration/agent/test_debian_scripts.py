"""What the Debian package's scripts do to the services that run its program, and to what they leave."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from shoal_agent.service.unit import Unit, unit_text

SCRIPTS = Path(__file__).resolve().parents[3] / "deploy" / "debian"
PROGRAM = ("/usr/bin/shoal-agent",)


class Machine:
    """A root folder with services, and a systemctl that notes what it is told."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.units = root / "etc" / "systemd" / "system"
        for folder in (self.units, root / "bin", root / "opt" / "shoal-agent" / "bin", root / "run/systemd/system"):
            folder.mkdir(parents=True)
        for program in ("bin/systemctl", "opt/shoal-agent/bin/python"):
            (root / program).write_text(f'#!/bin/sh\necho "$@" >> {root}/told.{Path(program).name}\n')
            (root / program).chmod(0o755)
        for name, program in (("shoal-agent", PROGRAM), ("press", PROGRAM), ("other", ("/srv/shoal/bin/shoal-agent",))):
            (self.units / f"{name}.service").write_text(unit_text(Unit(program=program, state=name)))
            (root / "var/lib" / name / "identity").mkdir(parents=True)

    def run(self, script: str, *arguments: str) -> list[str]:
        """Run a script as dpkg does; return what systemctl was told."""
        told = self.root / "told.systemctl"
        told.unlink(missing_ok=True)
        path = f"{self.root}/bin:{os.environ['PATH']}"
        subprocess.run(
            [SCRIPTS / script, *arguments], env={"PATH": path, "DPKG_ROOT": str(self.root)}, check=True, timeout=60
        )
        return told.read_text().splitlines() if told.exists() else []


@pytest.fixture
def machine(tmp_path):
    return Machine(tmp_path)


def test_an_upgrade_restarts_the_services_that_run(machine):
    assert machine.run("prerm", "upgrade", "0.2.0") == []
    assert machine.run("postinst", "configure", "0.1.0") == [
        "try-restart press.service",
        "try-restart shoal-agent.service",
    ]


def test_a_removal_leaves_no_service_that_looks_for_the_program_and_all_of_its_state(machine):
    assert machine.run("prerm", "remove") == ["disable --now press.service", "disable --now shoal-agent.service"]
    assert machine.run("postrm", "remove") == []
    assert len(list((machine.root / "var/lib").iterdir())) == 3


def test_in_an_image_that_is_not_booted_it_is_disabled_too(machine):
    (machine.root / "run/systemd/system").rmdir()
    assert machine.run("prerm", "remove") == ["disable press.service", "disable shoal-agent.service"]
    assert machine.run("postinst", "configure", "") == []


def test_a_purge_leaves_what_another_program_made(machine):
    assert machine.run("postrm", "purge") == ["daemon-reload"]
    assert [path.name for path in (machine.root / "var/lib").iterdir()] == ["other"]
    assert [path.name for path in machine.units.iterdir()] == ["other.service"]


def test_a_machine_without_services_is_no_error(machine):
    for unit in machine.units.iterdir():
        unit.unlink()
    assert machine.run("postinst", "configure", "") == []
    assert machine.run("prerm", "remove") == []
    assert machine.run("postrm", "purge") == ["daemon-reload"]
