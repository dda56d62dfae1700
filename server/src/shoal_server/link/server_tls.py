"""The server's side of TLS, for HTTP and MQTT alike: one context, kept fresh while the server runs.

Owns the context, and when its certificate is read or made again. Leaves the making to `authority`. A new certificate
holds for the connections that are made from then on; those that are open stay.
"""

from __future__ import annotations

import logging
import ssl
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Protocol

from cryptography import x509

from shoal_server.errors import StartError
from shoal_server.link.authority import SERVER_DAYS, open_authority, put_file
from shoal_server.storage.database import Clock

log = logging.getLogger(__name__)

RENEWED_BEFORE_S = SERVER_DAYS * 86_400 / 3
"""A certificate is made again when a third of its life is left: months in which a renewal may fail."""


class ServerTls(Protocol):
    """What speaks TLS for the server."""

    @property
    def context(self) -> ssl.SSLContext:
        """For every listening socket."""

    @property
    def ca_file(self) -> Path | None:
        """The authority that clients have to be told of; none: their system knows it."""

    def refresh(self) -> int:
        """Read or make the certificate again where that is due; returns how many changed."""


class LanTls:
    """TLS by a certificate authority of the server's own.

    Args:
        folder: Of ``ca.pem``, ``ca.key``, ``server.pem`` and ``server.key``.
        names: Returns what the certificate must be valid for; asked again at every refresh, since addresses change.
        authority_name: What people see in a browser's list of authorities.
        clock: Seconds since the epoch.

    Raises:
        StartError: The folder's files can't be used.
    """

    def __init__(
        self, folder: Path, *, names: Callable[[], Collection[str]], authority_name: str, clock: Clock
    ) -> None:
        self._folder, self._names, self._clock = folder, names, clock
        self.context = server_context()
        try:
            self._authority = open_authority(folder, name=authority_name, now=clock())
            if not self.refresh():
                self._load()
        except (OSError, ValueError) as error:
            raise StartError(
                f"the TLS files in {folder} can't be used: {error}",
                hint="restore them from a backup; without ca.key every device has to join again",
            ) from error

    @property
    def ca_file(self) -> Path:
        """The authority's certificate."""
        return self._folder / "ca.pem"

    def refresh(self) -> int:
        """Make the certificate again when its end nears, or this machine got another name or address."""
        wanted = set(self._names())
        if self._is_good(wanted):
            return 0
        certificate, key = self._authority.issue(wanted, now=self._clock())
        put_file(self._folder / "server.key", key)
        put_file(self._folder / "server.pem", certificate, mode=0o644)
        self._load()
        log.info("made a certificate for %s", ", ".join(sorted(wanted)))
        return 1

    def _is_good(self, wanted: Collection[str]) -> bool:
        try:
            certificate = x509.load_pem_x509_certificate((self._folder / "server.pem").read_bytes())
            found = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
            server_context().load_cert_chain(self._folder / "server.pem", self._folder / "server.key")
            certificate.verify_directly_issued_by(self._authority.certificate)
        except (OSError, ValueError, TypeError, x509.ExtensionNotFound):  # absent, cut off, or of another pair
            return False
        except Exception:  # noqa: BLE001 - InvalidSignature: of an authority that was replaced
            return False
        names = {*found.get_values_for_type(x509.DNSName), *map(str, found.get_values_for_type(x509.IPAddress))}
        left_s = certificate.not_valid_after_utc.timestamp() - self._clock()
        begun = certificate.not_valid_before_utc.timestamp() <= self._clock()
        return begun and left_s > RENEWED_BEFORE_S and names >= {_ascii(name) for name in wanted}

    def _load(self) -> None:
        self.context.load_cert_chain(self._folder / "server.pem", self._folder / "server.key")


class FileTls:
    """TLS by a certificate that somebody else renews; its files are read again when they change.

    Args:
        certificate: PEM, with the chain up to what clients know.
        key: PEM.
        ca_file: The authority, where the clients' systems don't know it.

    Raises:
        StartError: The files can't be read, or don't belong together.
    """

    def __init__(self, certificate: Path, key: Path, *, ca_file: Path | None = None) -> None:
        self._files = (certificate, key)
        self.ca_file = ca_file
        self.context = server_context()
        try:
            self._seen = self._stamps()
            self.context.load_cert_chain(certificate, key)
            if ca_file is not None:
                ssl.create_default_context(cafile=ca_file)
        except (OSError, ValueError) as error:  # ssl.SSLError is an OSError
            raise StartError(
                f"the certificate {certificate} with the key {key} can't be used: {error}",
                hint="--tls-cert and --tls-key name PEM files that belong together and that this user may read",
            ) from error

    def refresh(self) -> int:
        """Read the files again when they changed; what can't be used changes nothing."""
        try:
            stamps = self._stamps()
            if stamps == self._seen:
                return 0
            server_context().load_cert_chain(*self._files)  # first on trial: a half-written pair must not be taken
            self.context.load_cert_chain(*self._files)
        except OSError as error:
            log.warning("the changed certificate %s can't be used, the one before stays: %s", self._files[0], error)
            return 0
        self._seen = stamps
        return 1

    def _stamps(self) -> tuple[tuple[int, int], ...]:
        return tuple((file.stat().st_mtime_ns, file.stat().st_ino) for file in self._files)


def server_context() -> ssl.SSLContext:
    """Return a context for listening: TLS 1.2 and newer."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context


def _ascii(name: str) -> str:
    return name if ":" in name else name.encode("idna").decode()
