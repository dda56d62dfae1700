"""Who is shown a model's calls, where several threads say so at once."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator

import pytest

from shoal_agent.runtime.followers import Followed


class Nobody:
    """A follower that looks at nothing."""

    def answered(self, feeds, outputs, elapsed_ns) -> None:
        """Nothing to be done."""


@pytest.fixture
def hasty() -> Iterator[None]:
    """Let threads take turns as often as they can."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


def test_who_was_removed_stays_removed_and_who_was_added_stays(hasty):
    followed, lasting = Followed(), [Nobody() for _ in range(40)]

    def come_and_go() -> None:
        for _ in range(400):
            one = Nobody()
            followed.follow(one)
            followed.unfollow(one)

    threads = [threading.Thread(target=come_and_go) for _ in range(3)]
    for thread in threads:
        thread.start()
    for one in lasting:
        followed.follow(one)
    for thread in threads:
        thread.join()
    assert followed.followers == tuple(lasting)


def test_removing_who_was_never_there_changes_nothing():
    followed, one = Followed(), Nobody()
    followed.follow(one)
    followed.unfollow(Nobody())
    assert followed.followers == (one,)
