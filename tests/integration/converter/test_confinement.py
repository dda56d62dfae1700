"""Hostile pickles, run as `pack --trust` runs them: what they reach for isn't there, and what they start is ended."""

from __future__ import annotations

import os
import pickle
import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from tests.integration.converter.conftest import Workshop

from shoal_converter import cli
from shoal_converter.confinement import landlock, namespaces, sockets
from shoal_converter.errors import EXIT_FAILED, EXIT_OK, EXIT_USAGE
from shoal_converter.sources import isolated_child

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="processes are shut off on Linux only")


class Hostile:
    """A pickle that runs code when it is loaded."""

    def __init__(self, code: str) -> None:
        self.code = code

    def __reduce__(self) -> tuple[Any, tuple[str, dict[str, str]]]:
        return exec, (self.code, {"__name__": "hostile"})


@pytest.fixture
def run(workshop: Workshop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Any:
    """Pack a pickle that runs code; returns the exit code, and what this and the child's process wrote as errors."""
    monkeypatch.chdir(tmp_path)

    def call(code: str, *more: str) -> tuple[int, str]:
        (tmp_path / "hostile.pkl").write_bytes(pickle.dumps(Hostile(code)))
        given = ("--sample", str(workshop.file("rows.npy")), "-t", "iris:1.0.0", *more)
        found = cli.run(["pack", str(tmp_path / "hostile.pkl"), "--trust", *given])
        return found, capfd.readouterr().err

    return call


def attempts(*expressions: str) -> str:
    """Return code that tells what each expression gives, or how it fails."""
    return f"""
import os, socket, subprocess, sys
for at, expression in enumerate({list(expressions)!r}):
    try: found = eval(expression)
    except BaseException as error: found = type(error).__name__
    print("FOUND", at, found, file=sys.stderr, flush=True)
"""


def found(err: str) -> list[str]:
    return re.findall(r"^FOUND \d+ (.*)$", err, re.MULTILINE)


@pytest.fixture
def listener() -> Iterator[tuple[str, int]]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[:2]


def test_what_is_no_business_of_a_model_is_out_of_reach(
    run: Any, listener: tuple[str, int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SHOAL_TOKEN", "sht_secret")
    secret = tmp_path / "home" / "release.pem"
    secret.parent.mkdir()
    secret.write_text("the key")
    with socket.socket(socket.AF_UNIX) as engine:
        engine.bind(str(tmp_path / "engine.sock"))
        engine.listen()
        _, err = run(
            attempts(
                f"socket.create_connection({listener!r}, 5)",
                f"socket.socket(socket.AF_UNIX).connect({str(tmp_path / 'engine.sock')!r})",
                f"open({str(secret)!r}).read()",
                f"open({str(secret)!r}, 'w')",
                f"os.unlink({str(secret)!r})",
                f"os.listdir({str(secret.parent)!r})",
                f"open('/proc/{os.getpid()}/environ').read()",
                f"os.kill({os.getpid()}, 0)",
                "os.environ.get('SHOAL_TOKEN')",
                "open(os.environ['HOME'] + '/own', 'w').write('mine')",
            )
        )
    refused = ["PermissionError"] * 7
    assert found(err) == [*refused, "ProcessLookupError", "None", "4"], err
    assert secret.read_text() == "the key"


def test_an_endless_loop_is_ended_in_time(run: Any) -> None:
    code, err = run("while True: pass", "--timeout", "3")
    assert code == EXIT_FAILED
    assert "took more than 3 s" in err


STAYS = """
import ctypes, os, signal, sys, time
ctypes.CDLL(None).prctl(1, 0, 0, 0, 0)  # not to end with the process that started this one
signal.signal(signal.SIGTERM, signal.SIG_IGN)
{more}
time.sleep(20)
print("STILL HERE", file=sys.stderr, flush=True)
"""


@pytest.mark.parametrize("more", ["", "os.kill(0, signal.SIGKILL)"], ids=["unasked", "alone"])
def test_a_model_that_will_not_end_is_ended_in_time(run: Any, more: str) -> None:
    code, err = run(STAYS.format(more=more), "--timeout", "4")
    assert code == EXIT_FAILED
    assert "took more than 4 s" in err
    assert "STILL HERE" not in err


def test_a_model_has_no_terminal_to_type_into(workshop: Workshop, tmp_path: Path) -> None:
    tries = attempts(
        "os.open('/dev/tty', os.O_RDONLY)",
        "__import__('fcntl').ioctl(2, 0x5412, b'x')",
        "__import__('fcntl').ioctl(os.pipe()[0], 0x5412, b'x')",
        "__import__('fcntl').ioctl(os.pipe()[0], 0x541C, b'x')",
        "len(__import__('fcntl').ioctl(os.pipe()[0], 0x541B, b'1234'))",
        "os.isatty(2)",
    )
    (tmp_path / "hostile.pkl").write_bytes(pickle.dumps(Hostile(tries)))
    packed = ("pack", str(tmp_path / "hostile.pkl"), "--trust", "--sample", str(workshop.file("rows.npy")))
    program = "import sys; from shoal_converter.cli import run; sys.exit(run(sys.argv[1:]))"
    seen = at_a_terminal("-c", program, *packed, "-t", "iris:1.0.0", folder=tmp_path)
    refused = ["PermissionError"] * 3
    assert found(seen.replace("\r", "")) == ["OSError", *refused, "4", "True"], seen


def at_a_terminal(*arguments: str, folder: Path) -> str:
    """Run Python with a terminal of its own as its controlling one; returns what it wrote there."""
    own, other = os.openpty()
    into = "import os, sys; os.login_tty(int(sys.argv[1])); os.execv(sys.executable, [sys.executable, *sys.argv[2:]])"
    command = [sys.executable, "-c", into, str(other), *arguments]
    with subprocess.Popen(command, cwd=folder, pass_fds=[other]) as process:
        os.close(other)
        seen = b""
        with suppress(OSError):  # EIO: nobody has it open any more
            while piece := os.read(own, 4096):
                seen += piece
        process.wait()
    os.close(own)
    return seen.decode(errors="replace")


def test_what_it_leaves_behind_ends_with_it(run: Any) -> None:
    _, err = run(attempts("subprocess.Popen(['sleep', '613'], start_new_session=True).pid > 1"))
    assert found(err) == ["True"], err
    assert not [line for line in _commands() if b"sleep\x00613" in line]


FORKS = """
import os, sys, time
started = 0
try:
    for _ in range(2 * {most}):
        if os.fork() == 0:
            time.sleep(600)
        started += 1
except OSError as error:
    print("REFUSED after", started, file=sys.stderr, flush=True)
os._exit(3)
"""


@pytest.mark.skipif(
    os.getuid() == 0 and namespaces._kernel() < (6, 14), reason="root's processes are counted since Linux 6.14"
)
def test_processes_without_end_are_refused_and_ended(run: Any) -> None:
    code, err = run(FORKS.format(most=namespaces.MOST_PROCESSES))
    assert code == EXIT_FAILED
    assert "REFUSED after" in err
    assert "died (exit code 3)" in err


def test_more_memory_than_there_is_is_an_error_not_the_end_of_the_machine(run: Any) -> None:
    pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    code, err = run(f"x = bytearray({2 * pages})")
    assert code == EXIT_USAGE
    assert "more memory than its process may take" in err


def test_a_flood_of_output_is_no_answer(run: Any) -> None:
    code, err = run("import os\nfor at in range(3, 9):\n    try: os.write(at, b'x' * 100)\n    except OSError: pass")
    assert code != EXIT_OK
    assert err


@pytest.mark.parametrize("lacking", [("network",), ("network", "files")])
def test_what_can_not_be_shut_off_is_asked_for(lacking: tuple[str, ...], tmp_path: Path) -> None:
    (tmp_path / "m.pkl").write_bytes(b"")
    (tmp_path / "m.onnx").write_bytes(b"")
    asked = {"path": str(tmp_path / "m.pkl"), "trust": "isolated"}
    with pytest.raises(Exception, match=" and ".join(lacking)) as refused:
        isolated_child._check_isolated(asked, lacking)
    assert "--trust=unisolated" in refused.value.hint  # type: ignore[attr-defined]
    isolated_child._check_isolated(asked | {"trust": "unisolated"}, lacking)
    isolated_child._check_isolated(asked | {"path": str(tmp_path / "m.onnx")}, lacking)


def test_unisolated_still_shuts_off_what_it_can(shoal_convert: Any, workshop: Workshop, tmp_path: Path) -> None:
    given = ("--sample", workshop.file("train.csv"), "--target", "species", "-t", "iris:1.0.0")
    code, _, err = shoal_convert("pack", workshop.file("model.joblib"), "--trust=unisolated", *given)
    assert code == EXIT_OK, err
    assert "without network" in err


def test_a_system_without_these_calls_says_no(monkeypatch: pytest.MonkeyPatch) -> None:
    class Old:
        def __getattr__(self, name: str) -> Any:
            return lambda *_: -1

    for module in (landlock, namespaces, sockets):
        monkeypatch.setattr(module.ctypes, "CDLL", lambda *_, **__: Old())
    assert not landlock.keep_files(readable=[], writable=[])
    assert not namespaces.enter_namespaces()
    assert not sockets.give_up_sockets()


def _commands() -> list[bytes]:
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            try:
                found.append((entry / "cmdline").read_bytes())
            except OSError:
                continue
    return found
