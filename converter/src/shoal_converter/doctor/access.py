"""Checks of what a push needs: the registry, a token that may release, and the release key where one is named."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from shoal_converter.doctor.findings import Finding
from shoal_converter.errors import RegistryError
from shoal_converter.settings import DEFAULT_URL, Settings
from shoal_protocol.errors import ShoalError

if TYPE_CHECKING:
    from shoal_converter.registry import Registry
    from shoal_converter.signing.pipeline import ReleaseKey

_RELEASING = frozenset({"releaser", "admin"})


def examine_access(settings: Settings | None, *, open_key: Callable[[], ReleaseKey | None]) -> Iterator[Finding]:
    """Make all of them.

    Args:
        settings: Whom to ask; none: nobody, by ``--offline``.
        open_key: Opens the release key that was named, none where none was.
    """
    key, told = _key(open_key)
    yield from _registry(settings, key)
    if told is not None:
        yield told


def _key(open_key: Callable[[], ReleaseKey | None]) -> tuple[ReleaseKey | None, Finding | None]:
    """Open the release key; the finding is there where it doesn't open, or none was named."""
    try:
        key = open_key()
    except ShoalError as error:
        return None, Finding("release key", "wrong", error.message, error.hint)
    if key is None:
        cure = "--key KEY or SHOAL_KEY; needed where the server does not hold the release key itself"
        return None, Finding("release key", "skipped", "none was named", cure)
    return key, None


def _registry(settings: Settings | None, key: ReleaseKey | None) -> Iterator[Finding]:
    opened = f"{key.keyid[:12]} opens" if key is not None else ""
    if settings is None:
        yield Finding("registry", "skipped", "by --offline")
        if key is not None:
            yield Finding("release key", "ok", opened)
        return
    from shoal_converter.registry import Registry  # noqa: PLC0415 - an HTTP client

    try:
        with Registry(settings.url, token=settings.token, ca=settings.ca, sleep=lambda _: None) as registry:
            found = _reached(registry)
            yield found
            is_shoal = found.state == "ok"
            yield (
                _token(registry, settings) if is_shoal else Finding("token", "skipped", "only Shoal tells whose it is")
            )
            if key is not None:
                yield _accepted(registry, key) if is_shoal else Finding("release key", "ok", opened)
    except ShoalError as error:
        nobody_named = isinstance(error, RegistryError) and settings.url == DEFAULT_URL
        advice = "name your server by --url, SHOAL_URL or shoalctl login; or look --offline"
        yield Finding("registry", "wrong", error.message, advice if nobody_named else error.hint)
        yield Finding("token", "skipped", "without a registry")
        if key is not None:
            yield Finding("release key", "ok", f"{opened}; nobody was asked whether it is believed")


def _reached(registry: Registry) -> Finding:
    said = registry.json("/version")
    if isinstance(said, dict) and said.get("name") == "shoal-server":
        holder = "the release key is yours" if said.get("trust") == "release_key" else "it signs by itself"
        return Finding("registry", "ok", f"{registry.url}: shoal-server {said.get('version')}, {holder}")
    status, _, _ = registry.exchange("GET", "/v2/")
    if status in {200, 401}:
        return Finding(
            "registry",
            "note",
            f"{registry.url} is a registry, but not Shoal's: it keeps no signed list",
            "push there to store; devices install only what a Shoal server's list names",
        )
    return Finding("registry", "wrong", f"{registry.url} answers, but is no registry ({status})", "is the URL right?")


def _token(registry: Registry, settings: Settings) -> Finding:
    if settings.token is None:
        return Finding(
            "token", "wrong", "there is none: pulling may work, pushing does not", "SHOAL_TOKEN or --token-file"
        )
    status, _, body = registry.exchange("GET", "/api/v1/whoami")
    if status != 200:
        return Finding("token", "wrong", f"the server does not know it ({status})", "shoalctl login; or a new one")
    person = json.loads(body)
    found = f"{person.get('name')}, {person.get('role')}"
    if person.get("role") not in _RELEASING:
        return Finding(
            "token",
            "wrong",
            f"{found}: pushing needs releaser",
            "an admin makes one: shoalctl token create --role releaser --name ci",
        )
    return Finding("token", "ok", found)


def _accepted(registry: Registry, key: ReleaseKey) -> Finding:
    try:
        key.check(registry)
    except ShoalError as error:
        return Finding("release key", "wrong", error.message, error.hint)
    return Finding("release key", "ok", f"{key.keyid[:12]} opens, and the server's root names it")
