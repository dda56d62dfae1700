"""Who this device is: its id, its credentials, its server; and the lock that lets one agent use a state folder.

identity/device.json   id, server, credentials (0600)
identity/key.pem       the device's own private key, made here, never sent (0600); key-….pem after a rotation
identity/ca.pem        the server's certificate authority, where it has one of its own
lock                   held while an agent runs
"""

from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import Collection
from contextlib import suppress
from pathlib import Path

import msgspec

from shoal_agent.adapters.durable import PRIVATE, put, sync_folder
from shoal_agent.errors import DamagedFileError, NotEnrolledError, StateFolderError, StateInUseError

_WHOSE = "run as the user whose folder it is, or give another --state"


class Held(msgspec.Struct, frozen=True, kw_only=True):
    """Credentials that this device held before those of now.

    Attributes:
        secret: Password.
        credential: Their number.
        key_file: Name of the private key's file.
    """

    secret: str
    credential: int
    key_file: str


class Identity(msgspec.Struct, frozen=True, kw_only=True):
    """``device.json``.

    Attributes:
        device: The device's id; user name for HTTP and MQTT.
        secret: Password for both.
        url: Of the server.
        root_digest: Of the trust root that the join token named.
        mqtt_url: Of the broker; none: HTTP only.
        poll_s: Seconds between questions over HTTP while MQTT is down.
        labels: Facts that the integrator gave, reported at every connect.
        credential: Number of these credentials, by the server's count.
        key_file: Name of the private key's file.
        confirmed: Whether the server knows that these are stored here; until then it takes the `previous` ones, too.
        previous: Those before, for a server that does not know of these: it was restored from a backup.
    """

    device: str
    secret: str
    url: str
    root_digest: str
    mqtt_url: str | None = None
    poll_s: float = 60.0
    labels: dict[str, str] = msgspec.field(default_factory=dict)
    credential: int = 1
    key_file: str = "key.pem"
    confirmed: bool = True
    previous: Held | None = None

    @property
    def broker_secret(self) -> str:
        """Password for the broker: new ones only after the server has confirmed them."""
        return self.secret if self.confirmed or self.previous is None else self.previous.secret

    @property
    def known_key_file(self) -> str:
        """Name of the private key that the server knows, by which mail is signed."""
        return self.key_file if self.confirmed or self.previous is None else self.previous.key_file


class IdentityFolder:
    """``identity`` in the state folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    @property
    def ca_file(self) -> Path | None:
        """The server's own certificate authority, if it was pinned."""
        path = self._folder / "ca.pem"
        return path if path.exists() else None

    def load(self) -> Identity:
        """Return who this device is.

        Raises:
            NotEnrolledError: It has not joined yet.
            DamagedFileError: The file does not parse.
            StateFolderError: This user may not read it.
        """
        path = self._folder / "device.json"
        try:
            return msgspec.json.decode(path.read_bytes(), type=Identity)
        except (FileNotFoundError, NotADirectoryError) as error:
            raise NotEnrolledError(
                f"{self._folder.parent} belongs to no device yet",
                hint="run the line that `shoalctl token create` printed: shoal-agent join URL --token … --state DIR",
            ) from error
        except OSError as error:
            raise StateFolderError(f"{path} can't be read: {error.strerror}", hint=self._remedy()) from error
        except msgspec.DecodeError as error:
            raise DamagedFileError(
                f"{path} is damaged: {error}",
                hint=f"move {path.parent} away and let the device join again; its models stay",
            ) from error

    def save(self, identity: Identity) -> None:
        """Store who this device is; last of all steps of joining."""
        self._prepare()
        put(self._folder / "device.json", msgspec.json.format(msgspec.json.encode(identity)), mode=PRIVATE)

    def save_ca(self, pem: bytes) -> None:
        """Pin the server's certificate authority."""
        self._prepare()
        put(self._folder / "ca.pem", pem)

    def save_key(self, pem: bytes, *, name: str = "key.pem") -> None:
        """Store a private key; it is used once `device.json` names it."""
        self._prepare()
        put(self._folder / name, pem, mode=PRIVATE)

    def forget_keys(self, keep: Collection[str]) -> None:
        """Delete the private keys that nobody names any more."""
        for path in self._folder.glob("key*.pem"):
            if path.name not in keep:
                path.unlink(missing_ok=True)

    def key(self, name: str = "key.pem") -> bytes | None:
        """Return a private key, if it was made."""
        try:
            return (self._folder / name).read_bytes()
        except FileNotFoundError:
            return None

    def _remedy(self) -> str:
        """Return what to do about an identity that this user may not read."""
        state = self._folder.parent
        with suppress(OSError):
            if state.stat().st_uid == os.geteuid():  # somebody copied or unpacked it here as another user
                return f"it belongs to another user than its folder; as root: chown -R --reference={state} {state}"
        return _WHOSE

    def _prepare(self) -> None:
        if not self._folder.is_dir():
            self._folder.mkdir(parents=True, mode=0o700)
            sync_folder(self._folder.parent)


class FolderLock:
    """An exclusive lock on a state folder; the kernel drops it when the process ends, however it ends."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / "lock"
        self._descriptor: int | None = None

    def acquire(self) -> None:
        """Take the lock.

        Raises:
            StateInUseError: Another agent holds it.
            StateFolderError: There is no such folder, or this user may not write into it.
        """
        descriptor = self._open()
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            holder = os.pread(descriptor, 32, 0).decode(errors="replace").strip()
            os.close(descriptor)
            raise StateInUseError(
                f"{self._path.parent} is in use by the agent with process id {holder or 'unknown'}",
                hint="one agent per state folder: stop the other, or give this one another --state",
            ) from error
        self._descriptor = descriptor
        with suppress(OSError):  # the number is for people; a disk that takes nothing must not stop a start
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)

    def release(self) -> None:
        """Give the lock back."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def held_by_other(self) -> bool:
        """Tell whether some agent runs on the folder now."""
        try:
            self.acquire()
        except StateInUseError:
            return True
        except StateFolderError:
            return False
        self.release()
        return False

    def _open(self) -> int:
        """Open the file; one that can't be written, because of the disk, still locks."""
        folder = self._path.parent
        try:
            return os.open(self._path, os.O_RDWR | os.O_CREAT, 0o644)
        except (FileNotFoundError, NotADirectoryError) as error:
            raise StateFolderError(
                f"there is no state folder {folder}", hint="name it by --state or SHOAL_STATE; `join` makes it"
            ) from error
        except OSError as error:
            if error.errno in {errno.EROFS, errno.ENOSPC, errno.EDQUOT} and self._path.exists():
                return os.open(self._path, os.O_RDONLY)
            raise StateFolderError(
                f"the state folder {folder} can't be written: {error.strerror}", hint=_WHOSE
            ) from error
