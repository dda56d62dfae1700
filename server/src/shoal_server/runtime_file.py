"""`runtime.json`: how other programs on this machine find a server that runs, and that only one runs per folder.

Owns the file, the lock beside it, and the MQTT port that is kept over restarts.
"""

import fcntl
import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path

from shoal_server.errors import StartError

_FILE = "runtime.json"
_LOCK = "lock"
_MQTT_PORT = "mqtt_port"


@dataclass(frozen=True)
class Runtime:
    """Where a running server is."""

    url: str
    broker_url: str
    pid: int
    ca: str | None = None
    """Path of the certificate authority that clients must trust; None without TLS of our own."""

    def as_json(self) -> str:
        """Return the file's content."""
        return json.dumps(asdict(self))


class DataFolder:
    """The server's own folder, held by one server at a time."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock: int | None = None

    def hold(self) -> None:
        """Make the folder, readable by this user only, and keep other servers out of it.

        Raises:
            StartError: another server holds it, or it can't be made.
        """
        try:
            self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
            descriptor = os.open(self.path / _LOCK, os.O_RDWR | os.O_CREAT, 0o600)
        except OSError as error:
            raise StartError(f"the data folder {self.path} can't be used: {error}") from error
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            os.close(descriptor)
            running = read_runtime(self.path)
            where = f" at {running.url} (process {running.pid})" if running else ""
            raise StartError(
                f"another server{where} uses the data folder {self.path}",
                hint="stop it, or choose another --data",
            ) from error
        self._lock = descriptor

    def write_runtime(self, runtime: Runtime) -> None:
        """Tell where the server is; the file appears whole, and only this user can read it."""
        partial = self.path / f".{_FILE}.part"
        descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(runtime.as_json() + "\n")
        partial.replace(self.path / _FILE)

    def kept_mqtt_port(self) -> int | None:
        """Return the port that the embedded MQTT endpoint had last; joined devices know it."""
        try:
            return int((self.path / _MQTT_PORT).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None

    def keep_mqtt_port(self, port: int) -> None:
        """Remember the port of the embedded MQTT endpoint for the next start."""
        (self.path / _MQTT_PORT).write_text(f"{port}\n", encoding="utf-8")

    def release(self) -> None:
        """Take the file away and let another server in."""
        if self._lock is None:
            return
        (self.path / _FILE).unlink(missing_ok=True)
        os.close(self._lock)
        self._lock = None


def read_runtime(folder: Path) -> Runtime | None:
    """Return where the server of this folder is, None when it doesn't run or the file is damaged."""
    try:
        return Runtime(**json.loads((folder / _FILE).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None
