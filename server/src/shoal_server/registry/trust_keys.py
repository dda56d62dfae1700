"""The signing keys on the server's own disk.

Owns making, loading and deleting them. In development trust these are all four roles' keys: whoever can read this
folder can sign releases. Once real keys are adopted only the online keys (snapshot, timestamp) stay, and the files of
the others are deleted.
"""

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from cryptography.hazmat.primitives.serialization import load_pem_private_key
from securesystemslib.signer import CryptoSigner
from tuf.api.metadata import Root

from shoal_server.errors import StartError

ROLES = ("root", "targets", "snapshot", "timestamp")
"""TUF's top-level roles, each with a key of its own (ECDSA P-256)."""

ONLINE_ROLES = ("snapshot", "timestamp")
"""What the server signs in every trust mode."""

_NEXT = ".next"


@dataclass(frozen=True)
class ServerKeys:
    """The signers that this server holds, by key id."""

    signers: dict[str, CryptoSigner]

    def find(self, root: Root, role: str) -> CryptoSigner | None:
        """Return the signer that a root names for a role; none: this server may not sign for it."""
        held = (self.signers.get(keyid) for keyid in root.roles[role].keyids)
        return next((signer for signer in held if signer is not None), None)


def missing_keys(keys: ServerKeys, root: Root, roles: Iterable[str]) -> StartError | None:
    """Return the complaint about roles for which no key is there, if any."""
    missing = [role for role in roles if keys.find(root, role) is None]
    if not missing:
        return None
    return StartError(
        f"the signing keys {', '.join(missing)} are missing, but the database has what they signed",
        hint="restore the folder keys/ from the same backup as the database",
    )


def make_keys(folder: Path, roles: Iterable[str] = ROLES) -> dict[str, CryptoSigner]:
    """Make the keys that aren't there yet, readable by this user only; return all, by role."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    for role in roles:
        path = folder / f"{role}.pem"
        if not path.exists():
            _write_secret(path, CryptoSigner.generate_ecdsa().private_bytes)
    return {role: _load(folder / f"{role}.pem") for role in roles}


def load_keys(folder: Path) -> ServerKeys:
    """Load all keys that are there."""
    signers = (_load(path) for path in sorted(folder.glob("*.pem")))
    return ServerKeys({signer.public_key.keyid: signer for signer in signers})


def next_online_keys(folder: Path) -> dict[str, CryptoSigner]:
    """Return keys that shall replace the online ones; made at the first call, used once a root names them."""
    made = make_keys(folder, [role + _NEXT for role in ONLINE_ROLES])
    return {role.removesuffix(_NEXT): signer for role, signer in made.items()}


def tidy_keys(folder: Path, root: Root) -> list[str]:
    """Let the key files follow the newest root.

    Online keys that were made for it become the present ones; root and release keys that it doesn't name are deleted.

    Returns:
        Names of the files that were deleted.
    """
    named = {keyid for role in root.roles.values() for keyid in role.keyids}
    for path in sorted(folder.glob(f"*{_NEXT}.pem")):
        if _load(path).public_key.keyid in named:
            path.replace(path.with_name(path.name.replace(_NEXT, "")))
    gone = []
    for path in (folder / "root.pem", folder / "targets.pem"):
        if path.exists() and _load(path).public_key.keyid not in named:
            path.unlink()
            gone.append(path.name)
    return gone


def _load(path: Path) -> CryptoSigner:
    try:
        return CryptoSigner(load_pem_private_key(path.read_bytes(), password=None))
    except (ValueError, TypeError) as error:
        raise StartError(f"{path} is no signing key: {error}", hint="restore it from a backup") from error


def _write_secret(path: Path, content: bytes) -> None:
    """Write whole or not at all, never readable by others, on the disk before anything is signed with it."""
    partial = path.with_suffix(".part")
    descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)
