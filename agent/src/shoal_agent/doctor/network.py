"""Checks of the way to the server, from the name to the login; each only where the one before went well."""

from __future__ import annotations

import datetime as dt
import email.utils
import socket
import ssl
from contextlib import suppress
from pathlib import Path
from urllib.parse import urlsplit

from shoal_agent.adapters.http_client import HttpClient
from shoal_agent.adapters.http_link import DESIRED_PATH
from shoal_agent.adapters.identity import Identity
from shoal_agent.doctor.findings import Finding, note, ok, skipped, wrong
from shoal_agent.domain.reference_time import plausible
from shoal_agent.errors import TransportError

TIMEOUT_S = 5.0
CLOCK_OFF_S = 60.0
SOON_DAYS = 14.0
_PORTS = {"http": 80, "https": 443, "mqtt": 1883, "mqtts": 8883, "ws": 80, "wss": 443}
_SECURE = frozenset({"https", "mqtts", "wss"})


def road(what: str, url: str, *, ca_file: Path | None) -> list[Finding]:
    """Check name, port and certificate of an address.

    Args:
        what: Begins the names of the checks: ``server``, ``broker``.
        url: Where.
        ca_file: Authority to trust instead of the system's.
    """
    parts = urlsplit(url)
    host, port = parts.hostname or "", parts.port or _PORTS.get(parts.scheme, 0)
    checks = [f"{what}_dns", f"{what}_tcp", f"{what}_tls"]
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except OSError as error:
        return [
            wrong(checks[0], f"{host} has no address: {error.strerror}", "look at the name, and at /etc/resolv.conf"),
            *(skipped(check, "without an address") for check in checks[1:]),
        ]
    dns = ok(checks[0], f"{host} is {', '.join(sorted({str(entry[4][0]) for entry in found}))}")
    try:
        line = socket.create_connection((host, port), timeout=TIMEOUT_S)
    except OSError as error:
        told = f"port {port} of {host}: {error.strerror or error}"
        advice = "is the server up, and does a firewall let this device out?"
        return [dns, wrong(checks[1], told, advice), skipped(checks[2], "without a connection")]
    with line:
        tcp = ok(checks[1], f"port {port} of {host} takes connections")
        if parts.scheme not in _SECURE:
            told = f"{parts.scheme}:// sends this device's password as it is"
            advice = "" if _is_here(host) else "serve TLS: start the server with a certificate, or behind a proxy"
            tls = note(checks[2], told, advice) if advice else ok(checks[2], f"{parts.scheme}:// on this machine")
            return [dns, tcp, tls]
        return [dns, tcp, _certificate(checks[2], line, host, ca_file)]


def _is_here(host: str) -> bool:
    return host in {"localhost", "127.0.0.1", "::1"}


def _certificate(check: str, line: socket.socket, host: str, ca_file: Path | None) -> Finding:
    context = ssl.create_default_context(cafile=ca_file)
    whose = "the authority pinned at joining" if ca_file else "the system's authorities"
    try:
        with context.wrap_socket(line, server_hostname=host) as secured:
            certificate, version = secured.getpeercert() or {}, secured.version()
    except ssl.SSLCertVerificationError as error:
        advice = "check this clock first; else join again with a token of this server, which pins its authority"
        return wrong(check, f"not trusted by {whose}: {error.verify_message}", advice)
    except (ssl.SSLError, OSError) as error:
        told = getattr(error, "reason", None) or error.strerror or str(error)
        return wrong(check, f"no TLS at this port: {told}", "look at the URL's scheme and port")
    end_s = ssl.cert_time_to_seconds(str(certificate.get("notAfter", "Jan  1 00:00:00 1970 GMT")))
    end = dt.datetime.fromtimestamp(end_s, tz=dt.UTC)
    told = f"{version}, trusted by {whose}, valid until {end:%Y-%m-%d}"
    if (end - dt.datetime.now(tz=dt.UTC)).total_seconds() < SOON_DAYS * 86_400:
        return note(check, told, "the server's certificate has to be renewed soon")
    return ok(check, told)


def login(identity: Identity, *, ca_file: Path | None) -> tuple[Finding, float | None]:
    """Log in over HTTP; also return the server's time by its answer, seconds UTC, for the check of the clock."""
    http = HttpClient(identity.url, user=identity.device, secret=identity.secret, ca_file=ca_file, timeout_s=TIMEOUT_S)
    try:
        status, headers, _ = http.exchange("GET", DESIRED_PATH)
    except TransportError as error:
        return wrong("http_login", error.message, error.hint), None
    finally:
        http.close()
    told_s = None
    with suppress(ValueError, TypeError):
        told_s = email.utils.parsedate_to_datetime(headers.get("Date", "")).timestamp()
    match status:
        case 200 | 204 | 304 | 404:
            return ok("http_login", f"the server knows {identity.device}"), told_s
        case 401:
            advice = (
                f"look with `shoalctl device show {identity.device}`: if it is pending, an operator has to accept it; "
                "if it was taken out, let it join again"
            )
            return wrong("http_login", f"the server does not take the login of {identity.device}", advice), told_s
        case 403:
            advice = f"an operator has to accept it, or took it out: `shoalctl device show {identity.device}`"
            return wrong("http_login", f"the server lets {identity.device} do nothing yet, or no more", advice), told_s
    advice = "is this address the Shoal server's, and not a proxy's page?"
    return wrong("http_login", f"the server answered {status} to {DESIRED_PATH}", advice), told_s


def mirror(url: str, *, ca_file: Path | None) -> Finding:
    """Check that a mirror of the settings answers somebody without credentials; without it the server is asked.

    Args:
        url: Of the mirror.
        ca_file: Authority to trust besides the system's.
    """
    http = HttpClient(url, ca_file=ca_file, timeout_s=TIMEOUT_S, system_too=True)
    try:
        status, _, _ = http.exchange("GET", "/v2/")
    except TransportError as error:
        return note(
            "mirror", error.message, "downloads come from the server meanwhile; is the mirror up, and its URL right?"
        )
    finally:
        http.close()
    if status in {401, 403, 407}:
        advice = "devices have no account at mirrors: let it be read without one, from this network"
        return note("mirror", f"{url} answers {status}: it asks for credentials", advice)
    if status >= 500:
        return note(
            "mirror",
            f"{url} answers {status}",
            "look at the mirror's own log; downloads come from the server meanwhile",
        )
    return ok("mirror", f"{url} answers")


def clock(now_s: float, *, server_s: float | None, floor_ms: int) -> Finding:
    """Check this clock against the server's, and against the newest time that the server signed.

    Args:
        now_s: By this device's clock, seconds UTC.
        server_s: By the server's answer just now; none: it gave none.
        floor_ms: Newest signed time, 0 where there is none.
    """
    here = dt.datetime.fromtimestamp(now_s, tz=dt.UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    advice = "set it: timedatectl set-ntp true; until then the newest signed time is used"
    if not plausible(int(now_s * 1000), floor_ms):
        floor = dt.datetime.fromtimestamp(floor_ms / 1000, tz=dt.UTC).strftime("%Y-%m-%d %H:%M UTC")
        return wrong("clock", f"{here}, but the server has signed the time {floor}", advice)
    if server_s is None:
        told = "fits the newest signed time" if floor_ms else "there is nothing to compare it with"
        return ok("clock", f"{here}: {told}")
    off_s = now_s - server_s
    told = f"{here}, {abs(off_s):.0f} s {'ahead of' if off_s > 0 else 'behind'} the server's"
    return note("clock", told, advice) if abs(off_s) > CLOCK_OFF_S else ok("clock", told)
