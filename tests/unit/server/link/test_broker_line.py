"""The broker's line where several threads meet, without a broker."""

import select
import socket
from concurrent.futures import Future
from types import SimpleNamespace
from typing import Any

import pytest

from shoal_server.link.broker import BrokerLink
from shoal_server.link.port import LinkError


@pytest.fixture
def link() -> BrokerLink:
    return BrokerLink("mqtt://h", clock=lambda: 0.0)


def test_a_line_that_is_lost_while_others_post_fails_all_of_it_and_ends_no_thread(link: BrokerLink) -> None:
    late: Future[None] = Future()
    posts: list[Any] = [SimpleNamespace(stored=late)]

    class Mail:
        """A message; while the link looks at it, another thread posts one more."""

        def __init__(self) -> None:
            self.waits: Future[None] = Future()

        @property
        def stored(self) -> Future[None]:
            if posts:
                link._mail.append(posts.pop())
            return self.waits

    first, second = Mail(), Mail()
    link._mail.extend([first, second])  # type: ignore[list-item]  # stands in for the real one
    link._hang_up()
    for stored in (first.waits, second.waits, late):
        with pytest.raises(LinkError, match="was lost"):
            stored.result(0)
    assert not link._mail


def test_two_who_ring_at_once_do_not_keep_the_link_awake(link: BrokerLink) -> None:
    bell, clapper = socket.socketpair()
    bell.settimeout(0)
    link._bell, link._clapper = bell, clapper
    client: Any = SimpleNamespace()
    with bell, clapper:
        link._ring()
        link._read_mail(client)
        clapper.send(b"!")  # of the second, who had looked before the first one's ring was heard
        link._read_mail(client)
        assert select.select([bell], [], [], 0)[0] == []
        link._read_mail(client)  # nobody has rung: it must not wait
