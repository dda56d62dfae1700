"""The folder that a release engineer keeps: which keys are root keys and release keys, and what they last saw.

    keyring.json   threshold, address and public key of every root and release key
    root-1.pem …   key files (a key of a cloud's service or an HSM has none)
    root.json      the newest root that was signed or verified here: what the server's later answers are checked against
    seen.json      version of the newest signed list that was seen here: an older one is refused

Owns that form. Private keys are opened by `signers`. Every file can be moved to where it is safest: what a command
needs and does not find it names.
"""

from __future__ import annotations

import errno
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import msgspec
from securesystemslib.signer import Key, Signer

from shoal_converter.errors import KeyUnusableError
from shoal_converter.signing.signers import Opener, write_key
from shoal_protocol.errors import CallerError
from shoal_protocol.trust.roots import RoleKeys

DEFAULT_FOLDER = Path("shoal-keys")
KINDS = ("root", "release")


class KeyEntry(msgspec.Struct, frozen=True, kw_only=True):
    """One key: where it is, and its public half in TUF's form."""

    address: str
    keyid: str
    public: dict[str, Any]

    def key(self) -> Key:
        """Return the public key."""
        return Key.from_dict(self.keyid, dict(self.public))


class KeySet(msgspec.Struct, frozen=True, kw_only=True):
    """The keys of one kind, and how many of them must sign."""

    keys: tuple[KeyEntry, ...]
    threshold: int = 1

    def role(self) -> RoleKeys:
        """Return the public keys with their threshold."""
        return RoleKeys(tuple(entry.key() for entry in self.keys), self.threshold)


class Keys(msgspec.Struct, frozen=True, kw_only=True):
    """``keyring.json``."""

    root: KeySet
    release: KeySet
    format_version: int = 1


class RootMemory:
    """A pinned root's file, and beside it what was seen.

    Args:
        path: Of the root.
        required: It has to be there.

    Raises:
        CallerError: It has to be there, and is not.
    """

    def __init__(self, path: Path, *, required: bool = False) -> None:
        if required and not path.is_file():
            raise CallerError(f"there is no root at {path}", hint="copy root.json from the folder of keys")
        self._path = path

    def root(self) -> bytes | None:
        """Return the newest root that was signed or verified here."""
        return self._path.read_bytes() if self._path.exists() else None

    def save_root(self, raw: bytes) -> None:
        """Remember a root that was signed or verified."""
        _put(self._path, raw)

    def seen(self) -> int:
        """Return the version of the newest signed list that was seen."""
        path = self._path.with_name("seen.json")
        try:
            return int(msgspec.json.decode(path.read_bytes(), type=dict[str, int])["list"])
        except FileNotFoundError:
            return 0
        except (OSError, KeyError, msgspec.DecodeError) as error:
            raise CallerError(
                f"{path} can't be read: {error}", hint="delete it, if you trust the server now"
            ) from error

    def save_seen(self, version: int) -> None:
        """Remember a signed list's version."""
        if version > self.seen():
            _put(self._path.with_name("seen.json"), msgspec.json.encode({"list": version}))


class Keyring(RootMemory):
    """One folder of keys.

    Args:
        folder: Where it is.
        opener: Opens private keys.
    """

    def __init__(self, folder: Path, opener: Opener) -> None:
        super().__init__(folder / "root.json")
        self.folder = folder
        self._opener = Opener(opener.passphrase, folder)

    def keys(self) -> Keys:
        """Return what the folder says.

        Raises:
            CallerError: It is no folder of keys.
        """
        path = self.folder / "keyring.json"
        try:
            return msgspec.json.decode(path.read_bytes(), type=Keys)
        except FileNotFoundError as error:
            raise CallerError(
                f"there are no keys in {self.folder}", hint="make them: shoal-convert keys init, or name --dir"
            ) from error
        except (OSError, msgspec.DecodeError) as error:
            raise CallerError(f"{path} can't be read: {error}") from error

    def save(self, keys: Keys) -> None:
        """Write ``keyring.json``."""
        _put(self.folder / "keyring.json", msgspec.json.format(msgspec.json.encode(keys), indent=2) + b"\n")

    def make(self, kind: str, *, passphrase: bytes | None) -> KeyEntry:
        """Make a key file under the next free number."""
        at = 1
        while (self.folder / f"{kind}-{at}.pem").exists():
            at += 1
        name = f"{kind}-{at}.pem"
        return entry_of(f"file:{name}", write_key(self.folder / name, passphrase=passphrase))

    def take(self, address: str) -> KeyEntry:
        """Return the entry of a key that is elsewhere."""
        kept = f"file:{Path(address).resolve()}" if Path(address).is_file() else address
        return entry_of(kept, self._opener.open(kept))

    def signer(self, entry: KeyEntry) -> Signer:
        """Open a key.

        Raises:
            KeyUnusableError: It is not here, does not open, or is another key than the entry says.
        """
        found = self._opener.open(entry.address, public=entry.key())
        if found.public_key.keyid != entry.keyid:
            raise KeyUnusableError(f"{entry.address} holds another key than keyring.json says")
        return found

    def signers_here(self, entries: Iterable[KeyEntry]) -> list[Signer]:
        """Return the signers of those keys whose files are here, or that are in a service."""
        return [self.signer(entry) for entry in entries if self.is_here(entry)]

    def is_here(self, entry: KeyEntry) -> bool:
        """Tell whether a key can be opened from here; a file may have been moved to a safe place."""
        scheme, _, path = entry.address.partition(":")
        return scheme != "file" or (self.folder / path).exists()


def _put(path: Path, content: bytes) -> None:
    """Write what only helps the next run; a pipeline's folder of secrets may be read-only."""
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        partial = path.with_name(f"{path.name}.part")
        partial.write_bytes(content)
        partial.replace(path)
    except OSError as error:
        if error.errno not in {errno.EROFS, errno.EACCES, errno.EPERM}:
            raise KeyUnusableError(f"{path} can't be written: {error.strerror or error}") from error


def entry_of(address: str, signer: Signer) -> KeyEntry:
    """Return what ``keyring.json`` says of a key."""
    return KeyEntry(address=address, keyid=signer.public_key.keyid, public=signer.public_key.to_dict())
