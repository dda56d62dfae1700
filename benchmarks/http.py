"""The local HTTP interface against what no server could beat: a bare socket reply plus the raw run.

Both servers are children of their own, with the same model: ours, and one thread a connection that receives a request
of the same size, runs the model with onnxruntime as it is, and sends an answer of the same size without reading or
writing a word of it. Rounds are interleaved; the ratio is the median of the rounds' ratios. Both sides share a
processor with their client, or have another than it (see `http_load`).

With ``--peers`` MLServer serves the same model over the same protocol in the same run (how to install it stands in
``benchmarks/http_peer.py``)::

    make bench BENCH=http BENCH_ARGS=--peers
"""
# ruff: noqa: A005, E402

from __future__ import annotations

import sys
from pathlib import Path

HERE = str(Path(__file__).parent)
if sys.path[0] == HERE:  # this folder last, else this file would hide the standard library's http
    sys.path.append(sys.path.pop(0))

import json
import multiprocessing
import os
import socket
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnContext

from frame import Row, compared, run
from http_load import (
    Compared,
    Placement,
    all_at_once,
    client,
    connected,
    one_after_the_other,
    patient_client,
    placements,
    requests_of,
)
from http_peer import PEER, MlServer
from models import load, sample, trained
from shoal_agent.runtime.slots import SlotTable
from shoal_agent.serving.api import Api
from shoal_agent.serving.http import LocalServer
from shoal_agent.serving.listen import Listen

DIFFERENT = 16
"""Rows that are sent in turn, for clients seldom repeat themselves."""

AT_ONCE = 8
"""Connections of the second part."""


def rows() -> Iterator[Row]:
    processors = os.sched_getaffinity(0)
    places = placements(processors)
    try:
        with tempfile.TemporaryDirectory() as folder:
            for name in ("linear", "gbdt"):
                yield from _of_model(name, folder, places)
    finally:
        os.sched_setaffinity(0, processors)


def _of_model(name: str, folder: str, places: Mapping[str, Placement]) -> Iterator[Row]:
    context = multiprocessing.get_context("spawn")
    ours = _Child(context, _serve_ours, trained(name), folder)
    for form, place in (("JSON", "TCP"), ("binary", "TCP"), ("rows", "TCP"), ("JSON", "Unix socket")):
        sent = requests_of(form, sample(DIFFERENT))
        answer = client(ours.facts[place], sent)()
        assert answer.startswith(b"HTTP/1.1 200"), answer
        bare = _Child(context, _serve_bare, trained(name), (folder, place, answer))
        for where, placement in places.items():
            if where and (form, place) != ("JSON", "TCP"):
                continue
            placement.hold(ours.pid, bare.pid)
            addresses, title = (ours.facts[place], bare.facts[place]), f"{name}, {form}, {place}{where}"
            one = Compared(*(one_after_the_other(client(address, sent)) for address in addresses))
            yield _row(f"{title}, p50", one, "p50_s", at_most=3.0)
            if (name, form, place) == ("linear", "JSON", "TCP"):
                yield _row(f"{title}, p99", one, "p99_s")
                yield from _at_once(title, addresses, sent)
        bare.stop()
    if "--peers" in sys.argv:
        places[""].hold(ours.pid)
        yield from _beside_mlserver(name, ours.facts["TCP"], requests_of("JSON", sample(DIFFERENT)), Path(folder))
    ours.stop()


def _at_once(title: str, addresses: tuple[str, str], sent: Sequence[bytes]) -> Iterator[Row]:
    loads = (all_at_once([connected(address) for _ in range(AT_ONCE)], sent) for address in addresses)
    found = Compared(*loads)
    value, floor, ratio = found.of("per_s")
    yield compared(f"{title}, {AT_ONCE} at once", value, "1/s", floor=floor, ratio=ratio)
    yield _row(f"{title}, {AT_ONCE} at once, p99", found, "p99_s")


def _row(title: str, found: Compared, figure: str, *, at_most: float | None = None) -> Row:
    value, floor, ratio = found.of(figure)
    return compared(title, value * 1e6, "us", floor=floor * 1e6, ratio=ratio, at_most=at_most)


def _beside_mlserver(name: str, address: str, sent: Sequence[bytes], folder: Path) -> Iterator[Row]:
    """Ours and MLServer, the same requests, interleaved."""
    title = f"{name}, JSON, TCP, p50, over MLServer"
    if not PEER.is_file():
        yield Row(f"{title} (not installed: see benchmarks/http_peer.py)", 0.0, "us")
        return
    peer = MlServer(trained(name), folder)  # on the processor to which this process is held
    try:
        call, other = (patient_client(place, sent) for place in (address, peer.address))
        said, theirs = (json.loads(ask().partition(b"\r\n\r\n")[2])["outputs"][0]["data"] for ask in (call, other))
        assert said == theirs, (said, theirs)
        yield _row(title, Compared(one_after_the_other(call), one_after_the_other(other)), "p50_s", at_most=0.125)
    finally:
        peer.stop()


class _Child:
    """A server in a process of its own; `facts` is what it says when it is ready."""

    def __init__(self, context: SpawnContext, serve: Callable[..., None], *args: object) -> None:
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=serve, args=(theirs, *args), daemon=True)
        self._process.start()
        self.facts: dict[str, str] = self._pipe.recv()

    @property
    def pid(self) -> int:
        return self._process.pid or 0

    def stop(self) -> None:
        self._pipe.send(None)
        self._process.join(10)


def _serve_ours(pipe: Connection, model: bytes, folder: str) -> None:
    slots = SlotTable()
    slots.install("quality", load(model, spec=True))
    tcp, unix = Listen("127.0.0.1", 0), Listen(path=Path(folder) / f"ours-{time.monotonic_ns()}.sock")
    servers = [LocalServer(Api(slots, hosts=listen.hosts).answerer, listen) for listen in (tcp, unix)]
    pipe.send(dict(zip(("TCP", "Unix socket"), [server.start() for server in servers], strict=True)))
    pipe.recv()
    for server in servers:
        server.stop()


def _serve_bare(pipe: Connection, model: bytes, setting: tuple[str, str, bytes]) -> None:
    folder, place, answer = setting
    session = load(model, spec=False).engine.session
    if place == "TCP":
        listener = socket.create_server(("127.0.0.1", 0))
        pipe.send({place: f"http://127.0.0.1:{listener.getsockname()[1]}"})
    else:
        listener = socket.socket(socket.AF_UNIX)
        path = f"{folder}/bare-{time.monotonic_ns()}.sock"
        listener.bind(path)
        listener.listen()
        pipe.send({place: f"unix:{path}"})

    def reply(connection: socket.socket) -> None:
        feeds = {"x": sample(1)}
        with connection:
            while connection.recv(16384):
                session.run(None, feeds)
                connection.sendall(answer)

    def accept() -> None:
        while True:
            connection, _ = listener.accept()
            if place == "TCP":
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            threading.Thread(target=reply, args=(connection,), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    pipe.recv()


if __name__ == "__main__":
    run("http", rows())
