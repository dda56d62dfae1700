"""The keys of development trust: all of them on the server's own disk.

Owns making and loading them. Whoever can read this folder can sign releases, so a fleet that matters moves root and
release key away from the server; what stays is the online keys.
"""

import os
from dataclasses import dataclass
from pathlib import Path

from cryptography.hazmat.primitives.serialization import load_pem_private_key
from securesystemslib.signer import CryptoSigner

from shoal_server.errors import StartError

ROLES = ("root", "targets", "snapshot", "timestamp")
"""TUF's top-level roles, each with a key of its own (ECDSA P-256)."""


@dataclass(frozen=True)
class DevelopmentKeys:
    """One signer for each role."""

    signers: dict[str, CryptoSigner]

    def __getitem__(self, role: str) -> CryptoSigner:
        return self.signers[role]


def make_keys(folder: Path) -> DevelopmentKeys:
    """Make the keys that aren't there yet, readable by this user only, and load all."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    for role in ROLES:
        path = folder / f"{role}.pem"
        if not path.exists():
            _write_secret(path, CryptoSigner.generate_ecdsa().private_bytes)
    return load_keys(folder)


def load_keys(folder: Path) -> DevelopmentKeys:
    """Load the keys; raises `StartError` when one is missing."""
    missing = [role for role in ROLES if not (folder / f"{role}.pem").is_file()]
    if missing:
        raise StartError(
            f"the signing keys {', '.join(missing)} are missing in {folder}, but the database has what they signed",
            hint="restore the folder from the same backup as the database",
        )
    return DevelopmentKeys({role: _load(folder / f"{role}.pem") for role in ROLES})


def _load(path: Path) -> CryptoSigner:
    return CryptoSigner(load_pem_private_key(path.read_bytes(), password=None))


def _write_secret(path: Path, content: bytes) -> None:
    """Write whole or not at all, never readable by others, on the disk before anything is signed with it."""
    partial = path.with_suffix(".part")
    descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)
