"""References to a bundle: ``name:1.4.0``, ``name@champion``, ``name@sha256:…``.

Owns the grammar of names, versions and aliases. Names follow the OCI distribution specification (repository names
without a slash); versions are OCI tags without ``+``.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from shoal_protocol.canonical import DIGEST_RE, Digest
from shoal_protocol.errors import CallerError

NAME_RE = re.compile(r"[a-z0-9]+(?:[._-][a-z0-9]+)*")
VERSION_RE = re.compile(r"[0-9][A-Za-z0-9._-]{0,127}")
ALIAS_RE = re.compile(r"[a-z][a-z0-9_-]{0,63}")

_HINT = "write name:1.4.0, name@champion or name@sha256:…"


@dataclass(frozen=True)
class Ref:
    """A parsed reference; exactly one of version, alias and digest is set."""

    name: str
    version: str | None = None
    alias: str | None = None
    digest: Digest | None = None

    def __str__(self) -> str:
        if self.version is not None:
            return f"{self.name}:{self.version}"
        return f"{self.name}@{self.alias or self.digest}"


def check_name(name: str) -> str:
    """Return the name.

    Raises:
        CallerError: The name does not follow the grammar.
    """
    if NAME_RE.fullmatch(name) is None or len(name) > 128:
        raise CallerError(
            f"{name!r} is not a model name: expected lower-case letters and digits, joined by '.', '_' or '-'",
            hint=_HINT,
        )
    return name


def check_version(version: str) -> str:
    """Return the version.

    Raises:
        CallerError: The version does not follow the grammar.
    """
    if VERSION_RE.fullmatch(version) is None:
        raise CallerError(
            f"{version!r} is not a version: expected a digit first, then letters, digits, '.', '_' or '-' (no '+')",
            hint=_HINT,
        )
    return version


def parse_ref(text: str) -> Ref:
    """Parse a reference.

    >>> parse_ref("quality:1.4.0")
    Ref(name='quality', version='1.4.0', alias=None, digest=None)

    Raises:
        CallerError: The text is not a reference.
    """
    name, at, rest = text.partition("@")
    if at:
        if DIGEST_RE.fullmatch(rest):
            return Ref(check_name(name), digest=Digest(rest))
        if ALIAS_RE.fullmatch(rest):
            return Ref(check_name(name), alias=rest)
        raise CallerError(f"{text!r}: after '@' expected an alias or a digest, got {rest!r}", hint=_HINT)
    name, colon, version = text.partition(":")
    if not colon:
        raise CallerError(f"{text!r} names no version", hint=_HINT)
    return Ref(check_name(name), version=check_version(version))
