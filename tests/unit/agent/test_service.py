"""The agent as a service: what the unit says, which steps install it, and what the service manager hears."""

from __future__ import annotations

import os
import socket
import threading

import pytest

from shoal_agent.errors import SettingsError, StateFolderError
from shoal_agent.service.installation import Command, Write, carry_out, installation, removal
from shoal_agent.service.notify import ServiceManager, serve_until
from shoal_agent.service.unit import Unit, unit_text
from shoal_agent.settings import service_manager
from shoal_agent.testing import FakeClock
from shoal_agent.updating.pulse import Pulse

PROGRAM = ("/opt/shoal/bin/shoal-agent",)


@pytest.fixture
def ear(tmp_path):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as line:
        line.bind(str(tmp_path / "notify"))
        line.settimeout(5)
        yield line


def test_what_a_service_manager_hears(ear):
    manager = ServiceManager(ear.getsockname(), watchdog_s=30)
    manager.ready("dev-1:\nx")
    manager.alive("dev-1: x")
    manager.alive("dev-1: y")
    manager.alive("dev-1: y")
    manager.stopping()
    assert [ear.recv(999).decode() for _ in range(5)] == [
        "READY=1\nSTATUS=dev-1: x",
        "WATCHDOG=1",
        "WATCHDOG=1\nSTATUS=dev-1: y",
        "WATCHDOG=1",
        "STOPPING=1\nSTATUS=stopping",
    ]


def test_without_a_service_manager_nothing_is_sent_and_one_that_is_gone_ends_nothing(tmp_path, caplog):
    ServiceManager().ready("x")
    assert caplog.messages == []
    ServiceManager(str(tmp_path / "none")).ready("x")
    assert "could not be told READY=1" in caplog.text


def test_no_sign_of_life_once_something_hangs(ear):
    stop = threading.Event()
    answers = iter([[], ["updating hangs"]])

    def faults():
        found = next(answers)
        if found:
            stop.set()
        return found

    serve_until(stop, ServiceManager(ear.getsockname(), watchdog_s=0.003), faults, status=lambda: "well")
    assert [ear.recv(999) for _ in range(2)] == [b"WATCHDOG=1\nSTATUS=well", b"STATUS=updating hangs"]
    ear.setblocking(False)
    with pytest.raises(BlockingIOError):
        ear.recv(999)


def test_without_a_watchdog_the_service_manager_still_hears_what_is_answered(ear):
    stop = threading.Event()

    def status():
        stop.set()
        return "dev-1: quality: quality:1.1"

    serve_until(stop, ServiceManager(ear.getsockname()), list, status=status)
    assert ear.recv(999) == b"WATCHDOG=1\nSTATUS=dev-1: quality: quality:1.1"


def test_a_watchdog_that_is_meant_for_another_process_is_not_fed():
    assert service_manager({"NOTIFY_SOCKET": "/n", "WATCHDOG_USEC": "3000000"}) == ("/n", 3.0)
    assert service_manager({"NOTIFY_SOCKET": "/n", "WATCHDOG_USEC": "3000000", "WATCHDOG_PID": "1"}) == ("/n", None)
    assert service_manager({}) == ("", None)


def test_a_pulse_that_stops_is_noticed_after_its_patience():
    clock = FakeClock(0.0)
    pulse = Pulse("updating", patience_s=10, monotonic=clock)
    clock.now = 10.0
    assert pulse.fault() is None
    clock.now = 11.0
    assert pulse.fault() == "updating was silent for 11 s"
    pulse.beat()
    assert pulse.fault() is None


def test_the_unit_quotes_what_systemd_would_read_otherwise():
    text = unit_text(Unit(program=("/opt/my agent/50%/$x",), listen="unix:/run/shoal-agent/s"))
    assert 'ExecStart="/opt/my agent/50%%/$$x" run --state /var/lib/shoal-agent --listen unix:/run' in text


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("user", "root\nUser=x"), ("state", "../etc"), ("memory_max", "lots"), ("cpu_quota", "2"),
        ("listen", "x\nExecStart=y"), ("token_file", "/t"),
    ],
)  # fmt: skip
def test_what_does_not_belong_in_a_unit_is_refused(option, value):
    with pytest.raises(SettingsError):
        Unit(program=PROGRAM, **{option: value})


def test_a_token_is_handed_on_by_systemd_and_used_only_when_needed():
    text = unit_text(Unit(program=PROGRAM, token_file="/etc/shoal/token", url="https://shoal.example"))
    assert "LoadCredential=join-token:/etc/shoal/token" in text
    assert "join https://shoal.example --state /var/lib/shoal-agent --if-needed" in text


def test_a_program_that_the_service_could_not_see_is_refused():
    with pytest.raises(SettingsError, match="/home"):
        installation(Unit(program=("/home/me/bin/shoal-agent",)), name="shoal-agent", start_now=False)


def test_the_steps_of_an_installation(tmp_path):
    ran = []
    steps = installation(Unit(program=PROGRAM), name="shoal-agent", start_now=True, folder=tmp_path)

    def run(words):
        ran.append(words[:2])
        return "" if words[0] != "id" else "exit code 1: no such user"

    carry_out(steps, run=run, tell=lambda _step: None)
    assert ran == [
        ("id", "-u"), ("useradd", "--system"), ("systemctl", "daemon-reload"), ("systemctl", "enable"),
        ("systemctl", "restart"),
    ]  # fmt: skip
    assert (tmp_path / "shoal-agent.service").read_text() == unit_text(Unit(program=PROGRAM))
    carry_out(
        removal(name="shoal-agent", folder=tmp_path),
        run=lambda words: "not loaded" * (words[1] == "disable"),
        tell=ran.append,
    )
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("user", "advice"), [(0, "journalctl"), (1000, "sudo")])
def test_a_step_that_fails_is_named_with_what_to_do(tmp_path, monkeypatch, user, advice):
    monkeypatch.setattr(os, "geteuid", lambda: user)
    with pytest.raises(StateFolderError, match="systemctl enable x: exit code 7: denied") as caught:
        carry_out([Command(("systemctl", "enable", "x"))], run=lambda _words: "exit code 7: denied", tell=print)
    assert advice in caught.value.hint
    with pytest.raises(StateFolderError, match=r"write .*x\.service"):
        carry_out([Write(tmp_path / "none" / "x.service", "x")], tell=print)
