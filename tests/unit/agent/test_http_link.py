"""The link over HTTP against a server that is a function: what one request carries, and what its answer means."""

from __future__ import annotations

import base64
import json
import threading

from shoal_agent.adapters.http_link import DESIRED_PATH, HttpLink
from shoal_agent.domain.backoff import Backoff
from shoal_agent.ports import LinkHandlers
from shoal_protocol.mqtt.topics import Up

MAX_BODY = 4 << 20


class Server:
    """Answers every question at once, and messages with what the test dictates."""

    def __init__(self, answer: bytes = b"{}") -> None:
        self.answer = answer
        self.batches: list[list[bytes]] = []
        self.done = threading.Event()
        self.expected = 1

    def exchange(self, method, path, *, headers, body=b""):
        if path == DESIRED_PATH:
            return 204, {}, b""
        if len(body) > MAX_BODY:
            return 413, {}, b""
        self.batches.append([base64.b64decode(entry["payload"]) for entry in json.loads(body)])
        if sum(map(len, self.batches)) >= self.expected:
            self.done.set()
        return 200, {}, self.answer

    def close(self):
        pass


def sent(server: Server, payloads: list[bytes]) -> list[tuple[Up, bytes, str]]:
    """Send messages by a link; returns what was refused."""
    refused = []
    server.expected = len(payloads)
    link = HttpLink(
        server, poll_s=0.01, first_s=0.0, wanted=lambda: True, backoff=Backoff(0.01, 0.01), chance=lambda: 0.0
    )
    link.start(
        LinkHandlers(
            on_message=lambda *_: None,
            on_connected=lambda: [link.publish(Up.EVENT, payload) for payload in payloads],
            greeting=lambda: (b"", b""),
            farewell=lambda: b"",
            on_refused=lambda *told: refused.append(told),
        )
    )
    assert server.done.wait(5.0)
    link.stop()
    return refused


def test_a_request_is_never_larger_than_the_server_takes():
    server = Server()
    payloads = [bytes([n]) * 65_000 for n in range(120)]
    sent(server, payloads)
    assert [payload for batch in server.batches for payload in batch] == payloads
    assert len(server.batches) >= 3


def test_what_the_answer_rejects_is_handed_back_by_its_index():
    server = Server(b'{"acks": [], "rejected": [{"index": 1, "fault": "not finite"}, {"index": 99, "fault": "?"}]}')
    assert sent(server, [b"a", b"b", b"c"]) == [(Up.EVENT, b"b", "not finite")]
