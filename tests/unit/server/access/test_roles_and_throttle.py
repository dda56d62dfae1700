"""Roles and the waiting time after failed log-ins."""

import pytest

from shoal_server.access import Principal, Role
from shoal_server.access.throttle import failures_after, wait_s


def test_each_role_may_what_the_ones_before_it_may() -> None:
    order = [Role.VIEWER, Role.OPERATOR, Role.RELEASER, Role.ADMIN]
    for place, role in enumerate(order):
        assert [role.includes(other) for other in order] == [other_place <= place for other_place in range(4)]


def test_a_device_holds_no_role() -> None:
    assert not any(Principal("cam", "device", None, "cam").may(role) for role in Role)


@pytest.mark.parametrize(
    ("failures", "after_s", "wait"),
    [(4, 0, 0), (5, 0, 1), (5, 1, 0), (6, 0.5, 1.5), (30, 0, 60), (10**6, 0, 60), (30, 3601, 0)],
)
def test_the_wait_grows_and_is_bounded(failures: int, after_s: float, wait: float) -> None:
    assert wait_s(failures=failures, last_at=100.0, now=100.0 + after_s) == wait


def test_failures_are_forgotten_after_an_hour() -> None:
    assert failures_after(failures=7, last_at=0.0, now=10.0) == 8
    assert failures_after(failures=7, last_at=0.0, now=3601.0) == 1


def test_a_clock_that_was_set_back_locks_nobody_out() -> None:
    assert wait_s(failures=30, last_at=400 * 86_400.0, now=0.0) == 0
    assert wait_s(failures=30, last_at=0.5, now=0.0) > 0, "another server's clock may be a little ahead"
    assert failures_after(failures=30, last_at=400 * 86_400.0, now=0.0) == 1
