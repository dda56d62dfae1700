"""A TCP proxy that fails as networks do: by a plan, or as the test says.

It stands between two parts that speak for real. What it does with connections is its `mode`; seeded chance decides at
which byte something happens, so that a run can be repeated.
"""

from __future__ import annotations

import random
import selectors
import socket
import threading
import time
from contextlib import suppress
from enum import Enum
from typing import Self

_CHUNK = 4096
_TICK_S = 0.02


class Mode(Enum):
    """What happens to bytes and connections."""

    PASS = "pass"  # nothing
    REFUSE = "refuse"  # every connection is cut, and new ones are as soon as they are made
    STALL = "stall"  # connections stay and are made, but no byte goes either way
    HALF_OPEN = "half_open"  # what clients say is swallowed; what the server says comes
    DELAY = "delay"  # every piece waits for a moment
    CUT = "cut"  # each connection ends after so many bytes, in the middle of whatever it is
    CORRUPT = "corrupt"  # one bit of each connection flips after so many bytes


class _Pair:
    """A client's connection and the one behind it."""

    def __init__(self, client: socket.socket, server: socket.socket, fate: int) -> None:
        self.client, self.server = client, server
        self.fate = fate
        self.passed = 0
        self.is_spent = False

    def close(self) -> None:
        for end in (self.client, self.server):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()


class FaultyProxy:
    """Passes connections on to an address, as its mode says.

    Args:
        port: Of the server, on loopback.
        seed: Decides where connections are cut and bits flip.
    """

    def __init__(self, port: int, *, seed: int) -> None:
        self._target = ("127.0.0.1", port)
        self._lots = random.Random(seed)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._listener.settimeout(_TICK_S)
        self.port = int(self._listener.getsockname()[1])
        self.mode = Mode.PASS
        self.connections = 0
        self.faults = 0
        self._pairs: set[_Pair] = set()
        self._stopping = threading.Event()
        self._threads = [threading.Thread(target=self._accept, daemon=True)]

    def __enter__(self) -> Self:
        self._threads[0].start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        for thread in self._threads:
            thread.join(10)
        self._listener.close()

    def set(self, mode: Mode) -> None:
        """Change what happens, to the connections that are there and to new ones."""
        self.mode = mode
        for pair in list(self._pairs):
            pair.is_spent = False
            pair.fate = pair.passed + self._lots.randrange(1, 3000)

    def _accept(self) -> None:
        while not self._stopping.is_set():
            try:
                client, _ = self._listener.accept()
            except TimeoutError:
                continue
            self.connections += 1
            if self.mode is Mode.REFUSE:
                client.close()
                continue
            try:
                server = socket.create_connection(self._target, timeout=5)
            except OSError:
                client.close()
                continue
            pair = _Pair(client, server, self._lots.randrange(1, 3000))
            self._pairs.add(pair)
            thread = threading.Thread(target=self._pass_on, args=(pair,), daemon=True)
            self._threads.append(thread)
            thread.start()

    def _pass_on(self, pair: _Pair) -> None:
        try:
            with selectors.DefaultSelector() as selector:
                selector.register(pair.client, selectors.EVENT_READ, pair.server)
                selector.register(pair.server, selectors.EVENT_READ, pair.client)
                while not self._stopping.is_set() and self._turn(pair, selector):
                    pass
        except OSError:
            pass
        finally:
            self._pairs.discard(pair)
            pair.close()

    def _turn(self, pair: _Pair, selector: selectors.BaseSelector) -> bool:
        """Pass on what is there; return whether the connection goes on."""
        if self.mode is Mode.REFUSE:
            return False
        if self.mode is Mode.STALL:
            time.sleep(_TICK_S)
            return True
        for key, _ in selector.select(_TICK_S):
            data = key.fileobj.recv(_CHUNK)  # type: ignore[union-attr]
            if not data:
                return False
            if self.mode is Mode.HALF_OPEN and key.fileobj is pair.client:
                continue
            if self.mode is Mode.DELAY:
                time.sleep(self._lots.uniform(0, 0.2))
            data = self._spoilt(pair, data)
            key.data.sendall(data)
            pair.passed += len(data)
            if self.mode is Mode.CUT and pair.is_spent:
                return False
        return True

    def _spoilt(self, pair: _Pair, data: bytes) -> bytes:
        """Return what is passed on of a piece, in which the connection's fate may lie."""
        at = pair.fate - pair.passed
        if self.mode not in {Mode.CUT, Mode.CORRUPT} or pair.is_spent or at >= len(data):
            return data
        pair.is_spent = True
        self.faults += 1
        at = max(at, 0)
        if self.mode is Mode.CUT:
            return data[:at]
        return data[:at] + bytes([data[at] ^ 1 << self._lots.randrange(8)]) + data[at + 1 :]
