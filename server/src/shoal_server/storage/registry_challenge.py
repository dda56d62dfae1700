"""What a registry asks for when it answers 401 (RFC 9110, section 11.6.1, and Docker's token protocol). Pure.

Owns the form of the challenge, and where and for what a token is asked. Asking is `registry_connection`'s.
"""

import re
from dataclasses import dataclass
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

_PARAMETER_RE = re.compile(r'([A-Za-z0-9_-]+)\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^\s,"]+))')
_SCHEME_RE = re.compile(r"(?:^|,)\s*(basic|bearer)(?=\s|,|$)", re.IGNORECASE)


@dataclass(frozen=True)
class Challenge:
    """What is asked for.

    Attributes:
        scheme: `basic` or `bearer`.
        realm: Where a token is given.
        service: Whom it is for.
        scope: What the refused request needed.
    """

    scheme: str
    realm: str = ""
    service: str = ""
    scope: str = ""

    def token_url(self, scope: str) -> str:
        """Return the address of a token for a scope, and for what the refused request needed beyond it."""
        parts = urlsplit(self.realm)
        asked = {"service": self.service} if self.service else {}
        scopes = dict.fromkeys(found for found in (scope, self.scope) if found)
        query = [*parse_qsl(parts.query), *asked.items(), *(("scope", one) for one in scopes)]
        return urlunsplit(parts._replace(query=urlencode(query)))


def parse_challenge(header: str) -> Challenge | None:
    """Read `WWW-Authenticate`; a token is preferred where both kinds are offered, None where neither is.

    >>> parse_challenge('Bearer realm="https://auth.example/token",service="registry",scope="repository:a:pull"').realm
    'https://auth.example/token'
    >>> parse_challenge('Basic realm="Registry Realm"').scheme
    'basic'
    """
    starts = [(match.end(), match[1].lower()) for match in _SCHEME_RE.finditer(header)]
    found = {}
    for number, (start, scheme) in enumerate(starts):
        end = starts[number + 1][0] if number + 1 < len(starts) else len(header)
        told = {name.lower(): quoted or bare for name, quoted, bare in _PARAMETER_RE.findall(header[start:end])}
        found[scheme] = Challenge(scheme, told.get("realm", ""), told.get("service", ""), told.get("scope", ""))
    bearer = found.get("bearer")
    return bearer if bearer is not None and bearer.realm else found.get("basic")
