"""A certificate authority of the server's own, for networks where nobody else signs certificates.

Owns the authority's key and certificate, and the making of the server's certificate. Leaves to `server_tls` when a
certificate is renewed. The authority signs for this one server; whoever pins it pins the server.

Invariants:
    - Files appear whole, by one rename, keys readable by this user only; a cut while they are made leaves nothing that
      is half used: an authority without its key is made anew, because nothing can have been signed for it.
    - The authority outlives every device (20 years): it is pinned by join tokens, and a new one means joining again.
"""

from __future__ import annotations

import ipaddress
import os
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.x509.oid import ExtendedKeyUsageOID

AUTHORITY_DAYS = 20 * 365
SERVER_DAYS = 397
"""What browsers take at most of authorities that a person installed (CA/Browser Forum ballot SC22)."""

_BACKDATED = timedelta(days=1)
"""Certificates are valid a day before they are made, for devices whose clocks are somewhat behind."""


@dataclass(frozen=True)
class LocalAuthority:
    """An authority: certificate and private key."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey

    @property
    def pem(self) -> bytes:
        """The certificate, as clients trust it."""
        return self.certificate.public_bytes(serialization.Encoding.PEM)

    def issue(self, names: Iterable[str], *, now: float) -> tuple[bytes, bytes]:
        """Make a server's certificate and key.

        Args:
            names: Host names and IP addresses, each in its textual form.
            now: Seconds since the epoch.

        Returns:
            Certificate and private key, PEM.
        """
        key = ec.generate_private_key(ec.SECP256R1())
        authority_id = self.certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
        certificate = (
            _certificate("Shoal server", key, days=SERVER_DAYS, now=now)
            .issuer_name(self.certificate.subject)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_usage(signs_certificates=False), critical=True)
            .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
            .add_extension(x509.SubjectAlternativeName([_general_name(name) for name in sorted(names)]), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(authority_id), critical=False)
            .sign(self.key, SHA256())
        )
        return certificate.public_bytes(serialization.Encoding.PEM), _key_pem(key)


def open_authority(folder: Path, *, name: str, now: float) -> LocalAuthority:
    """Return the authority of a folder, made at the first call.

    Args:
        folder: Of the server's TLS files; made when it is missing.
        name: What people see in a browser's list of authorities.
        now: Seconds since the epoch.

    Raises:
        ValueError: A file in the folder is no certificate or no key.
        OSError: The folder can't be read or written.
    """
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    try:
        key = serialization.load_pem_private_key((folder / "ca.key").read_bytes(), password=None)
        certificate = x509.load_pem_x509_certificate((folder / "ca.pem").read_bytes())
    except FileNotFoundError:
        authority = _make_authority(name, now=now)
        put_file(folder / "ca.key", _key_pem(authority.key))
        put_file(folder / "ca.pem", authority.pem, mode=0o644)
        return authority
    if not isinstance(key, ec.EllipticCurvePrivateKey) or certificate.public_key() != key.public_key():
        raise ValueError(f"{folder}/ca.key is not the key of {folder}/ca.pem")
    return LocalAuthority(certificate, key)


def put_file(path: Path, content: bytes, *, mode: int = 0o600) -> None:
    """Write a file that appears whole."""
    partial = path.with_name(f".{path.name}.part")
    partial.unlink(missing_ok=True)
    with os.fdopen(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)


def _make_authority(name: str, *, now: float) -> LocalAuthority:
    key = ec.generate_private_key(ec.SECP256R1())
    certificate = (
        _certificate(name, key, days=AUTHORITY_DAYS, now=now)
        .issuer_name(_name(name))
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(signs_certificates=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, SHA256())
    )
    return LocalAuthority(certificate, key)


def _certificate(name: str, key: ec.EllipticCurvePrivateKey, *, days: int, now: float) -> x509.CertificateBuilder:
    begins = datetime.fromtimestamp(now, UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(_name(name))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(begins - _BACKDATED)
        .not_valid_after(begins - _BACKDATED + timedelta(days=days))
    )


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, text[:64])])


def _general_name(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name.encode("idna").decode())


def _usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
