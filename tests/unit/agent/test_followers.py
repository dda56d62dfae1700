"""Who is shown a model's calls, where several threads say so at once."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest

from shoal_agent.runtime.followers import Followed, Follower


class Nobody:
    """A follower that looks at nothing."""

    def answered(self, feeds, outputs, elapsed_ns) -> None:
        """Nothing to be done."""


class Interrupted(Followed):
    """Another thread comes right after the followers were read, and gets as far as it is let."""

    meanwhile: Callable[[], None] | None = None
    other: threading.Thread | None = None

    @property
    def followers(self) -> tuple[Follower, ...]:
        read = self._told
        if self.meanwhile is not None:
            self.other, self.meanwhile = threading.Thread(target=self.meanwhile), None
            self.other.start()
            self.other.join(0.2)  # it ends where nothing holds it up
        return read

    @followers.setter
    def followers(self, now: tuple[Follower, ...]) -> None:
        self._told = now


@pytest.mark.parametrize("first", ["follow", "unfollow"])
@pytest.mark.parametrize("second", ["follow", "unfollow"])
def test_no_change_is_lost_where_two_threads_make_one(first, second):
    followed, one, two = Interrupted(), Nobody(), Nobody()
    for change, who in ((first, one), (second, two)):
        if change == "unfollow":
            followed.follow(who)
    followed.meanwhile = lambda: getattr(followed, second)(two)
    getattr(followed, first)(one)
    assert followed.other is not None
    followed.other.join()
    assert set(followed.followers) == {who for change, who in ((first, one), (second, two)) if change == "follow"}


def test_removing_who_was_never_there_changes_nothing():
    followed, one = Followed(), Nobody()
    followed.follow(one)
    followed.unfollow(Nobody())
    assert followed.followers == (one,)
