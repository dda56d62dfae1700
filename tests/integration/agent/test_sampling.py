"""Raw rows leave the device only as the signed assignment says: everything that is sent or written is watched."""

from __future__ import annotations

import base64
import re
import socket
import time

import numpy as np
import pytest
from msgspec.structs import replace

from shoal_agent.runtime.sampler import Sampler
from shoal_protocol.trust.assignment import Sampling

ROW = np.array([[7777.25, -3333.5]], np.float32)
MARKS = (ROW.tobytes(), ROW.tobytes()[:4], ROW.tobytes()[4:], b"7777.25", b"-3333.5")


class Wire:
    """Everything that any socket of this process sends."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.sent: list[bytes] = []
        for name in ("send", "sendall", "sendto"):
            monkeypatch.setattr(socket.socket, name, self._watched(getattr(socket.socket, name)), raising=False)

    def _watched(self, real):
        def send(sock, data, *more):
            self.sent.append(bytes(data))
            return real(sock, data, *more)

        return send

    @property
    def leaks(self) -> int:
        """Sendings in which a raw row is found, also inside base64."""
        return sum(_has_row(data) for data in list(self.sent))


def _has_row(data: bytes) -> bool:
    inside = [base64.b64decode(text[: len(text) // 4 * 4]) for text in re.findall(rb"[A-Za-z0-9+/]{24,}", data)]
    return any(mark in text for text in (data, *inside) for mark in MARKS)


@pytest.fixture
def running(world, monkeypatch):
    """A device that runs a model, asked one marked row after the other: (world, agent, wire, ask)."""
    wire = Wire(monkeypatch)
    world.overrides = replace(world.overrides, clock=lambda: time.time() + world.ahead_s)
    digest = world.pack(3.0, "1.0")
    world.server.assign("quality", digest)
    with world.agent() as agent:
        world.committed(digest)

        def ask(count: int = 20) -> None:
            for _ in range(count):
                agent.model("quality").predict({"x": ROW})

        def want(sampling: Sampling | None) -> None:
            world.server.assign("quality", digest, sampling=sampling)
            generation = world.server.generation
            world.until(lambda: agent.status()["generation"] == generation, "the assignment")

        yield world, agent, wire, ask, want
        files = [path for path in world.state.rglob("*") if path.is_file()]
        assert not [path for path in files if _has_row(path.read_bytes())]


def _samplers(agent) -> list[Sampler]:
    return [one for one in agent.slots.get("quality").followers if isinstance(one, Sampler)]


def _passes(world, agent, ask) -> None:
    """Let windows close and messages go while the device is asked."""
    before = len(world.server.messages)
    for _ in range(4):
        ask()
        seen = len(world.server.messages)
        world.until(lambda seen=seen: len(world.server.messages) > seen, "a message")
    assert len(world.server.messages) > before


def test_without_the_field_no_raw_row_leaves(running):
    world, agent, wire, ask, _ = running
    _passes(world, agent, ask)
    assert (wire.leaks, world.server.samples) == (0, [])
    assert agent.status()["slots"]["quality"]["sampling"] is None


def test_under_the_field_rows_leave_by_the_one_route_and_after_its_withdrawal_none(running):
    world, agent, wire, ask, want = running
    want(Sampling(share=1.0, until=int((time.time() + 3600) * 1000)))
    world.until(lambda: _samplers(agent), "the sampler")
    ask(5)
    world.until(lambda: sum(len(batch.rows) for batch in world.server.samples) >= 5, "five rows")
    first = world.server.samples[0]
    assert (first.slot, first.rows[0].reason) == ("quality", "random")
    assert first.rows[0].inputs == {"x": [7777.25, -3333.5]}
    assert first.rows[0].outputs == {"y": [23331.75, -10000.5]}
    assert wire.leaks == len(world.server.samples)
    world.until(lambda: agent.status()["slots"]["quality"]["sampling"]["rows_sent"] == 5, "the status")
    want(None)
    sent = wire.leaks
    _passes(world, agent, ask)
    assert wire.leaks == sent
    assert _samplers(agent) == []
    assert agent.status()["slots"]["quality"]["sampling"] is None


def test_after_its_end_none_leaves_also_when_a_restart_lies_between(running):
    world, agent, wire, ask, want = running
    until = int((time.time() + 3600) * 1000)
    want(Sampling(share=1.0, until=until))
    world.until(lambda: _samplers(agent), "the sampler")
    world.until(lambda: ask(1) or wire.leaks, "a row")
    world.ahead_s = 3601.0
    world.until(lambda: ask(1) or agent.status()["slots"]["quality"]["sampling"] is None, "the end")
    sent = wire.leaks
    _passes(world, agent, ask)
    agent.stop()
    agent.start()
    _passes(world, agent, ask)
    assert wire.leaks == sent
    assert max(row.at for batch in world.server.samples for row in batch.rows) <= until
