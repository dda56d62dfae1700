"""Which server shoalctl talks to and as whom: the one place that reads its environment and its file.

Order: flag > environment (SHOAL_URL, SHOAL_TOKEN or SHOAL_TOKEN_FILE, SHOAL_CA) > ~/.config/shoal/shoalctl.toml >
default. The file holds a secret, so it is written with mode 0600, and one that others can read is refused.

Invariant: the token of the file is for the server of the file; it is never sent to another one.
"""

from __future__ import annotations

import json
import os
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from shoal_server.ctl.errors import FileError, SettingsError

DEFAULT_URL = "http://127.0.0.1:8080"
_FILE_NAMES = frozenset({"url", "token", "ca"})


@dataclass(frozen=True, kw_only=True)
class Flags:
    """What the command line says about the connection; None where it says nothing."""

    url: str | None = None
    token: str | None = None
    token_file: Path | None = None
    ca: Path | None = None

    def over(self, outer: Flags) -> Flags:
        """Return these flags, with those of the outer command where these say nothing."""
        secret = outer if self.token is None and self.token_file is None else self
        return Flags(
            url=self.url or outer.url, token=secret.token, token_file=secret.token_file, ca=self.ca or outer.ca
        )


@dataclass(frozen=True, kw_only=True)
class Settings:
    """One server and the credentials for it."""

    url: str
    token: str | None = None
    ca: Path | None = None


def process_environment() -> Mapping[str, str]:
    """Return the environment of this process."""
    return os.environ


def settings_path(environment: Mapping[str, str]) -> Path:
    """Return where the settings file is, whether or not it exists."""
    base = environment.get("XDG_CONFIG_HOME") or f"{environment.get('HOME', '.')}/.config"
    return Path(base) / "shoal" / "shoalctl.toml"


def settings_from(environment: Mapping[str, str], flags: Flags) -> Settings:
    """Join flags, environment and file.

    Raises:
        FileError: a token file that was named can't be read.
        SettingsError: the settings file has another form, or others can read it.
    """
    stored = read_settings(settings_path(environment))
    url = normal_url(flags.url or environment.get("SHOAL_URL") or stored.get("url") or DEFAULT_URL)
    token = _given_token(environment, flags)
    if token is None and url == normal_url(stored.get("url", DEFAULT_URL)):
        token = stored.get("token")
    ca = flags.ca or environment.get("SHOAL_CA") or stored.get("ca")
    return Settings(url=url, token=token, ca=None if not ca else Path(ca).expanduser())


def normal_url(url: str) -> str:
    """Return the URL without a slash at its end, with a scheme.

    >>> normal_url("shoal.example:8080/")
    'http://shoal.example:8080'
    """
    return (url if "://" in url else f"http://{url}").rstrip("/")


def read_settings(path: Path) -> dict[str, str]:
    """Read the settings file; an absent one is empty.

    Raises:
        SettingsError: see `settings_from`.
    """
    try:
        with path.open("rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            document = tomllib.load(file)
    except FileNotFoundError:
        return {}
    except (OSError, tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingsError(f"{path} can't be read: {error}", hint="mend it, or `shoalctl login` anew") from error
    if mode & 0o077 and document.get("token"):
        raise SettingsError(f"{path} holds a token and others can read it", hint=f"chmod 600 {path}")
    wrong = [name for name, value in document.items() if name not in _FILE_NAMES or not isinstance(value, str)]
    if wrong:
        raise SettingsError(f"{path}: expected the texts url, token and ca, got {', '.join(sorted(wrong))}")
    return document


def write_settings(path: Path, settings: Settings) -> None:
    """Replace the settings file at once; nobody else can ever read it.

    Raises:
        SettingsError: it can't be written.
    """
    values = {"url": settings.url, "token": settings.token, "ca": str(settings.ca) if settings.ca else None}
    # A TOML basic string and a JSON string without surrogate pairs are written alike.
    text = "".join(f"{name} = {json.dumps(value, ensure_ascii=False)}\n" for name, value in values.items() if value)
    draft = path.with_suffix(".new")
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        draft.unlink(missing_ok=True)
        with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
            file.write(text)
        draft.replace(path)
    except OSError as error:
        raise SettingsError(f"{path} can't be written: {error}") from error


def _given_token(environment: Mapping[str, str], flags: Flags) -> str | None:
    if flags.token:
        return flags.token
    if flags.token_file:
        return _read_token(flags.token_file)
    if environment.get("SHOAL_TOKEN"):
        return environment["SHOAL_TOKEN"]
    if environment.get("SHOAL_TOKEN_FILE"):
        return _read_token(Path(environment["SHOAL_TOKEN_FILE"]))
    return None


def _read_token(path: Path) -> str:
    try:
        token = path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise FileError(f"the token can't be read from {path}: {error}") from error
    if not token:
        raise FileError(f"{path} is empty; expected a token in it")
    return token
