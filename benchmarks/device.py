"""A device that has joined a server and runs a release: what an agent finds when it starts."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from models import bundle, sample

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

from shoal_agent import Agent
from shoal_agent.adapters.enrolment import join
from shoal_agent.bootstrap import Overrides
from shoal_agent.errors import NoModelError
from shoal_agent.testing import FakePreflight, SimulatedServer
from shoal_protocol.bundle.manifest import parse_manifest

PATIENCE_S = 120.0
HASTE = {"trial.seconds": 0.3, "trial.predictions": 1, "window_s": 3600, "poll_s": 0.1, "listen": "none"}


@contextmanager
def joined_device(state: Path, model: bytes) -> Iterator[Path]:
    """Let a device join, install a model in the slot ``quality`` and prove it; the server lives on meanwhile.

    Args:
        state: The state folder to make.
        model: ONNX.
    """
    digest, blobs = bundle(model)
    files = {path: blobs[blob.digest] for path, blob in parse_manifest(blobs[digest]).files().items()}
    with SimulatedServer() as server:
        join(server.url, server.join_token, state, name="bench-1", labels={}, facts={}, clock=time.time)
        released = server.release(server.add_bundle(files), "quality", "1.0")
        server.assign("quality", released)
        with Agent(state, HASTE, overrides=Overrides(preflight=FakePreflight())) as agent:
            _prove(agent, server, released)
        yield state


def _prove(agent: Agent, server: SimulatedServer, digest: str) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        time.sleep(0.05)
        try:
            agent.model("quality").predict({"x": sample(1)})
        except NoModelError:
            continue
        told = server.last_report("quality")
        if told is not None and told.state == "idle" and told.active == told.proven == digest:
            return
    raise RuntimeError("the release did not come through its trial")
