"""Four weeks without a server within a fixed room on the disk: what arrives afterwards adds up to the truth."""

from __future__ import annotations

import random
from types import SimpleNamespace

import numpy as np
import pytest

from shoal_agent.adapters.spool import SqliteSpool
from shoal_agent.domain.device import DeviceState
from shoal_agent.runtime.windows import ClosedWindow
from shoal_agent.testing import FakeClock, FakeLink
from shoal_agent.updating.messages import Messages
from shoal_agent.updating.uplink import Situation, Uplink
from shoal_agent.updating.window_spool import WindowSpool
from shoal_protocol.mqtt.messages import Ack, encode_message, parse_message
from shoal_protocol.mqtt.topics import Down, Up
from shoal_protocol.profile.codec import decode_counts
from shoal_protocol.profile.profile import Profile

A = "sha256:" + "a" * 64
STREAMS, CELLS = 20, 24
WEEKS_MS = 4 * 7 * 86_400_000


class Offline:
    """A device that closes windows; its spool is the real one, its link the test."""

    def __init__(self, path, *, budget_bytes: int) -> None:
        self.path, self.budget_bytes = path, budget_bytes
        self.clock, self.link = FakeClock(1_700_000_000.0), FakeLink()
        self.lots = np.random.default_rng(7)
        self.answered, self.cells = 0, np.zeros(STREAMS * CELLS, np.int64)
        self.largest = 0
        self.spool = None
        self.restart()

    def restart(self) -> None:
        if self.spool is not None:
            self.spool.close()
        self.spool = SqliteSpool(self.path, budget_bytes=self.budget_bytes, new_epoch=lambda: "e" * 16)
        self.spool._connection.execute("PRAGMA synchronous=OFF")  # no power is cut here, and a month is long
        messages = Messages(epoch=self.spool.epoch, boot=self.spool.boot, clock=self.clock, first=self.spool.first)
        self.sink = WindowSpool(self.spool, messages, stored=lambda: None)
        self.uplink = Uplink(
            self.link,
            spool=self.spool,
            messages=messages,
            situation=Situation(lambda: {"agent_version": "1"}, DeviceState, dict, dict),
            windows=SimpleNamespace(tick=lambda: 0, due_in_s=lambda: 9.0, close_all=lambda: 0),
            monotonic=self.clock,
            resend_s=10.0,
        )
        self.uplink.start_link(lambda _document: None)

    def window(self, length_ms: int) -> None:
        rows = int(self.lots.integers(0, 400))
        cells = self.lots.multinomial(rows, np.full(CELLS, 1 / CELLS), size=STREAMS).ravel()
        start_ms = int(self.clock() * 1000)
        self.clock.move(length_ms / 1000)
        if not rows:
            return
        self.answered += rows
        self.cells += cells
        self.sink.append(
            ClosedWindow(
                slot="q",
                digest=A,
                spec_hash="0" * 16,
                start_ms=start_ms,
                length_ms=length_ms,
                n=rows,
                errors=1,
                latency=(0, rows),
                resources={"cpu_s": 0.25, "rss_bytes": float(rows), "rows": float(rows), "refused": 0.0},
                shadows=(),
                violations=(),
                rules="",
                profile=Profile("0" * 16, rows, cells, np.ones((STREAMS, 2), np.int64)),
            )
        )
        if self.answered % 16 == 0:  # asking takes as long as closing
            self.largest = max(self.largest, self.spool.usage().size_bytes)

    def reconnect(self) -> list:
        """Let everything arrive; returns it."""
        came = {}
        self.link.connect()
        for _ in range(100_000):
            self.link.sent.clear()
            self.uplink.turn()
            fresh = [parse_message(kind, raw) for kind, raw in self.link.sent if kind in {Up.PROFILE, Up.EVENT}]
            came |= {message.seq: message for message in fresh}
            if not fresh and not self.spool.waiting(1):
                break
            ack = Ack(epoch=self.spool.epoch, through=0, ranges=tuple((seq, seq) for seq in came))
            self.link.handlers.on_message(Down.ACK, encode_message(Ack(epoch=ack.epoch, through=max(came))))
        self.spool.close()
        return [came[seq] for seq in sorted(came)]


@pytest.mark.slow
@pytest.mark.parametrize(("budget_bytes", "loses"), [(2 << 20, False), (20_000, True)], ids=["2 MB", "20 kB"])
def test_four_weeks_offline_arrive_as_coarser_windows_that_add_up_to_the_truth(tmp_path, budget_bytes, loses):
    device, lots = Offline(tmp_path / "spool.db", budget_bytes=budget_bytes), random.Random(3)
    begin = device.clock()
    while (device.clock() - begin) * 1000 < WEEKS_MS:
        device.window(300_000)
        if lots.random() < 0.005:  # some restarts, each with a window cut short
            device.window(lots.randint(1, 299_999))
            device.restart()
    assert device.largest <= budget_bytes + 2_000  # the events about what went
    came = device.reconnect()
    windows = [message for message in came if not hasattr(message, "kind")]
    events = [message for message in came if hasattr(message, "kind")]
    lost_rows = sum(event.data.get("rows", 0) for event in events if event.kind == "lost")
    assert sum(window.n for window in windows) == device.answered - lost_rows
    assert bool(lost_rows) == loses
    cells = sum(decode_counts(window.body)[0] for window in windows)
    assert cells.sum() == STREAMS * sum(window.n for window in windows)
    if not loses:
        assert (cells == device.cells).all()
    assert sum(window.resources["rows"] for window in windows) == sum(window.n for window in windows)
    assert all(sum(window.latency) == window.n for window in windows)
    assert max(window.length_ms for window in windows) <= 2 * 86_400_000
    # every number is accounted for: it came, was merged, or was reported lost
    told = {seq for event in events for first, last in event.data["ranges"] for seq in range(first, last + 1)}
    assert told | {message.seq for message in came} == set(range(1, max(message.seq for message in came) + 1))


def test_a_merged_window_is_what_its_parts_said_together(tmp_path):
    device = Offline(tmp_path / "spool.db", budget_bytes=3_000)
    for _ in range(12):
        device.window(300_000)
    came = device.reconnect()
    merged = [message for message in came if not hasattr(message, "kind") and message.length_ms > 300_000]
    assert merged
    for window in merged:
        parts = round(window.errors)
        assert window.length_ms == 300_000 * parts
        assert window.resources["cpu_s"] == 0.25 * parts
        assert window.resources["rss_bytes"] < window.n  # the largest of them
        assert decode_counts(window.body)[1].tolist() == [[parts, parts]] * STREAMS
