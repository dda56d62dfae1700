"""How long the MQTT link waits before it connects again, over a client without a network."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from shoal_agent.adapters.mqtt_link import LASTING_S, MqttLink
from shoal_agent.ports import LinkHandlers
from shoal_agent.testing import FakeClock


class Waits:
    """A backoff that notes after how many failures it was asked, and ends the link after some."""

    def __init__(self, most: int) -> None:
        self.asked: list[int] = []
        self.most = most
        self.link: MqttLink | None = None

    def delay_s(self, tries: int, _chance: float) -> float:
        self.asked.append(tries)
        if len(self.asked) == self.most:
            assert self.link is not None
            self.link._stopping.set()
        return 0.0


class Line(MqttLink):
    """A link whose connections are up, and end after so many seconds."""

    def __init__(self, waits: Waits, lasts_s: float) -> None:
        self.clock = FakeClock()
        self.lasts_s = lasts_s
        super().__init__(
            "mqtt://h", device="d", secret="", ca_file=None, backoff=waits, chance=lambda: 1.0, monotonic=self.clock
        )
        waits.link = self

    def _client(self, _handlers):
        return SimpleNamespace(connect=lambda *_, **__: None, loop=self._loop)

    def _loop(self, _seconds: float) -> int:
        if self._up is not None:
            return 7
        self._up = object()
        self.clock.move(self.lasts_s)
        return 0


@pytest.mark.parametrize(
    ("lasts_s", "asked"), [(0.1, [1, 2, 3, 4]), (LASTING_S, [1, 1, 1, 1])], ids=["thrown out at once", "lasting"]
)
def test_connections_that_do_not_last_are_made_ever_more_seldom(lasts_s, asked):
    waits = Waits(len(asked))
    nothing = LinkHandlers(
        on_message=lambda *_: None, on_connected=lambda: None, greeting=lambda: (b"", b""), farewell=lambda: b""
    )
    line = Line(waits, lasts_s)
    line.start(nothing)
    assert line._thread is not None
    line._thread.join(5.0)
    assert waits.asked == asked
