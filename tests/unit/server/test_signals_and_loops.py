"""Signals between rooms, and the loops that wait for them."""

import threading

import pytest

from shoal_server.loops import Loop
from shoal_server.signals import Signals


def test_wait_returns_what_changed_since() -> None:
    signals = Signals()
    signals.bump("a")
    seen = signals.counters()
    signals.bump("b")
    signals.bump("b")
    assert signals.wait(seen, timeout_s=0) == {"b": 2}
    assert signals.wait(seen, topics=["a"], timeout_s=0) == {}
    assert signals.wait({}, timeout_s=0) == {"a": 1, "b": 2}


def test_wait_is_woken_by_another_thread() -> None:
    signals, found = Signals(), []
    waiter = threading.Thread(target=lambda: found.append(signals.wait({}, topics=["a"], timeout_s=30)))
    waiter.start()
    signals.bump("b")
    signals.bump("a")
    waiter.join()
    assert found == [{"a": 1}]


def test_close_ends_all_waiting() -> None:
    signals = Signals()
    waiter = threading.Thread(target=signals.wait, args=({},))
    waiter.start()
    signals.close()
    waiter.join()
    assert signals.closed
    assert signals.wait({}) == {}


class _Work:
    """Work that can be waited for, and that fails when it is told to."""

    def __init__(self) -> None:
        self.done = threading.Semaphore(0)
        self.fails = False

    def __call__(self) -> None:
        self.done.release()
        if self.fails:
            raise ValueError("as told")


def _loop(work: _Work, signals: Signals, every_s: float = 3600) -> Loop:
    return Loop("work", work, every_s=every_s, clock=lambda: 7.0, signals=signals, topics=["wanted"])


def test_a_loop_works_at_once_and_again_when_it_is_wanted() -> None:
    work, signals = _Work(), Signals()
    loop = _loop(work, signals)
    loop.start()
    assert work.done.acquire(timeout=10)
    signals.bump("other")
    assert not work.done.acquire(timeout=0.05)
    signals.bump("wanted")
    assert work.done.acquire(timeout=10)
    loop.stop()
    assert (loop.health.alive, loop.health.turns, loop.health.last_success_at) == (False, 2, 7.0)


def test_a_loop_that_fails_goes_on_and_says_so(caplog: pytest.LogCaptureFixture) -> None:
    work, signals = _Work(), Signals()
    work.fails = True
    loop = _loop(work, signals, every_s=0.001)
    loop.start()
    for _ in range(3):
        assert work.done.acquire(timeout=10)
    work.fails = False
    assert work.done.acquire(timeout=10)
    loop.stop()
    assert (loop.health.failing, loop.health.failures) == (0, 3)
    assert "as told" in caplog.text


def test_a_signal_during_a_turn_is_not_lost() -> None:
    signals, turns = Signals(), []

    def turn() -> None:
        turns.append(1)
        if len(turns) == 1:
            signals.bump("wanted")  # while the first turn is still being done

    loop = Loop("work", turn, every_s=3600, clock=lambda: 0.0, signals=signals, topics=["wanted"])
    done = threading.Event()
    original = loop._once

    def once() -> None:
        original()
        if len(turns) == 2:
            done.set()

    loop._once = once
    loop.start()
    assert done.wait(10)
    loop.stop()
    assert len(turns) == 2


def test_a_loop_does_not_race_when_the_program_is_ending() -> None:
    work, signals = _Work(), Signals()
    loop = _loop(work, signals)
    loop.start()
    assert work.done.acquire(timeout=10)
    signals.close()
    assert work.done.acquire(timeout=0.05) in {True, False}  # one turn more, for the wait that was ended
    assert not work.done.acquire(timeout=0.05)
    loop.stop()
    assert loop.health.turns <= 2
