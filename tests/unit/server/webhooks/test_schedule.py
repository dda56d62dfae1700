"""Pauses, giving up, disabling."""

import random

import pytest

from shoal_server.webhooks import schedule


def test_pauses_are_drawn_up_to_a_bound_that_doubles_until_an_hour() -> None:
    bounds = [schedule.pause_s(failures, max) for failures in range(1, 15)]
    assert bounds[:4] == [5.0, 10.0, 20.0, 40.0]
    assert bounds[-1] == schedule.LONGEST_PAUSE_S == max(bounds)
    assert schedule.pause_s(10_000, max) == schedule.LONGEST_PAUSE_S
    drawn = random.Random(3)
    assert all(0 <= schedule.pause_s(4, drawn.uniform) <= 40 for _ in range(100))


def test_what_the_receiver_asks_for_is_waited_for_up_to_an_hour() -> None:
    assert schedule.pause_s(1, min, asked_s=30.0) == 30.0
    assert schedule.pause_s(1, min, asked_s=1e9) == schedule.LONGEST_PAUSE_S


def test_a_day_of_an_absent_receiver_costs_a_few_dozen_attempts() -> None:
    drawn, at, attempts = random.Random(7), 0.0, 0
    while not schedule.is_given_up(created_at=0.0, now=at):
        attempts += 1
        at += schedule.pause_s(attempts, drawn.uniform)
    assert 30 < attempts < 90


@pytest.mark.parametrize(
    ("status", "attempts", "age", "failing_for", "disabled"),
    [
        (410, 1, 0.0, 0.0, True),
        (500, 1, 60.0, schedule.DISABLE_S, False),
        (500, 1, schedule.GIVE_UP_S, schedule.DISABLE_S, True),
        (500, schedule.HELD_ATTEMPTS, 60.0, schedule.DISABLE_S, True),
        (None, schedule.HELD_ATTEMPTS, 60.0, schedule.DISABLE_S - 1, False),
        (404, 50, 3600.0, 3600.0, False),
    ],
)
def test_a_webhook_is_disabled_when_it_is_gone_or_fails_for_days(
    status: int | None, attempts: int, age: float, failing_for: float, disabled: bool
) -> None:
    now = 1e9
    reason = schedule.disabling_reason(
        status=status, attempts=attempts, created_at=now - age, failing_since=now - failing_for, now=now
    )
    assert bool(reason) is disabled
