"""Threads that end or hang are replaced, and told of."""

from __future__ import annotations

import logging
import threading

from shoal_agent.adapters.guarded_thread import GuardedThread, Shift
from shoal_agent.testing import FakeClock


class Work:
    """Work whose every shift ends or hangs as the test says."""

    def __init__(self) -> None:
        self.shifts: list[Shift] = []
        self.begun, self.go_on = threading.Semaphore(0), threading.Event()
        self.fails = False

    def __call__(self, shift: Shift) -> None:
        self.shifts.append(shift)
        self.begun.release()
        self.go_on.wait(10)
        if self.fails:
            raise RuntimeError("a mistake")


def guarded(work: Work) -> tuple[GuardedThread, FakeClock]:
    clock = FakeClock()
    thread = GuardedThread("worker", work, patience_s=60.0, monotonic=clock)
    thread.tend()
    assert not work.shifts, "it was not started"
    thread.start()
    assert work.begun.acquire(timeout=5)
    return thread, clock


def test_a_thread_that_lives_and_beats_is_left_alone():
    work = Work()
    thread, clock = guarded(work)
    for _ in range(5):
        clock.move(59)
        work.shifts[0].beat()
        thread.tend()
    assert (thread.replaced, len(work.shifts)) == (0, 1)
    work.go_on.set()
    thread.stop(timeout_s=5)


def test_a_thread_that_hangs_is_left_behind_and_knows_it(caplog):
    work = Work()
    thread, clock = guarded(work)
    clock.move(61)
    with caplog.at_level(logging.ERROR):
        thread.tend()
    assert work.begun.acquire(timeout=5)
    assert thread.replaced == 1
    assert [shift.over() for shift in work.shifts] == [True, False]
    assert "worker was silent for 61 s: another one takes over" in caplog.text
    thread.tend()
    assert thread.replaced == 1, "the new one has just begun"
    work.go_on.set()
    thread.stop(timeout_s=5)
    assert all(shift.over() for shift in work.shifts)


def test_a_thread_that_ended_by_a_mistake_is_replaced(caplog):
    work = Work()
    thread, _ = guarded(work)
    work.fails = True
    work.go_on.set()
    assert thread._thread is not None
    thread._thread.join(5)
    work.fails = False
    work.go_on.clear()
    thread.tend()
    assert work.begun.acquire(timeout=5)
    assert thread.replaced == 1
    assert "worker has ended" in caplog.text
    assert "a mistake" in caplog.text
    work.go_on.set()
    thread.stop(timeout_s=5)
    thread.tend()
    assert thread.replaced == 1, "nobody is replaced after the end"
