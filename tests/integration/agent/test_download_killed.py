"""A real agent that is killed in the middle of a download, again and again, and goes on where it was."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from shoal_protocol.bundle.layout import README
from shoal_protocol.canonical import sha256_digest

SIZE = 1_500_000
CAP = 400_000


def run(state: Path, log: Path) -> subprocess.Popen[bytes]:
    """Start the agent with a cap, so that there is a middle of a download."""
    environment = {**os.environ, "SHOAL_DOWNLOAD_MAX_BYTES_PER_S": str(CAP), "SHOAL_RETRY_MAX_S": "0.2"}
    command = [sys.executable, "-m", "shoal_agent.cli", "run", "--state", str(state), "--listen", "none"]
    with log.open("ab") as file:
        return subprocess.Popen(command, env=environment, stdout=file, stderr=file)


@pytest.mark.slow
def test_each_byte_is_fetched_once_however_often_the_agent_is_killed(world, tmp_path):
    """Kill -9 with a third, and with two thirds of a file there; the third start completes it and activates."""
    content = random.Random(5).randbytes(SIZE)
    files = world.files(2.0, version="1.0.0") | {README: content}
    digest = world.server.release(world.server.add_bundle(files), "quality", "1.0.0")
    world.assign(digest)
    part = world.state / "staging" / f"{sha256_digest(content).removeprefix('sha256:')}.part"
    log, kept = tmp_path / "log", [0]
    for share in (1 / 3, 2 / 3):
        agent = run(world.state, log)
        try:
            reached = share * SIZE
            world.until(lambda: part.exists() and part.stat().st_size > reached, f"{share:.0%} of the file")  # noqa: B023
        finally:
            agent.send_signal(signal.SIGKILL)
            agent.wait()
        kept.append(part.stat().st_size)
    agent = run(world.state, log)
    try:
        world.reported(lambda r: r.active == digest, f"{digest} is active: {log.read_text()[-2000:]}")
    finally:
        agent.terminate()
        assert agent.wait(30) == 0
    asked = [span for _, path, span in world.server.requests if path.endswith(sha256_digest(content))]
    starts = [int(span.removeprefix("bytes=").removesuffix("-")) if span else 0 for span in asked]
    assert set(kept) <= set(starts), "each start of the agent goes on where the one before was killed"
    assert starts == sorted(starts), "and so does a download that is given up for news of the server"
    assert kept == sorted(kept)
