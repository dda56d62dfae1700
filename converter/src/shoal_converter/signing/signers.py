"""Signers by their address: a key file, a cloud's key service, an HSM.

Owns addresses, passphrases and the advice for what is missing. Addresses are those of securesystemslib (``awskms:``,
``gcpkms:``, ``azurekms:``, ``hsm:``, ``hv:``), and ``file:PATH`` or a bare path for an ECDSA P-256 key in PEM.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from securesystemslib.exceptions import UnsupportedLibraryError
from securesystemslib.signer import CryptoSigner, Key, Signer

from shoal_converter.errors import KeyUnusableError, LibraryMissingError
from shoal_protocol.errors import CallerError

AskPassphrase = Callable[[str], bytes]
"""What to say -> the passphrase; raises `CallerError` where nobody can be asked."""

EXTRAS = {"awskms": "awskms", "gcpkms": "gcpkms", "azurekms": "azurekms", "hsm": "hsm", "hv": "vault"}
"""Address scheme -> extra of securesystemslib that brings its library."""


def nobody_asked(what: str) -> bytes:
    """Refuse to ask for a passphrase."""
    raise CallerError(f"{what} is protected by a passphrase", hint="give it by --passphrase-file")


@dataclass(frozen=True)
class Opener:
    """Opens signers.

    Attributes:
        passphrase: Asked for files that need one; a wrong one is told, not asked again.
        folder: What relative paths are relative to.
    """

    passphrase: AskPassphrase = nobody_asked
    folder: Path = field(default_factory=Path)

    def open(self, address: str, *, public: Key | None = None) -> Signer:
        """Return the signer at an address.

        Args:
            address: See the module.
            public: Its public key, where it is known; else the service is asked.

        Raises:
            CallerError: The address names no kind of key that is known here.
            KeyUnusableError: There is no key, or it does not open.
            LibraryMissingError: A library is missing; the hint installs it.
        """
        scheme, _, rest = address.partition(":")
        if scheme in EXTRAS:
            return self._service(scheme, address, rest, public)
        path = Path(rest if scheme in {"file", "file2"} else address)
        if scheme not in {"file", "file2"} and ":" in address and not path.exists():
            known = ", ".join(["file", *EXTRAS])
            raise CallerError(f"{address!r} names no key: expected a path, or one of {known} before a colon")
        return self._file(self.folder / path)

    def _file(self, path: Path) -> Signer:
        try:
            raw = path.read_bytes()
        except OSError as error:
            raise KeyUnusableError(
                f"the key {path} can't be read: {error.strerror or error}", hint="make keys: shoal-convert keys init"
            ) from error
        try:
            private = serialization.load_pem_private_key(raw, password=self._passphrase_for(path, raw))
            return CryptoSigner(private)
        except (ValueError, TypeError, UnsupportedAlgorithm) as error:
            hint = "is the passphrase right?" if b"ENCRYPTED" in raw else "expected an ECDSA P-256 key in PEM"
            raise KeyUnusableError(f"the key {path} does not open: {error}", hint=hint) from error

    def _passphrase_for(self, path: Path, raw: bytes) -> bytes | None:
        return self.passphrase(str(path)) if b"ENCRYPTED" in raw else None

    def _service(self, scheme: str, address: str, rest: str, public: Key | None) -> Signer:
        try:
            if public is None:
                address, public = _public_key(scheme, rest, self)
            return Signer.from_priv_key_uri(address, public, lambda what: self.passphrase(what).decode())
        except UnsupportedLibraryError as error:
            raise LibraryMissingError(
                f"the key {address} needs a library that is not installed: {error}",
                hint=f"pip install 'securesystemslib[{EXTRAS[scheme]}]'",
            ) from error
        except CallerError:
            raise
        except Exception as error:
            # each service has errors of its own, of libraries that are not installed here
            raise KeyUnusableError(
                f"the key {address} can't be used: {error}", hint="are the service's credentials in the environment?"
            ) from error


def _public_key(scheme: str, rest: str, opener: Opener) -> tuple[str, Key]:
    """Ask a service for a public key; returns the address to keep, too."""
    from securesystemslib import signer as kinds  # noqa: PLC0415 - the services' classes, only when one is used

    if scheme == "awskms":
        return kinds.AWSSigner.import_(rest)
    if scheme == "gcpkms":
        return kinds.GCPSigner.import_(rest)
    if scheme == "azurekms":
        vault, _, name = rest.removeprefix("//").removesuffix("/").replace(".vault.azure.net/keys", "").partition("/")
        return kinds.AzureSigner.import_(vault, name.partition("/")[0])
    if scheme == "hv":
        return kinds.VaultSigner.import_(rest.partition("/")[0])
    number, _, label = rest.partition("?token=")
    return kinds.HSMSigner.import_(
        int(number) if number else None, label or None, lambda what: opener.passphrase(what).decode()
    )


def write_key(path: Path, *, passphrase: bytes | None) -> Signer:
    """Make an ECDSA P-256 key, write it whole or not at all, readable by this user only.

    Raises:
        KeyUnusableError: Something is there already, or the disk refuses.
    """
    signer = CryptoSigner.generate_ecdsa()
    protection: serialization.KeySerializationEncryption = (
        serialization.BestAvailableEncryption(passphrase) if passphrase else serialization.NoEncryption()
    )
    private = serialization.load_pem_private_key(signer.private_bytes, password=None)
    pem = private.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, protection)
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(pem)
            file.flush()
            os.fsync(file.fileno())
    except FileExistsError as error:
        raise KeyUnusableError(f"there is a key at {path} already", hint="keys are never overwritten") from error
    except OSError as error:
        raise KeyUnusableError(f"the key {path} can't be written: {error.strerror or error}") from error
    return signer


def passphrase_reader(file: Path | None, *, ask: AskPassphrase | None = None) -> AskPassphrase:
    """Return how to get passphrases: from a file, else by asking, else not at all."""
    if file is None:
        return ask or nobody_asked

    def read(_what: str) -> bytes:
        try:
            text = file.read_bytes().rstrip(b"\r\n")
        except OSError as error:
            raise CallerError(f"the passphrase file {file} can't be read: {error.strerror or error}") from error
        if not text:
            raise CallerError(f"the passphrase file {file} is empty")
        return text

    return read
