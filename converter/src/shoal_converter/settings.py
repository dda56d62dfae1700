"""Which registry to talk to and as whom: the one place that reads the environment.

Order: flag > environment (SHOAL_URL, SHOAL_TOKEN or SHOAL_TOKEN_FILE, SHOAL_CA) > what `shoalctl login` stored >
http://127.0.0.1:8080. A stored token goes to the server it was stored for, and to no other.
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from shoal_protocol.errors import CallerError

DEFAULT_URL = "http://127.0.0.1:8080"


@dataclass(frozen=True)
class Settings:
    """A registry, the token for it (never shown), and the file of its certificate authority."""

    url: str
    token: str | None = field(default=None, repr=False)
    ca: str | None = None


def load_settings(
    *, url: str | None = None, token_file: Path | None = None, environment: Mapping[str, str] | None = None
) -> Settings:
    """Join flags, environment and stored login.

    Raises:
        CallerError: A token file can't be read.
    """
    env = os.environ if environment is None else environment
    stored = _stored(env)
    chosen = _normal(url or env.get("SHOAL_URL") or stored.get("url") or DEFAULT_URL)
    token = _token(env, token_file)
    if token is None and chosen == _normal(stored.get("url", "")):
        token = stored.get("token")
    return Settings(chosen, token, env.get("SHOAL_CA") or stored.get("ca"))


def _normal(url: str) -> str:
    """Return an address with its scheme and without the path of the distribution API, which some copy along."""
    return (url if "://" in url else f"http://{url}").rstrip("/").removesuffix("/v2")


def _token(env: Mapping[str, str], token_file: Path | None) -> str | None:
    path = token_file or (Path(env["SHOAL_TOKEN_FILE"]) if env.get("SHOAL_TOKEN_FILE") else None)
    if token_file is None and env.get("SHOAL_TOKEN"):
        return env["SHOAL_TOKEN"]
    if path is None:
        return None
    try:
        return path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise CallerError(f"the token file {path} can't be read: {error}") from error


def _stored(env: Mapping[str, str]) -> dict[str, str]:
    base = env.get("XDG_CONFIG_HOME") or f"{env.get('HOME', '.')}/.config"
    path = Path(base) / "shoal" / "shoalctl.toml"
    try:
        with path.open("rb") as file:
            document = tomllib.load(file)
    except (OSError, tomllib.TOMLDecodeError, UnicodeDecodeError):
        return {}
    return {name: value for name, value in document.items() if isinstance(value, str)}
