"""Where blobs are in somebody's OCI registry: `oci://HOST[:PORT]/REPOSITORY`. Pure.

Owns the form of that address. `oci+http://` is the same without TLS; credentials are never part of an address, which
process lists and logs show.
"""

import re
from dataclasses import dataclass
from urllib.parse import urlsplit

from shoal_protocol.errors import CallerError

SCHEMES = ("oci", "oci+http")
_REPOSITORY_RE = re.compile(r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*(?:/[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*)*")
"""Names of repositories (OCI distribution specification 1.1, "Pulling manifests")."""


@dataclass(frozen=True)
class RegistryPlace:
    """One repository of one registry.

    Attributes:
        origin: `http(s)://host[:port]` of the registry.
        repository: Its name.
    """

    origin: str
    repository: str

    def __str__(self) -> str:
        return f"{urlsplit(self.origin).netloc}/{self.repository}"

    @property
    def encrypted(self) -> bool:
        """Whether it is reached by TLS."""
        return self.origin.startswith("https://")


def parse_place(url: str) -> RegistryPlace:
    """Read an address.

    >>> parse_place("oci://registry.example/edge/models")
    RegistryPlace(origin='https://registry.example', repository='edge/models')

    Raises:
        CallerError: It is written otherwise, or holds a password.
    """
    parts = urlsplit(url)
    if "@" in parts.netloc:
        raise CallerError(
            "--blobs holds a name or password, which process lists show",
            hint="write oci://HOST/REPOSITORY, and give SHOAL_BLOBS_USER and SHOAL_BLOBS_PASSWORD_FILE",
        )
    repository = parts.path.removeprefix("/").removesuffix("/")
    tidy = not (parts.query or parts.fragment) and _REPOSITORY_RE.fullmatch(repository) is not None
    if parts.scheme not in SCHEMES or not parts.hostname or not tidy:
        raise CallerError(
            f"--blobs is oci://HOST[:PORT]/REPOSITORY in lower case, without a tag, got {url!r:.200}",
            hint="such as oci://registry.example/edge/models; oci+http:// for a registry without TLS",
        )
    return RegistryPlace(f"{'https' if parts.scheme == 'oci' else 'http'}://{parts.netloc}", repository)
