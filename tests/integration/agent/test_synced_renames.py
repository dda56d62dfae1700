"""Every command under strace: no file takes its place before its content is on the disk, and nobody else is asked.

A rename of a file that was never synced leaves an empty one after a power cut. What lies there for a moment only, or
is told anew at each start, needs no sync; it is named here, and nothing else may do so.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed"),
]

CALLS = "write,pwrite64,writev,ftruncate,fsync,fdatasync,rename,renameat,renameat2,connect,sendto,sendmsg"
FLEETING = re.compile(
    r"/status\.json$|"  # a view for `status` while the agent runs
    r"/requests/\w+\.(wish|answer)$|"  # between two processes that both live
    r"/__pycache__/|"  # Python's own
    r"/staging/\w+\.note$"  # what a part is: a part without its note is fetched anew, and all of it is hashed
)


class Traced:
    """Runs commands of the agent and keeps what they called."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._names: list[str] = []

    def command(self, *words: str) -> list[str]:
        self._names.append(words[0])
        log = self._folder / f"{len(self._names)}.log"
        trace = ["strace", "-f", "--seccomp-bpf", "-qq", "-y", "-s", "64", "-e", f"trace={CALLS}", "-o", str(log)]
        return [*trace, sys.executable, "-m", "shoal_agent.cli", *words]

    def run(self, *words: str, codes: tuple[int, ...] = (0,)) -> None:
        done = subprocess.run(self.command(*words), capture_output=True, text=True, timeout=300, check=False)
        assert done.returncode in codes, done.stderr

    def calls(self) -> Iterator[tuple[str, list[str]]]:
        for number, name in enumerate(self._names, start=1):
            yield name, _whole((self._folder / f"{number}.log").read_text(errors="replace").splitlines())


def _whole(lines: list[str]) -> list[str]:
    """Join calls that strace shows in two halves, at their ends; without the failed ones."""
    begun: dict[str, str] = {}
    whole = []
    for line in lines:
        pid, _, call = line.partition(" ")
        call = call.strip()
        if call.endswith("<unfinished ...>"):
            begun[pid] = call.removesuffix("<unfinished ...>")
            continue
        resumed = re.match(r"<\.\.\. \w+ resumed>(.*)", call)
        whole.append(begun.pop(pid, "") + resumed[1] if resumed else call)
    return [call for call in whole if " = -1 " not in call]


def unsynced(calls: list[str]) -> list[str]:
    """Return the targets of renames whose source was written and not synced."""
    dirty, found = set(), []
    for call in calls:
        if written := re.match(r"(?:write|pwrite64|writev|ftruncate)\(\d+<([^>]*)>", call):
            dirty.add(written[1])
        elif synced := re.match(r"f(?:data)?sync\(\d+<([^>]*)>", call):
            dirty.discard(synced[1])
        elif renamed := re.match(r'rename(?:at2?)?\([^"]*"([^"]*)", [^"]*"([^"]*)"', call):
            found += [renamed[2]] if renamed[1] in dirty else []
            dirty.discard(renamed[1])
    return found


def elsewhere(calls: list[str]) -> list[str]:
    """Return calls that name an address of another machine."""
    named = [call for call in calls if re.match(r"connect|send", call) and "sin" in call and "_addr" in call]
    return [call for call in named if "127.0.0.1" not in call and '"::1"' not in call]


def test_an_unsynced_rename_would_be_seen(tmp_path):
    traced = Traced(tmp_path)
    command = traced.command("python")
    code = "import os, sys; open('a', 'w').write('x'); os.replace('a', sys.argv[1])"
    command[command.index("-m") :] = ["-c", code, str(tmp_path / "b")]
    subprocess.run(command, cwd=tmp_path, check=True, timeout=60)
    (_, calls), *_ = traced.calls()
    assert any(call.startswith("rename(") for call in calls)
    there = [call.replace('"a"', f'"{tmp_path}/a"') for call in calls]
    assert unsynced(there) == [str(tmp_path / "b")]


def test_no_command_renames_what_is_not_synced_or_asks_anybody_else(world, tmp_path):
    traced, state = Traced(tmp_path), ["--state", str(world.state)]
    (tmp_path / "other").mkdir()
    first, mail, rows = world.pack(3.0, "1.0"), tmp_path / "mail", tmp_path / "rows.npz"
    np.savez(rows, x=np.ones((2, 2), np.float32))
    world.assign(first)
    with Running(traced, world):
        world.committed(first)
        second = world.pack(5.0, "1.1", padding=5_000)
        world.assign(second)
        world.committed(second)
        traced.run("status", *state, codes=(0, 1))
        traced.run("export", str(mail), *state)
        traced.run("hold", *state, "--for", "1h")
        traced.run("unhold", *state)
    traced.run("predict", "--input", str(rows), *state)
    traced.run("doctor", *state, codes=(0, 1))
    traced.run("config", "show", *state)
    traced.run("rollback", *state)
    joining = ["--state", str(tmp_path / "other"), "--name", "dev-2"]
    traced.run("join", world.server.url, "--token", world.server.join_token, *joining)
    for name, calls in traced.calls():
        assert [target for target in unsynced(calls) if not FLEETING.search(target)] == [], name
        assert elsewhere(calls) == [], name


class Running:
    """An agent under strace, ended in order."""

    def __init__(self, traced: Traced, world) -> None:
        settings = ("window_s=0.5", "poll_s=0.1", "trial.predictions=1", "trial.seconds=0.3")
        words = [word for setting in settings for word in ("--set", setting)]
        self._command = traced.command("run", "--state", str(world.state), "--listen", "none", *words)

    def __enter__(self) -> None:
        self._process = subprocess.Popen(self._command, stderr=subprocess.DEVNULL)

    def __exit__(self, *_: object) -> None:
        pid = self._process.pid
        for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
            os.kill(int(child), signal.SIGTERM)
        assert self._process.wait(60) == 0
