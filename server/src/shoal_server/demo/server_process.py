"""The show's server: the real one in a process of its own, with quicker worker loops.

Run as ``python -m shoal_server.demo.server_process DATA LISTEN``. Prints one line of JSON when it is ready (where it
is, and the first password), and ends when its standard input does: it can't outlive the show.
"""

from __future__ import annotations

import json
import logging
import signal
import sys
import threading
from dataclasses import asdict
from pathlib import Path

from shoal_server.bootstrap import Server
from shoal_server.storage.settings import Pace, Settings

QUICK = Pace(publisher_s=0.2, controller_s=0.25, scan_s=0.5, trust_s=600.0)
"""Windows of the show last half a second instead of five minutes, so the loops turn faster; nothing else differs."""


def main(data: Path, listen: str) -> None:
    """Serve until standard input ends or SIGTERM comes."""
    logging.basicConfig(level="WARNING", format="server: %(levelname)s %(name)s: %(message)s")
    ended = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: ended.set())
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the show ends this process in its turn
    threading.Thread(target=_await_end, args=(ended,), daemon=True).start()
    server = Server(Settings(data=data, listen=listen, pace=QUICK))
    server.start()
    try:
        sys.stdout.write(json.dumps({**asdict(server.runtime), "password": server.first_password}) + "\n")
        sys.stdout.flush()
        while not ended.wait(1.0):
            pass  # a signal that another thread took is only found where the main thread runs
    finally:
        server.stop()


def _await_end(ended: threading.Event) -> None:
    sys.stdin.read()
    ended.set()


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
