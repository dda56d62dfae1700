"""Signing one release from a pipeline: the key, what is believed meanwhile, and the way onto the server's list."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from securesystemslib.signer import Signer
from tuf.api.metadata import Metadata, Targets

from shoal_converter.registry import Registry
from shoal_converter.signing.authority import Authority, Memory, change_list, check_release_key
from shoal_converter.signing.keyring import RootMemory
from shoal_converter.signing.releases import LIFETIME, add_release
from shoal_converter.signing.signers import AskPassphrase, Opener, nobody_asked


@dataclass(frozen=True)
class ReleaseKey:
    """A release key that is ready to sign.

    Attributes:
        signer: The key.
        memory: The pinned root, if there is one; see `authority`.
        lifetime: Until the list expires that it signs.
    """

    signer: Signer
    memory: Memory | None = None
    lifetime: timedelta = LIFETIME

    @property
    def keyid(self) -> str:
        """The key's id."""
        return self.signer.public_key.keyid

    def check(self, registry: Registry) -> None:
        """Tell before anything is sent whether the server will take this key's signature.

        Raises:
            SignatureError: It won't, and why.
        """
        check_release_key(Authority(registry, self.memory).root().signed, self.signer)

    def release(self, registry: Registry, model: str, version: str, manifest_raw: bytes) -> Metadata[Targets]:
        """Put a bundle that is in the registry on the signed list.

        Raises:
            SignatureError: The list can't be believed, or the server refuses.
        """
        until = datetime.now(UTC).replace(microsecond=0) + self.lifetime
        change = add_release(model, version, manifest_raw, until=until)
        return change_list(Authority(registry, self.memory), self.signer, change, wait=pause)


def open_release_key(address: str, *, root: Path | None = None, passphrase: AskPassphrase = nobody_asked) -> ReleaseKey:
    """Open a release key.

    Args:
        address: A path, or what `signers` knows.
        root: File of the pinned root; ``root.json`` beside the key's file, when there is one.
        passphrase: Asked when the key is protected.

    Raises:
        KeyUnusableError: It does not open.
        CallerError: The pinned root is not there.
    """
    signer = Opener(passphrase).open(address)
    beside = Path(address.removeprefix("file:")).parent / "root.json"
    path = root or (beside if beside.exists() else None)
    return ReleaseKey(signer, RootMemory(path, required=True) if path is not None else None)


def pause(attempt: int, *, sleep: Callable[[float], None] = time.sleep) -> None:
    """Wait before a list that somebody else changed is fetched again: longer each time, and not all at once."""
    sleep(random.uniform(0.02, 0.05) * min(attempt, 20))  # noqa: S311 - not for secrets
