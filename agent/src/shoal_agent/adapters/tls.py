"""TLS to the server and the broker, on devices whose clock may be wrong by decades.

Owns the context: whom it trusts, the device's own certificate where a broker asks for one, and by which time the other
side's certificate is judged. OpenSSL would judge by the device's clock, and a device that wakes in 1970 could then
never connect to learn the time; so it is told not to, and the certificate of the other side is judged here, right after
the handshake and before anything is sent, by the reference time (`shoal_agent.domain.reference_time`). Of the
authorities above it only the signatures are judged, not the dates.
"""

from __future__ import annotations

import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias

CertificateTime: TypeAlias = Callable[[], float | None]
"""Returns by which time a certificate is judged, seconds since the epoch; None: none is known, so dates don't count."""

_NO_CHECK_TIME = 0x200000
"""X509_V_FLAG_NO_CHECK_TIME of OpenSSL 1.1.1 and newer, x509_vfy.h; the ssl module has no name for it."""

_EXPIRED, _NOT_YET = 10, 9
"""X509_V_ERR_CERT_HAS_EXPIRED and X509_V_ERR_CERT_NOT_YET_VALID."""


class _DatedSocket(ssl.SSLSocket):
    """A socket that judges the certificate's dates as soon as the handshake is done."""

    def do_handshake(self, block: bool = False) -> None:  # noqa: FBT001, FBT002 - the standard library's signature
        super().do_handshake(block)
        context = self.context
        if isinstance(context, _DatedContext):
            check_dates(self.getpeercert() or {}, context.certificate_time())


class _DatedContext(ssl.SSLContext):
    sslsocket_class = _DatedSocket
    certificate_time: CertificateTime


def client_context(
    *,
    ca_file: Path | None,
    certificate_time: CertificateTime | None,
    client: tuple[Path, Path] | None = None,
    system_too: bool = False,
) -> ssl.SSLContext:
    """Make a context for connecting.

    Args:
        ca_file: Certificate authority to trust instead of the system's.
        certificate_time: By which time the other side's certificate is judged; none: by the device's clock.
        client: Certificate and key of this device, PEM, for a broker that asks for them.
        system_too: Whether the system's authorities are trusted beside `ca_file`.

    Raises:
        OSError: A file can't be read, or is no certificate or key.
    """
    if certificate_time is None:
        context = ssl.create_default_context(cafile=ca_file)
    else:
        context = _DatedContext(ssl.PROTOCOL_TLS_CLIENT)
        context.certificate_time = certificate_time
        context.verify_flags = ssl.VerifyFlags(context.verify_flags | _NO_CHECK_TIME)
        if ca_file is None:
            context.load_default_certs()
        else:
            context.load_verify_locations(ca_file)
    if system_too and ca_file is not None:
        context.load_default_certs()
    if client is not None:
        context.load_cert_chain(*client)
    return context


def check_dates(certificate: dict[str, Any], now: float | None) -> None:
    """Refuse a certificate outside of its dates.

    Args:
        certificate: As `ssl.SSLSocket.getpeercert` returns it.
        now: Seconds since the epoch; none: nothing is refused.

    Raises:
        ssl.SSLCertVerificationError: It is not valid yet, or no longer.
    """
    if now is None or not certificate:
        return
    if now > ssl.cert_time_to_seconds(certificate["notAfter"]):
        raise _refusal(_EXPIRED, f"the certificate has expired on {certificate['notAfter']}")
    if now < ssl.cert_time_to_seconds(certificate["notBefore"]):
        raise _refusal(_NOT_YET, f"the certificate is not valid before {certificate['notBefore']}")


def _refusal(code: int, text: str) -> ssl.SSLCertVerificationError:
    error = ssl.SSLCertVerificationError(1, text)
    error.verify_code, error.verify_message = code, text
    return error
