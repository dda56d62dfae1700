"""A signal ends the program also when the kernel gives it to a thread that waits for something else."""

import subprocess
import sys

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
