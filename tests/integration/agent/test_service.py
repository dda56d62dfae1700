"""The service for real: the exposure that systemd computes, and a process that a service manager starts and ends."""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import sys

import pytest

from shoal_agent.service.unit import Unit, unit_text

needs_systemd = pytest.mark.skipif(
    shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed (apt-get install systemd)"
)
MOST_EXPOSED = 3.0


@needs_systemd
@pytest.mark.parametrize("devices", [(), ("/dev/nvidia0",)])
def test_the_unit_is_hardened_and_valid(tmp_path, devices):
    unit = tmp_path / "shoal-agent.service"
    options = {"memory_max": "512M", "cpu_quota": "150%", "token_file": "/etc/shoal/token", "url": "https://s.example"}
    unit.write_text(unit_text(Unit(program=("/bin/true",), devices=devices, **options)))
    done = subprocess.run(
        ["systemd-analyze", "security", "--offline=true", "--no-pager", str(unit)],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    exposure = re.search(r"Overall exposure level.*: ([0-9.]+)", done.stdout)
    assert exposure is not None, done.stdout + done.stderr
    assert float(exposure[1]) <= MOST_EXPOSED
    done = subprocess.run(
        ["systemd-analyze", "verify", str(unit)], capture_output=True, text=True, timeout=60, check=False
    )
    assert str(unit.name) not in done.stderr


def test_the_service_is_ready_once_its_models_answer_gives_signs_of_life_and_ends_gracefully(world, tmp_path):
    digest = world.pack(3.0, "1.0")
    world.assign(digest)
    with world.agent():
        world.committed(digest)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as ear:
        ear.bind(str(tmp_path / "notify"))
        ear.settimeout(30)
        environment = {**os.environ, "NOTIFY_SOCKET": str(tmp_path / "notify"), "WATCHDOG_USEC": "300000"}
        command = [sys.executable, "-m", "shoal_agent.cli", "--log-level", "warning", "run", "--state"]
        process = subprocess.Popen([*command, str(world.state), "--listen", "none"], env=environment)
        try:
            ready = ear.recv(999).decode()
            assert ready == f"READY=1\nSTATUS=dev-1: quality: quality:1.0 ({digest[7:19]})"
            assert [ear.recv(999) for _ in range(3)] == [b"WATCHDOG=1"] * 3
            process.send_signal(signal.SIGTERM)
            while (heard := ear.recv(999)) == b"WATCHDOG=1":
                pass
            assert heard.startswith(b"STOPPING=1")
            assert process.wait(30) == 0
        finally:
            process.kill()
            process.wait()


def test_a_thread_that_ends_is_named(world):
    with world.agent() as agent:
        assert agent.faults() == []
        agent._parts.uplink.stop()
        world.until(lambda: not agent._threads[1].is_alive())
        assert agent.faults() == ["the thread uplink-dev-1 has ended"]
