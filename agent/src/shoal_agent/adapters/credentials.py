"""The credentials that this device logs in with, while they may be replaced.

Owns which of the stored ones are used, for HTTP and at the broker, and every change of them in ``device.json``. Leaves
getting new ones to `shoal_agent.adapters.rotation`.

Invariants:
    - A change is one rename of one file that names secret and key together; the key's file is there before.
    - What was held before is kept until the next change: if the server takes it and not the new one, as after a restore
      from a backup, the device is back at it without anybody's help; the new one is then kept in its place.
    - Only an answer that the server gives to those who are logged in speaks for a password, never a fault or a
      redirect, which something on the way to it may have sent.
    - A broker sees new credentials only after the server has confirmed them, because it knows one secret a device.
"""

from __future__ import annotations

import hashlib
import logging
import threading
from typing import NamedTuple

import msgspec

from shoal_agent.adapters.identity import Held, Identity, IdentityFolder

_log = logging.getLogger(__name__)
_UNAUTHORISED = 401
_NOT_MODIFIED = 304


class Key(NamedTuple):
    """A private key and the name of its file."""

    pem: bytes
    file: str


class Credentials:
    """The credentials of one device; any thread may ask.

    Args:
        folder: Where they are stored.
        identity: As it was read from there.
    """

    def __init__(self, folder: IdentityFolder, identity: Identity) -> None:
        self._folder = folder
        self._identity = identity
        self._lock = threading.Lock()
        self._tries_previous = False
        self.refused = False
        """Whether the server's last word was that it takes none of them."""

    @property
    def identity(self) -> Identity:
        """Who this device is, with the credentials of now."""
        return self._identity

    @property
    def is_confirmed(self) -> bool:
        """Whether the server knows that the newest ones are stored here."""
        return self._identity.confirmed

    def login(self) -> tuple[str, str]:
        """Return user and password for HTTP."""
        identity, previous = self._identity, self._identity.previous
        secret = previous.secret if self._tries_previous and previous is not None else identity.secret
        return identity.device, secret

    def broker_secret(self) -> str:
        """Return the password for the broker."""
        return self._identity.broker_secret

    def answered(self, secret: str, status: int) -> None:
        """Learn from an answer whether a password holds: the next request uses the other one if it does not.

        Args:
            secret: The request's password.
            status: The answer's, of a route that looks at the password.
        """
        with self._lock:
            identity, previous = self._identity, self._identity.previous
            if status == _UNAUTHORISED:
                self.refused = True
                if secret == self.login()[1] and previous is not None:
                    self._tries_previous = not self._tries_previous
                return
            if not 200 <= status < 300 and status != _NOT_MODIFIED:
                return
            self.refused = False
            if previous is not None and secret == previous.secret and self._tries_previous:
                _log.warning("the server knows credentials %d and not %d", previous.credential, identity.credential)
                held, other = msgspec.structs.asdict(previous), _held(identity)
                self._save(msgspec.structs.replace(identity, **held, confirmed=True, previous=other))
                self._tries_previous = False

    def key(self) -> Key | None:
        """Return the private key of now."""
        pem = self._folder.key(self._identity.key_file)
        return None if pem is None else Key(pem, self._identity.key_file)

    def keep_key(self, pem: bytes) -> Key:
        """Store a new private key, which is used only after `adopt`."""
        key = Key(pem, f"key-{hashlib.sha256(pem).hexdigest()[:12]}.pem")
        self._folder.save_key(key.pem, name=key.file)
        return key

    def adopt(self, secret: str, *, credential: int, key: Key) -> None:
        """Store credentials that were handed out, to be shown to the server."""
        with self._lock:
            before = self._identity
            self._save(
                msgspec.structs.replace(
                    before,
                    secret=secret,
                    credential=credential,
                    key_file=key.file,
                    confirmed=False,
                    previous=_held(before),
                )
            )
            self._tries_previous = False

    def confirm(self) -> None:
        """Note that the server has seen the newest ones."""
        with self._lock:
            self._save(msgspec.structs.replace(self._identity, confirmed=True))
            self._folder.forget_keys(_named(self._identity))

    def _save(self, identity: Identity) -> None:
        self._folder.save(identity)
        self._identity = identity


def _held(identity: Identity) -> Held:
    return Held(secret=identity.secret, credential=identity.credential, key_file=identity.key_file)


def _named(identity: Identity) -> set[str]:
    return {identity.key_file} | ({identity.previous.key_file} if identity.previous else set())
