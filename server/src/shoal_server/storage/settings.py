"""Settings of the server: the one place that reads its environment.

Owns names, defaults and their order (flag > environment > default) and the rules that hold between them.
"""

import ipaddress
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from shoal_protocol.errors import CallerError
from shoal_server.errors import StartError
from shoal_server.storage import registry_place

_SIZE_RE = re.compile(r"(\d+(?:\.\d+)?)\s*([kmgt]?i?b?)", re.IGNORECASE)
_UNITS: dict[str, int] = {
    prefix + unit: base**power
    for power, prefix in enumerate(("", "k", "m", "g", "t"))
    for unit, base in (("b", 1000), ("", 1000), ("ib", 1024), ("i", 1024))
}

DEFAULT_LISTEN = "127.0.0.1:8080"
LAN_LISTEN = "0.0.0.0:8080"
EMBEDDED = "embedded"


_PATHS = (
    "data", "blobs_ca", "broker_credentials_dir", "broker_ca", "broker_cert", "broker_key", "tls_cert", "tls_key",
    "tls_ca", "webhook_ca",
)  # fmt: skip
"""Settings that name files or folders."""


@dataclass(frozen=True, kw_only=True)
class Pace:
    """Seconds between two turns of each worker loop. Tests and the demo shorten them, nothing else differs."""

    publisher_s: float = 0.5
    controller_s: float = 1.0
    scan_s: float = 5.0
    collection_s: float = 6 * 3600.0
    trust_s: float = 600.0
    housekeeping_s: float = 60.0
    webhooks_s: float = 1.0


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Everything that a server can be told from outside."""

    data: Path
    """The folder that holds all the server's own state: database, blobs, keys, runtime.json."""
    listen: str = DEFAULT_LISTEN
    """HOST:PORT; port 0 takes a free one."""
    broker: str = EMBEDDED
    """`embedded`, or `mqtt(s)://user:password@host:port` of an external broker."""
    broker_ca: Path | None = None
    """The authority that signed the external broker's certificate; None: the system's authorities."""
    broker_cert: Path | None = None
    """The server's own certificate for a broker that asks for one (mutual TLS), PEM."""
    broker_key: Path | None = None
    """Its key; None: in the same file."""
    mqtt_listen: str = "127.0.0.1:0"
    """HOST:PORT of the embedded MQTT endpoint; port 0 takes a free one, and the same again at later starts."""
    lan: bool = False
    """TLS by an authority of the server's own, and by default on every address of this machine."""
    tls_cert: Path | None = None
    """Certificate (PEM, with its chain) for HTTP and MQTT, made and renewed by somebody else."""
    tls_key: Path | None = None
    """Its key (PEM)."""
    tls_ca: Path | None = None
    """The authority that signed it, where the devices' systems don't know that one; join tokens pin it."""
    tls_names: tuple[str, ...] = ()
    """Further names and addresses of this server that the certificate of `lan` must be valid for."""
    broker_credentials_dir: Path | None = None
    """Where the password and ACL files of an external mosquitto are written."""
    database: str = ""
    """Database URL; empty means SQLite in `data`."""
    blobs: str = ""
    """Where blobs are: empty means a folder in `data`, else `s3://bucket/prefix` or `oci://host/repository`."""
    blobs_user: str = ""
    """The account of that registry; empty: none."""
    blobs_password: str = field(default="", repr=False)
    """Its password or token."""
    blobs_ca: Path | None = None
    """The authority that signed that registry's certificate; None: the system's authorities."""
    public_url: str | None = None
    """The address by which devices reach this server, when a proxy stands in front of it."""
    insecure: bool = False
    """Allows listening beyond loopback without TLS."""
    windows_kept_s: float = 90 * 86_400.0
    """How long windows of statistics are kept whole; after that only their hourly sums are."""
    false_alarms: str = ""
    """How often a quiet fleet may be alarmed of drift, such as `1 a year`; empty: once in 10,000 windows a level."""
    season: str = "auto"
    """`none`, `day` or `week`: after what time a fleet's data repeat themselves; `auto`: a day from a minute on."""
    registry_quota: int | None = None
    """Bytes that all models together may hold; None: as many as the disk has."""
    model_quota: int | None = None
    """Bytes that one model may hold with all its versions."""
    mirrors: tuple[str, ...] = ()
    """Addresses of caches or copies of this registry, which devices try before they ask here."""
    compress: bool = True
    """Whether compressed forms of files are made for devices, and patches against what they hold."""
    webhook_allow: tuple[str, ...] = ()
    """Hosts and networks that events may be sent to besides public addresses, also without TLS."""
    webhook_ca: Path | None = None
    """A further authority (PEM) whose certificates of webhooks' receivers are trusted."""
    credential_days: float = 90.0
    """After so many days a device is asked to get itself new credentials; 0: only when an operator says so."""
    pace: Pace = field(default_factory=Pace)

    @property
    def database_url(self) -> str:
        """The database's URL, SQLite in the data folder when none was given."""
        return self.database or f"sqlite:///{self.data / 'shoal.db'}"

    @property
    def speaks_tls(self) -> bool:
        """Whether this server encrypts by itself."""
        return self.lan or self.tls_cert is not None

    @property
    def host(self) -> str:
        """The host part of `listen`."""
        return split_address(self.listen)[0]

    @property
    def port(self) -> int:
        """The port part of `listen`."""
        return split_address(self.listen)[1]

    def check(self) -> None:
        """Refuse combinations that would be unsafe or can't work.

        Raises:
            CallerError: an address or URL doesn't parse.
            StartError: it would speak plain HTTP or MQTT beyond loopback without being told to.
        """
        self._check_tls()
        self._check_mirrors()
        if self.broker != EMBEDDED and urlsplit(self.broker).scheme not in {"mqtt", "mqtts", "ws", "wss"}:
            raise CallerError(
                f"--broker is 'embedded', mqtt(s)://HOST:PORT or ws(s)://HOST:PORT/PATH, got {self.broker!r}"
            )
        self._check_blobs()
        addresses = [("--listen", self.listen)]
        if self.broker == EMBEDDED:
            addresses.append(("--mqtt-listen", self.mqtt_listen))
        for option, address in addresses:
            host, _ = split_address(address)
            if not is_loopback(host) and not self.insecure and not self.speaks_tls:
                raise StartError(
                    f"{option} {address} would let others on the network talk to this server without encryption",
                    hint="say --lan for TLS by an authority of its own, give --tls-cert and --tls-key, put a proxy "
                    "with TLS in front of a server on 127.0.0.1, or say --insecure if you mean it",
                )

    def _check_blobs(self) -> None:
        scheme = urlsplit(self.blobs).scheme
        if scheme not in registry_place.SCHEMES:
            if self.blobs and (scheme != "s3" or not urlsplit(self.blobs).netloc):
                raise CallerError(f"--blobs is s3://BUCKET/PREFIX or oci://HOST/REPOSITORY, got {self.blobs!r:.200}")
            if self.blobs_ca is not None:
                raise CallerError("--blobs-ca names who signed a registry's certificate: --blobs oci://HOST/REPOSITORY")
            return
        place = registry_place.parse_place(self.blobs)
        if self.blobs_password and not self.blobs_user:
            raise CallerError("SHOAL_BLOBS_PASSWORD goes with SHOAL_BLOBS_USER, the name of the account")
        if self.blobs_user and not place.encrypted and not is_loopback(urlsplit(place.origin).hostname or ""):
            raise StartError(
                f"--blobs {self.blobs} would send a password to {place} without encryption",
                hint="write oci:// for TLS, with --blobs-ca where the authority is your own",
            )

    def _check_mirrors(self) -> None:
        secure = self.speaks_tls or (self.public_url or "").startswith("https://")
        for url in self.mirrors:
            parts = urlsplit(url)
            if parts.scheme not in {"http", "https"} or not parts.hostname or "@" in parts.netloc or parts.query:
                raise CallerError(f"--mirror is http(s)://HOST[:PORT][/PATH] without a password, got {url!r:.200}")
            if secure and parts.scheme != "https":
                raise CallerError(
                    f"--mirror {url}: devices that reach this server by https are sent to no mirror without it",
                    hint="give the mirror TLS, or name it in the devices' own setting download.mirrors",
                )

    def _check_tls(self) -> None:
        if (self.tls_cert is None) != (self.tls_key is None):
            raise CallerError("--tls-cert and --tls-key go together")
        if self.lan and self.tls_cert is not None:
            raise CallerError("--lan makes a certificate; leave it out to use the one of --tls-cert")
        if self.tls_ca is not None and self.tls_cert is None:
            raise CallerError("--tls-ca names who signed --tls-cert, which is missing")
        if self.tls_names and not self.lan:
            raise CallerError("--tls-name adds to the certificate that --lan makes")
        if self.insecure and self.speaks_tls:
            raise CallerError("--insecure means no TLS; leave it out, or --lan and --tls-cert")


def load_settings(**flags: object) -> Settings:
    """Return the settings of this process: flags, then its environment, then defaults."""
    return settings_from(os.environ, flags)


def settings_from(environment: Mapping[str, str], flags: Mapping[str, object]) -> Settings:
    """Join flags and environment; a flag that is None was not given.

    Args:
        environment: usually `os.environ`; a secret may stand in the file that `<NAME>_FILE` names.
        flags: fields of `Settings`; None and an empty tuple: not given.
    """
    names = {
        "data": "SHOAL_DATA",
        "listen": "SHOAL_LISTEN",
        "broker": "SHOAL_BROKER",
        "database": "SHOAL_DATABASE_URL",
        "blobs": "SHOAL_BLOBS",
        "blobs_user": "SHOAL_BLOBS_USER",
        "blobs_password": "SHOAL_BLOBS_PASSWORD",
        "blobs_ca": "SHOAL_BLOBS_CA",
        "mqtt_listen": "SHOAL_MQTT_LISTEN",
        "public_url": "SHOAL_PUBLIC_URL",
        "broker_credentials_dir": "SHOAL_BROKER_CREDENTIALS_DIR",
        "false_alarms": "SHOAL_FALSE_ALARMS",
        "season": "SHOAL_SEASON",
        "registry_quota": "SHOAL_REGISTRY_QUOTA",
        "model_quota": "SHOAL_MODEL_QUOTA",
        "mirrors": "SHOAL_MIRRORS",
        "broker_ca": "SHOAL_BROKER_CA",
        "broker_cert": "SHOAL_BROKER_CERT",
        "broker_key": "SHOAL_BROKER_KEY",
        "tls_cert": "SHOAL_TLS_CERT",
        "tls_key": "SHOAL_TLS_KEY",
        "tls_ca": "SHOAL_TLS_CA",
        "credential_days": "SHOAL_CREDENTIAL_DAYS",
        "webhook_allow": "SHOAL_WEBHOOK_ALLOW",
        "webhook_ca": "SHOAL_WEBHOOK_CA",
    }
    values: dict[str, object] = {}
    for field_name, variable in names.items():
        found = _variable(environment, variable)
        if found:
            values[field_name] = found
    values.update({name: value for name, value in flags.items() if value is not None and value != ()})
    values.setdefault("data", _default_data(environment))
    for name in ("mirrors", "webhook_allow"):
        if isinstance(values.get(name), str):
            values[name] = tuple(str(values[name]).replace(",", " ").split())
    if values.get("lan"):
        values.setdefault("listen", LAN_LISTEN)
        if "mqtt_listen" not in values:  # beside HTTP, on whatever address that has
            host = str(values["listen"]).rpartition(":")[0]
            values["mqtt_listen"] = f"{host}:0"
    for name in _PATHS:
        if isinstance(values.get(name), str):
            values[name] = Path(str(values[name]))
    for name in ("registry_quota", "model_quota"):
        if isinstance(values.get(name), str):
            values[name] = parse_size(str(values[name]))
    if isinstance(values.get("credential_days"), str):
        values["credential_days"] = _days("SHOAL_CREDENTIAL_DAYS", str(values["credential_days"]))
    return Settings(**values)  # type: ignore[arg-type]  # the names above are Settings' fields


def parse_size(text: str) -> int:
    """Return the bytes that `500MB`, `20 GB`, `1.5GiB` or a bare number says.

    Raises:
        CallerError: it is not of this form, or nothing.
    """
    match = _SIZE_RE.fullmatch(text.strip())
    found = 0 if match is None else round(float(match[1]) * _UNITS[match[2].lower()])
    if found < 1:
        raise CallerError(f"expected a size such as 20GB or 500MB, got {text!r:.80}")
    return found


def _days(name: str, text: str) -> float:
    try:
        days = float(text)
    except ValueError:
        days = -1.0
    if not 0 <= days <= 36_500:
        raise CallerError(f"{name} is a number of days, 0 for never; got {text!r:.80}")
    return days


def split_address(address: str) -> tuple[str, int]:
    """Split HOST:PORT, with brackets around an IPv6 host.

    Raises:
        CallerError: it is not of this form.
    """
    host, colon, port = address.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not colon or not host or not port.isdecimal() or int(port) > 65535:
        raise CallerError(f"expected HOST:PORT such as {DEFAULT_LISTEN}, got {address!r}")
    return host, int(port)


def is_loopback(host: str) -> bool:
    """Tell whether only this machine can reach `host`."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _variable(environment: Mapping[str, str], name: str) -> str:
    file = environment.get(f"{name}_FILE")
    if name not in environment and file:
        try:
            return Path(file).read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise CallerError(f"{name}_FILE names {file}, which can't be read: {error}") from error
    return environment.get(name, "")


def _default_data(environment: Mapping[str, str]) -> Path:
    base = environment.get("XDG_DATA_HOME") or f"{environment.get('HOME', '.')}/.local/share"
    return Path(base) / "shoal"
