"""The stream of events: what a page hears, when, and after a reconnect."""

import asyncio
from collections.abc import Callable

from shoal_server.signals import Signals
from shoal_server.web.live import LIFETIME_S, POLL_S, TICK_S, look, position_of, stream

TOPICS = {"rollouts", "devices"}


def _hear(
    signals: Signals, *, since: str, at: dict[int, Callable[[], None]] | None = None, looks: int = 5
) -> list[str]:
    """Listen for some looks at the counters; `at` does something before a look."""
    heard: list[str] = []

    async def listen() -> None:
        looked = 0

        async def sleep(seconds: float) -> None:
            nonlocal looked
            assert seconds == POLL_S
            looked += 1
            (at or {}).get(looked, lambda: None)()
            if looked >= looks:
                signals.close()

        heard.extend([frame async for frame in stream(signals, "p1", TOPICS, since=since, sleep=sleep)])

    asyncio.run(listen())
    return heard[1:]  # the first one says how soon to reconnect


def test_a_change_is_told_once_with_its_topics() -> None:
    signals = Signals()
    signals.bump("rollouts")
    since = position_of(signals, "p1", TOPICS)
    heard = _hear(signals, since=since, at={2: lambda: signals.bump("rollouts"), 3: lambda: signals.bump("alerts")})
    assert heard == ["id: p1.devices-0.rollouts-2\nevent: changed\ndata: rollouts\n\n"]


def test_a_change_that_comes_while_another_is_told_is_told_too() -> None:
    class Busy(Signals):
        """Something changes right after each look at the counters."""

        left = 1

        def counters(self) -> dict[str, int]:
            found = super().counters()
            if found.get("rollouts") and self.left:
                self.left -= 1
                self.bump("devices")
            return found

    signals = Busy()
    since = position_of(signals, "p1", TOPICS)
    heard = _hear(signals, since=since, at={1: lambda: signals.bump("rollouts")})
    assert [frame.rpartition("data: ")[2].strip() for frame in heard] == ["rollouts", "devices"]


def test_a_burst_is_one_event() -> None:
    signals = Signals()

    def burst() -> None:
        for _ in range(1000):
            signals.bump("devices")
            signals.bump("rollouts")

    heard = _hear(signals, since=position_of(signals, "p1"), at={1: burst})
    assert heard == ["id: p1.devices-1000.rollouts-1000\nevent: changed\ndata: devices rollouts\n\n"]


def test_who_reconnects_hears_at_once_of_what_was_missed() -> None:
    signals = Signals()
    last_event_id = position_of(signals, "p1", TOPICS)
    signals.bump("devices")
    assert look(signals, "p1", last_event_id, TOPICS)[0] == ["devices"]
    assert len(_hear(signals, since=last_event_id)) == 1
    assert _hear(Signals(), since=position_of(Signals(), "p1", TOPICS)) == []


def test_after_a_restart_everything_may_be_new() -> None:
    signals = Signals()
    before_restart = position_of(signals, "p0", TOPICS)
    assert look(signals, "p1", before_restart, TOPICS)[0] == ["devices", "rollouts"]
    assert look(signals, "p1", "garbage", TOPICS)[0] == ["devices", "rollouts"]


def test_an_idle_page_hears_a_tick_now_and_then() -> None:
    signals = Signals()
    heard = _hear(signals, since=position_of(signals, "p1", TOPICS), looks=round(2.5 * TICK_S / POLL_S))
    assert [frame.split("\n")[1] for frame in heard] == ["event: tick", "event: tick"]


def test_a_stream_ends_so_that_the_session_is_checked_again() -> None:
    signals = Signals()
    heard = _hear(signals, since=position_of(signals, "p1", TOPICS), looks=10**9)
    assert 0 < len(heard) <= LIFETIME_S / TICK_S
