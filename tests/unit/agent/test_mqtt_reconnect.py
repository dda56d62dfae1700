"""How long the MQTT link waits before it connects again, and what it learns, over connections without a network."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest

from shoal_agent.adapters.mqtt_dialect import Dialect, Version
from shoal_agent.adapters.mqtt_link import LASTING_S, MqttLink
from shoal_agent.ports import LinkFault, LinkHandlers
from shoal_agent.testing import FakeClock

NOTHING = LinkHandlers(
    on_message=lambda *_: None, on_connected=lambda: None, greeting=lambda: (b"", b""), farewell=lambda: b""
)


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


@dataclass
class Line:
    """A connection that ends after so many seconds."""

    clock: FakeClock
    version: Version
    lasts_s: float = 0.0
    is_up: bool = True
    is_answered: bool = True
    is_unsupported: bool = False
    server_away: bool = False
    fault: LinkFault | None = None

    def open(self) -> None:
        """Nothing to be done."""

    def turn(self, _seconds: float) -> bool:
        self.clock.move(self.lasts_s)
        return False

    def say_goodbye(self) -> bool:
        return True


class Link(MqttLink):
    """A link over such connections."""

    def __init__(self, waits: Waits, dialect: Dialect | None = None, **line: object) -> None:
        self.clock, self.options, self.spoken = FakeClock(), line, []
        super().__init__(
            "mqtt://h",
            device="d",
            secret=str,
            ca_file=None,
            dialect=dialect,
            backoff=waits,
            chance=lambda: 1.0,
            monotonic=self.clock,
        )
        waits.link = self

    def _make_line(self, _handlers):
        version = self._dialect.version
        self.spoken.append(int(version))
        knows = version is Version.V311 or not self.options.get("old")
        options = {key: value for key, value in self.options.items() if key != "old"}
        if not knows and options.get("is_answered", True):
            options |= {"is_unsupported": True, "is_up": False}
        if knows and "old" in self.options:
            options["is_answered"] = True
        return Line(self.clock, version, **options)

    def run(self) -> None:
        self.start(NOTHING)
        thread = self._thread._thread
        assert thread is not None
        thread.join(5.0)
        assert not thread.is_alive()


@pytest.mark.parametrize(
    ("lasts_s", "asked"), [(0.1, [1, 2, 3, 4]), (LASTING_S, [1, 1, 1, 1])], ids=["thrown out at once", "lasting"]
)
def test_connections_that_do_not_last_are_made_ever_more_seldom(lasts_s, asked):
    waits = Waits(len(asked))
    Link(waits, lasts_s=lasts_s).run()
    assert waits.asked == asked


def dialect(folder: Path, clock: FakeClock, *, broker: str = "mqtt://h", agent: str = "1.0") -> Dialect:
    return Dialect(folder / "broker.json", broker=broker, agent=agent, clock=clock)


@pytest.mark.parametrize(
    ("answers", "spoken"), [(True, [5, 4, 4, 4]), (False, [5, 5, 4, 4])], ids=["says so", "hangs up"]
)
def test_an_old_broker_is_found_out_once_and_remembered(tmp_path, answers, spoken):
    clock = FakeClock()
    link = Link(Waits(4), dialect(tmp_path, clock), old=True, is_answered=answers)
    link.run()
    assert link.spoken == spoken
    assert dialect(tmp_path, clock).version is Version.V311, "the next start knows"
    assert dialect(tmp_path, clock, broker="mqtt://other").version is Version.V5
    assert dialect(tmp_path, clock, agent="1.1").version is Version.V5
    clock.move(31 * 86_400)
    assert dialect(tmp_path, clock).version is Version.V5, "brokers get newer"


def test_a_broker_that_answers_nobody_is_not_taken_for_an_old_one(tmp_path):
    clock = FakeClock()
    link = Link(Waits(7), dialect(tmp_path, clock), is_answered=False, is_up=False)
    link.run()
    assert link.spoken == [5, 5, 4, 5, 5, 4, 5]
    assert dialect(tmp_path, clock).version is Version.V5


def test_a_network_that_swallows_everything_is_not_taken_for_an_old_broker(tmp_path):
    clock = FakeClock()
    link = Link(Waits(4), dialect(tmp_path, clock), is_answered=False, is_up=False, lasts_s=120.0)
    link.run()
    assert link.spoken == [5, 5, 5, 5]


def test_a_broker_that_got_newer_is_found_out_while_the_agent_runs(tmp_path):
    clock = FakeClock()
    kept = dialect(tmp_path, clock)
    kept.unsupported()
    assert kept.version is Version.V311
    clock.move(31 * 86_400)
    assert kept.version is Version.V5
    kept.unsupported()
    assert kept.version is Version.V311, "and found out anew where it did not"


@pytest.mark.parametrize("sign", ["unsupported", "unanswered"])
def test_a_broker_that_refuses_the_older_version_is_spoken_to_in_5_again(tmp_path, sign):
    clock = FakeClock()
    kept = dialect(tmp_path, clock)
    kept.unsupported()
    spoken = []
    for _ in range(3):
        spoken.append(int(kept.version))
        getattr(kept, sign)()
        if kept.version is Version.V5:
            break
    assert spoken == [4, 4]
    assert dialect(tmp_path, clock).version is Version.V5, "nor does the next start believe it"


def test_one_lost_connection_does_not_forget_what_was_found(tmp_path):
    kept = dialect(tmp_path, FakeClock())
    kept.unsupported()
    for _ in range(5):
        kept.unanswered()
        kept.answered(Version.V311)
    assert kept.version is Version.V311


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"version": 9}', b"\xff"])
def test_a_damaged_memory_is_none(tmp_path, content):
    (tmp_path / "broker.json").write_bytes(content)
    assert dialect(tmp_path, FakeClock()).version is Version.V5


def test_a_memory_that_can_not_be_kept_lasts_until_the_end(tmp_path):
    clock = FakeClock()
    kept = dialect(tmp_path / "none", clock)
    kept.unsupported()
    assert kept.version is Version.V311


def test_why_the_line_is_down_is_told():
    link = Link(Waits(1), is_up=False, fault=LinkFault("not_authorised", "no"))
    link.run()
    assert link.report().fault == LinkFault("not_authorised", "no")
    assert (link.report().protocol, link.connected) == ("", False)
