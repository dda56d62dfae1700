"""Nothing phones home: every system call of `run --bundle` and `predict` that reaches a network or a file is looked at.

onnxruntime's wheels come with telemetry on: a thread, files in the home folder, a connection to its maker. The agent
promises none of that. Watched by strace from outside, so that what native code does is seen as well.
"""

from __future__ import annotations

import http.client
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from fixtures_models import linear_bundle, linear_model, write_layout

CALLS = (
    "connect,sendto,sendmsg,sendmmsg,bind,openat,open,creat,mkdir,mkdirat,rename,renameat2,unlink,unlinkat,symlink,link,"
    "execve"
)
PASSED_ON = ("PATH", "LANG", "LD_LIBRARY_PATH", "PYTHONPATH")
"""Not CI, DO_NOT_TRACK and the like, where onnxruntime is silent by itself and the watch would prove nothing."""
ROWS = [{"x0": 1.0, "x1": 2.0, "x2": 3.0, "x3": 4.0}]
pytestmark = pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed")


class Watched:
    """Runs programs of the agent under strace, in a home of their own."""

    def __init__(self, folder: Path) -> None:
        self.home, self.logs = folder / "home", folder / "strace"
        self.home.mkdir()
        self.logs.mkdir()
        (folder / "tmp").mkdir()
        self.environment = {
            **{name: os.environ[name] for name in PASSED_ON if name in os.environ},
            "HOME": str(self.home),
            "TMPDIR": str(folder / "tmp"),
            "PYTHONDONTWRITEBYTECODE": "1",  # an installed agent is compiled already
        }

    def command(self, *words: str) -> list[str]:
        trace = ["strace", "-ff", "-qq", "-s", "256", "-e", f"trace={CALLS}", "-o", str(self.logs / "calls")]
        return [*trace, sys.executable, "-m", "shoal_agent.cli", *words]

    def calls(self) -> Iterator[str]:
        for log in self.logs.iterdir():
            yield from log.read_text(errors="replace").splitlines()

    def outbound(self) -> list[str]:
        """Calls that reach another machine, or a name service."""
        reaching = (line for line in self.calls() if re.match(r"connect|send(to|msg|mmsg)|bind", line))
        return [line for line in reaching if _is_elsewhere(line)]

    def written(self) -> list[str]:
        """Files that were made, changed or removed outside the kernel's own devices."""
        changing = re.compile(
            r"(creat|mkdir|mkdirat|rename|renameat2|unlink|unlinkat|symlink|link)\(|O_(WRONLY|RDWR|CREAT)"
        )
        lines = [line for line in self.calls() if changing.search(line) and " = -1 " not in line]
        return [line for line in lines if not re.search(r'"(/dev/null|/dev/tty|/proc/self/[a-z_]+)"', line)]


def _asked(port: int) -> set[int]:
    client = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    statuses = set()
    try:
        for _ in range(50):
            client.request("POST", "/v1/predict", json.dumps(ROWS))
            answer = client.getresponse()
            answer.read()
            statuses.add(answer.status)
    finally:
        client.close()
    return statuses


def _is_elsewhere(line: str) -> bool:
    address = re.search(r'sin6?_addr=inet_(?:addr|pton)\((?:AF_INET6, )?"([^"]+)"|sin6?_addr.*?"([^"]+)"', line)
    if address is not None:
        found = next(filter(None, address.groups()))
        return not found.startswith("127.") and found != "::1"
    return "AF_UNIX" in line and "connect" in line  # nscd, resolved, journald …: nothing here needs them


@pytest.fixture
def watched(tmp_path: Path) -> Watched:
    return Watched(tmp_path)


def test_a_connection_elsewhere_and_a_file_would_be_seen(watched: Watched) -> None:
    """The watch itself: a program that does what telemetry does is caught."""
    code = (
        "import socket, pathlib\n"
        "pathlib.Path.home().joinpath('.cache').mkdir(); s = socket.socket(); s.settimeout(0.1)\n"
        "try: s.connect(('192.0.2.1', 9))\nexcept OSError: pass"
    )
    command = watched.command()
    command[command.index("-m") :] = ["-c", code]
    subprocess.run(command, env=watched.environment, check=True, timeout=60)
    assert [line for line in watched.outbound() if "192.0.2.1" in line]
    assert [line for line in watched.written() if ".cache" in line]


def test_onnxruntime_left_to_itself_is_seen_writing_or_is_silent(watched: Watched) -> None:
    """The watch on the very thing: the same wheel without our switch writes about its user, where it finds a way to."""
    model = watched.home.parent / "model.onnx"
    model.write_bytes(linear_model())
    code = (
        f"import onnxruntime, pathlib, time; onnxruntime.InferenceSession({str(model)!r})\n"
        "until = time.monotonic() + 20\n"
        "while not any(pathlib.Path.home().iterdir()) and time.monotonic() < until: time.sleep(0.1)"
    )
    command = watched.command()
    command[command.index("-m") :] = ["-c", code]
    subprocess.run(command, env=watched.environment, check=True, timeout=120)
    found = any(watched.home.iterdir())
    assert found == any("onnxruntime" in line and str(watched.home) in line for line in watched.written())


def test_an_agent_at_work_reaches_its_server_and_its_state_folder_and_nothing_else(watched: Watched, world) -> None:
    """Installs a release with a real self-test, answers, and sends its windows."""
    digest = world.pack(3.0, "1.0")
    world.assign(digest)
    settings = ("window_s=0.5", "poll_s=0.1", "trial.predictions=1", "trial.seconds=0.3")
    words = [word for setting in settings for word in ("--set", setting)]
    command = watched.command("run", "--state", str(world.state), "--listen", "none", *words)
    with subprocess.Popen(command, env=watched.environment, stdout=subprocess.DEVNULL) as running:
        try:
            world.reported(lambda r: r.active == digest, "the release is active")
        finally:
            for child in Path(f"/proc/{running.pid}/task/{running.pid}/children").read_text().split():
                os.kill(int(child), signal.SIGTERM)
        assert running.wait(60) == 0
    assert any("execve" in line and "preflight_child" in line for line in watched.calls())
    assert any(line.startswith("connect(") and "127.0.0.1" in line for line in watched.calls())
    assert [line for line in watched.outbound() if "/nscd/" not in line] == []  # the C library, for the server's name
    mine = re.compile(
        rf'"{world.state}|"{watched.home.parent}/tmp|/__pycache__/'
    )  # the self-test's child compiles itself
    assert [line for line in watched.written() if not mine.search(line)] == []
    assert list(watched.home.iterdir()) == []


def test_serving_and_asking_a_bundle_reaches_nothing_but_loopback_and_writes_no_file(
    watched: Watched, tmp_path: Path
) -> None:
    bundle = str(write_layout(tmp_path / "bundle", *linear_bundle()))
    (tmp_path / "rows.json").write_text(json.dumps(ROWS))
    command = watched.command("run", "--bundle", bundle, "--listen", "127.0.0.1:0")
    with subprocess.Popen(command, env=watched.environment, stdout=subprocess.PIPE, text=True) as serving:
        assert serving.stdout is not None
        try:
            statuses = _asked(int(serving.stdout.readline().strip().rpartition(":")[2]))
        finally:
            for child in Path(f"/proc/{serving.pid}/task/{serving.pid}/children").read_text().split():
                os.kill(int(child), signal.SIGTERM)
        assert serving.wait(30) == 0
    assert statuses == {200}
    asked = watched.command("predict", "--bundle", bundle, "--input", str(tmp_path / "rows.json"))
    assert (
        "predictions"
        in subprocess.run(asked, env=watched.environment, check=True, capture_output=True, text=True).stdout
    )
    assert any(line.startswith("bind(") and "127.0.0.1" in line for line in watched.calls())
    assert watched.outbound() == []
    assert watched.written() == []
    assert list(watched.home.iterdir()) == []
