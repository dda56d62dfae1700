"""Password and ACL files of an external mosquitto, written and reloaded so that every change takes hold.

Owns two files in one folder, ``passwords`` and ``acl``; mosquitto's own configuration names them (deploy/mosquitto has
it ready) and writes its process id beside them, by which it is told to reload (SIGHUP).

Invariants:
    - Files appear whole, by one rename, readable by whoever owns the folder: an unreadable password file at a reload
      would throw every device out. So mosquitto runs as the folder's owner or in its group.
    - `sync` returns only after mosquitto has read the new file. A signal that comes during a reload can be lost, so
      every file names a fresh user with a fresh secret, and the signal is repeated until that user is let in.
    - A mosquitto that is still starting is never signalled: it writes its process id before it has a handler for
      SIGHUP, and without one that signal ends it.
"""

from __future__ import annotations

import logging
import os
import re
import secrets
import signal
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from shoal_protocol.errors import ContentError
from shoal_protocol.mqtt.packet_codec import PacketReader, encode_packet
from shoal_protocol.mqtt.packets import ConnAck, Connect, ConnectCode
from shoal_protocol.mqtt.topics import DEVICE_RE, SERVER_STATUS
from shoal_server.link.port import Credential, LinkError
from shoal_server.link.verifiers import verifier_line, verify_secret

log = logging.getLogger(__name__)

PASSWORDS, ACL, PID = "passwords", "acl", "mosquitto.pid"
_PROBE_S = 0.2
_PATIENCE_S = 5.0


def acl_text(server_user: str) -> str:
    """Return the ACL file: the server may do all, a device only speak and hear under its own name."""
    return (
        f"user {server_user}\n"
        "topic readwrite #\n\n"
        "pattern write shoal/v1/%u/up/#\n"
        "pattern read shoal/v1/%u/down/#\n"
        f"pattern read {SERVER_STATUS}\n"
    )


class MosquittoCredentials:
    """`BrokerCredentials` of a mosquitto whose files are in a folder that both can reach.

    Args:
        folder: Where ``passwords``, ``acl`` and ``mosquitto.pid`` are.
        address: (host, port) at which mosquitto is asked whether it has read them.
        server: User name and secret of the server itself.
        ssl_context: When that address speaks TLS.
    """

    def __init__(
        self,
        folder: Path,
        *,
        address: tuple[str, int],
        server: tuple[str, str],
        ssl_context: ssl.SSLContext | None = None,
    ) -> None:
        self._folder = folder
        self._address = address
        self._tls = ssl_context
        self._server_user = server[0]
        self._server_secret = server[1].encode()
        self._server_line = _new_line(server[1])
        self._devices: dict[str, str] = {}
        self._is_written = False
        self._lock = threading.Lock()

    def sync(self, credentials: Sequence[Credential]) -> None:
        """Write the files and have mosquitto read them.

        Raises:
            LinkError: They can't be written, or it runs and does not let a user of the new file in.
        """
        with self._lock, self._writing():
            wanted = dict(credentials)
            if self._is_written and wanted == self._devices:
                return
            self._devices = wanted
            self._apply(wanted.items())

    def kick(self, device: str) -> None:
        """Take the device out for a moment, which ends its session.

        Raises:
            LinkError: As for `sync`.
        """
        with self._lock, self._writing():
            if device in self._devices:
                self._apply((name, line) for name, line in self._devices.items() if name != device)
                self._apply(self._devices.items())

    def prepare(self) -> None:
        """See to it that the server itself is let in, before anything else; devices in the files stay as they are.

        Raises:
            LinkError: The folder can't be written, or mosquitto runs and does not take the files.
        """
        with self._lock, self._writing():
            users = self._written()
            if verify_secret(self._server_secret, users.get(self._server_user, "")) and self._is_acl_right():
                return
            self._devices = {name: line for name, line in users.items() if DEVICE_RE.fullmatch(name)}
            self._devices.pop(self._server_user, None)
            self._apply(self._devices.items())

    @contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise LinkError(
                f"can't write mosquitto's files in {self._folder}: {error}",
                hint="make the folder, owned by the user that mosquitto runs as: see deploy/mosquitto",
            ) from error

    def _written(self) -> dict[str, str]:
        """Return the verifier lines that stand in the password file by user."""
        path = self._folder / PASSWORDS
        lines = path.read_text().splitlines() if path.exists() else []
        return {user: line for user, colon, line in (entry.partition(":") for entry in lines) if colon}

    def _is_acl_right(self) -> bool:
        path = self._folder / ACL
        return path.exists() and path.read_text() == acl_text(self._server_user)

    def _apply(self, devices: Iterable[Credential]) -> None:
        canary = _canary()
        self._is_written = False
        self._write(devices, canary=canary)
        until = time.monotonic() + _PATIENCE_S
        while self._told_to_reload():
            if self._is_let_in(canary):
                break
            if time.monotonic() > until:
                raise LinkError(
                    f"mosquitto does not let in who stands in {self._folder / PASSWORDS}",
                    hint="it must read the files of this folder: see deploy/mosquitto",
                )
        self._is_written = True  # only now: what it did not take is told again, though nothing has changed

    def _write(self, devices: Iterable[Credential], *, canary: tuple[str, str]) -> None:
        lines = [(self._server_user, self._server_line), (canary[0], _new_line(canary[1])), *devices]
        self._replace(ACL, acl_text(self._server_user))
        self._replace(PASSWORDS, "".join(f"{user}:{line}\n" for user, line in lines))

    def _replace(self, name: str, text: str) -> None:
        path, draft = self._folder / name, self._folder / f"{name}.new"
        with draft.open("w", encoding="utf-8") as file:
            draft.chmod(0o640)
            if os.geteuid() == 0:
                owner = self._folder.stat()
                os.chown(draft, owner.st_uid, owner.st_gid)
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        draft.replace(path)

    def _told_to_reload(self) -> bool:
        """Send the signal, where that is safe; False when none runs, which will read the files when it starts."""
        try:
            pid = int((self._folder / PID).read_text())
            if not Path(f"/proc/{pid}/comm").read_text().startswith("mosquitto"):  # the number may be another's by now
                return False
            if _survives_hangup(Path(f"/proc/{pid}/status").read_text()):
                os.kill(pid, signal.SIGHUP)
        except (OSError, ValueError) as error:
            log.info("mosquitto does not run here (%s); it will read its files when it starts", error)
            return False
        return True

    def _is_let_in(self, canary: tuple[str, str]) -> bool:
        until = time.monotonic() + _PROBE_S
        while time.monotonic() < until:
            try:
                if _login(self._address, canary, self._tls) is ConnectCode.ACCEPTED:
                    return True
            except (OSError, ContentError):
                pass
            time.sleep(0.01)
        return False


def _survives_hangup(status: str) -> bool:
    """Tell from ``/proc/<pid>/status`` whether a process catches, ignores or blocks SIGHUP (proc(5))."""
    masks = re.findall(r"^Sig(?:Cgt|Ign|Blk):\s*([0-9a-f]+)$", status, re.MULTILINE)
    return any(int(mask, 16) >> (signal.SIGHUP - 1) & 1 for mask in masks)


def _canary() -> tuple[str, str]:
    return f".canary-{secrets.token_hex(8)}", secrets.token_urlsafe(32)  # a dot: no device can be called so


def _new_line(secret: str) -> str:
    return verifier_line(secret, salt=secrets.token_bytes(12))


def _login(address: tuple[str, int], user: tuple[str, str], tls: ssl.SSLContext | None) -> ConnectCode | None:
    """Connect as a user and return the answer; none when there was none."""
    with socket.create_connection(address, timeout=1.0) as plain:
        wrapped = tls.wrap_socket(plain, server_hostname=address[0]) if tls else plain
        wrapped.sendall(encode_packet(Connect(client_id=user[0], username=user[0], password=user[1].encode())))
        reader = PacketReader()
        receive: Callable[[int], bytes] = wrapped.recv
        while data := receive(1024):
            reader.feed(data)
            answer = reader.next_packet()
            if answer is not None:
                return answer.code if isinstance(answer, ConnAck) else None
    return None
