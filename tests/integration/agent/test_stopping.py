"""An orderly end comes soon, whatever a thread waits for: a signal that another took, a host that never answers."""

import socket
import subprocess
import sys
import threading
import time

import pytest

from shoal_agent.adapters.http_client import HttpClient
from shoal_agent.errors import TransportError

PROGRAM = """
import signal, socket, threading
from shoal_agent.stopping import stop_on_signals, wait_for

stop = stop_on_signals()
listener = socket.create_server(("127.0.0.1", 0))
accepting = threading.Thread(target=listener.accept, daemon=True)
accepting.start()
threading.Timer(0.3, signal.pthread_kill, (accepting.ident, signal.SIGTERM)).start()
print(wait_for(stop, within_s=0.01), flush=True)
print(wait_for(stop), flush=True)
"""


def test_a_signal_that_another_thread_took_ends_the_wait():
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, timeout=30, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "False\nTrue\n", "")


@pytest.fixture
def hole():
    """A host that takes connections and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener.getsockname()[1]


def test_an_agent_that_was_sent_on_to_a_host_that_hangs_answers_and_stops_soon(world, hole):
    digest = world.pack(3.0, "1.0")
    world.assign(digest)
    given, asked = world.server.get, threading.Event()

    def get(path, headers):
        if "/blobs/" not in path:
            return given(path, headers)
        asked.set()
        return 302, {"Location": f"http://127.0.0.1:{hole}/blob"}, b""

    world.server.get = get
    agent = world.agent()
    agent.start()
    assert asked.wait(60)
    began = time.monotonic()
    agent.stop()
    assert time.monotonic() - began < 20  # a read alone would wait for 30 s
    world.server.get = given
    with world.agent():
        world.committed(digest)


def test_lines_that_are_cut_end_every_wait_and_open_no_other(hole):
    client = HttpClient(f"http://127.0.0.1:{hole}", timeout_s=600.0)
    said: list[str] = []

    def ask() -> None:
        with pytest.raises(TransportError) as raised:
            client.exchange("GET", "/")
        said.append(str(raised.value))

    waiting = threading.Thread(target=ask)
    waiting.start()
    while not any(connection.sock for connection in list(client.lines._connections)):
        waiting.join(0.01)
    client.lines.cut()
    waiting.join(60)
    ask()
    client.close()
    assert (len(said), "the agent stops" in said[1]) == (2, True)
