"""Clients of the local HTTP interface: their requests, and how long the answers take.

What is measured of a server is mostly how soon a process is woken, and where: on the processor of its client, or on
another that may be asleep, which takes a virtual machine several times as long. Left alone, either side of a comparison
falls into either case by chance; so both are held to the same `Placement`.
"""

from __future__ import annotations

import itertools
import json
import os
import select
import socket
import statistics
import time
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from dataclasses import dataclass
from operator import attrgetter
from pathlib import Path

import numpy as np

from models import FEATURES

ROUNDS = 15
CALLS = 300


@dataclass(frozen=True)
class Placement:
    """The processor of the client, and that of the servers."""

    client: int
    server: int

    def hold(self, *servers: int) -> None:
        """Hold this process, and all threads of the servers, named by their process ids, to these processors."""
        os.sched_setaffinity(0, {self.client})
        for pid in servers:
            for thread in Path(f"/proc/{pid}/task").iterdir():
                with suppress(ProcessLookupError):  # of a connection that has just ended
                    os.sched_setaffinity(int(thread.name), {self.server})


def placements(processors: Collection[int]) -> dict[str, Placement]:
    """Return client and server on one processor, and on two, where there are two, by what a row's title says of it."""
    first, *others = sorted(processors)
    found = {"": Placement(first, first)}
    return {**found, ", processors apart": Placement(first, others[0])} if others else found


@dataclass(frozen=True)
class Figures:
    """What some calls gave.

    Attributes:
        p50_s: Half of the answers came within.
        p99_s: All but a hundredth came within.
        per_s: Answers a second.
    """

    p50_s: float
    p99_s: float
    per_s: float

    @classmethod
    def of(cls, times: Sequence[float], elapsed_s: float) -> Figures:
        """Sum up the seconds that each answer took."""
        ordered = sorted(times)
        return cls(statistics.median(ordered), ordered[len(ordered) * 99 // 100], len(ordered) / elapsed_s)


class Compared:
    """Figures of two sides, from interleaved rounds."""

    def __init__(self, ours: Callable[[], Figures], floor: Callable[[], Figures]) -> None:
        self._rounds: list[tuple[Figures, Figures]] = []
        ours(), floor()
        for at in range(ROUNDS):
            if at % 2:
                self._rounds.append((ours(), floor()))
            else:
                second = floor()
                self._rounds.append((ours(), second))

    def of(self, figure: str) -> tuple[float, float, float]:
        """Return the medians of a figure of `Figures`, ours and the floor's, and the median of the rounds' ratios."""
        pairs = [(attrgetter(figure)(ours), attrgetter(figure)(floor)) for ours, floor in self._rounds]
        ours, floor = zip(*pairs, strict=True)
        return statistics.median(ours), statistics.median(floor), statistics.median(a / b for a, b in pairs)


def one_after_the_other(call: Callable[[], object]) -> Callable[[], Figures]:
    """Return what makes calls on one connection."""

    def measure() -> Figures:
        times = []
        begin = time.perf_counter()
        for _ in range(CALLS):
            start = time.perf_counter()
            call()
            times.append(time.perf_counter() - start)
        return Figures.of(times, time.perf_counter() - begin)

    return measure


def all_at_once(connections: Sequence[socket.socket], requests: Sequence[bytes]) -> Callable[[], Figures]:
    """Return what keeps one request under way on each of several connections, from one thread."""
    by_number = {connection.fileno(): connection for connection in connections}
    poll = select.epoll()
    for number in by_number:
        poll.register(number, select.EPOLLIN)
    following = itertools.cycle(requests)

    def measure() -> Figures:
        times: list[float] = []
        sent = {}
        begin = time.perf_counter()
        for number, connection in by_number.items():
            sent[number] = time.perf_counter()
            connection.sendall(next(following))
        while sent:
            for number, _ in poll.poll():
                by_number[number].recv(65536)
                now = time.perf_counter()
                times.append(now - sent.pop(number))
                if len(times) + len(sent) < 4 * CALLS:
                    sent[number] = now
                    by_number[number].sendall(next(following))
        return Figures.of(times, time.perf_counter() - begin)

    return measure


def client(address: str, requests: Sequence[bytes]) -> Callable[[], bytes]:
    """Return what sends one request after the other on a connection of its own, and returns the answer to each."""
    connection, following = connected(address), itertools.cycle(requests)

    def call() -> bytes:
        connection.sendall(next(following))
        return connection.recv(65536)

    return call


def patient_client(address: str, requests: Sequence[bytes]) -> Callable[[], bytes]:
    """Return a `client` that reads until the answer is whole, which MLServer sends in two parts."""
    connection, following = connected(address), itertools.cycle(requests)

    def call() -> bytes:
        connection.sendall(next(following))
        answer = connection.recv(65536)
        while (end := answer.find(b"\r\n\r\n")) < 0 or len(answer) < end + 4 + _content_length(answer[:end]):
            answer += connection.recv(65536)
        return answer

    return call


def connected(address: str) -> socket.socket:
    """Connect to ``http://HOST:PORT`` or ``unix:PATH``."""
    if address.startswith("unix:"):
        connection = socket.socket(socket.AF_UNIX)
        connection.connect(address.removeprefix("unix:"))
        return connection
    host, _, port = address.removeprefix("http://").rpartition(":")
    connection = socket.create_connection((host, int(port)))
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return connection


def requests_of(form: str, x: np.ndarray) -> list[bytes]:
    """Return a request for each row, in a form: ``JSON``, ``binary``, ``rows``; their bodies differ in length."""
    make = {"JSON": _json_request, "binary": _binary_request, "rows": _rows_request}[form]
    return [make(x[at : at + 1]) for at in range(len(x))]


def _json_request(x: np.ndarray) -> bytes:
    tensor = {"name": "x", "shape": list(x.shape), "datatype": "FP32", "data": x.ravel().tolist()}
    return _request("/v2/models/quality/infer", json.dumps({"inputs": [tensor]}).encode())


def _binary_request(x: np.ndarray) -> bytes:
    tensor = {"name": "x", "shape": list(x.shape), "datatype": "FP32", "parameters": {"binary_data_size": x.nbytes}}
    head = json.dumps({"inputs": [tensor], "parameters": {"binary_data_output": True}}).encode()
    return _request("/v2/models/quality/infer", head + x.tobytes(), Inference_Header_Content_Length=str(len(head)))


def _rows_request(x: np.ndarray) -> bytes:
    return _request("/v1/predict", json.dumps([{f"x{at}": float(x[0, at]) for at in range(FEATURES)}]).encode())


def _request(path: str, body: bytes, **headers: str) -> bytes:
    lines = [f"POST {path} HTTP/1.1", "Host: 127.0.0.1", "User-Agent: bench", "Accept: */*"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return ("\r\n".join([*lines, f"Content-Length: {len(body)}"]) + "\r\n\r\n").encode() + body


def _content_length(head: bytes) -> int:
    return int(head.lower().partition(b"content-length:")[2].partition(b"\r\n")[0])
