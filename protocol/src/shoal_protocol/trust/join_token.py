"""The text that an operator pastes on a device to let it join.

It carries a one-time secret *and* what the device must believe from then on: the digest of the trust root, the newest
signed list's version as a floor, and the certificate authority, so that there is no trust on first use.
"""

from __future__ import annotations

import base64
import binascii

import msgspec

from shoal_protocol.canonical import DIGEST_RE
from shoal_protocol.errors import CallerError

PREFIX = "sjt_"


class JoinToken(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A parsed join token.

    Attributes:
        id: Names the token at the server.
        secret: 256 bits; the server keeps only its hash.
        root_digest: Of the trust root that the device pins.
        root_version: Of that root, the newest when the token was made.
        targets_version: The device refuses an older signed list.
        ca_digest: Of the certificate authority's DER form, where the server has one of its own.
    """

    id: str
    secret: str
    root_digest: str
    root_version: int = 1
    targets_version: int = 0
    ca_digest: str | None = None

    def __str__(self) -> str:
        return PREFIX + base64.urlsafe_b64encode(msgspec.json.encode(self)).decode().rstrip("=")


def parse_join_token(text: str) -> JoinToken:
    """Parse what was pasted.

    Raises:
        CallerError: It is no join token, or was cut off.
    """
    hint = "paste the whole token that `shoalctl token create` printed"
    body = text.strip()
    if not body.startswith(PREFIX):
        raise CallerError(f"this is no join token: expected it to begin with {PREFIX}", hint=hint)
    body = body.removeprefix(PREFIX)
    try:
        raw = base64.urlsafe_b64decode(body + "=" * (-len(body) % 4))
        token = msgspec.json.decode(raw, type=JoinToken)
    except (binascii.Error, msgspec.DecodeError, UnicodeDecodeError) as error:
        raise CallerError("this join token is damaged or cut off", hint=hint) from error
    if token.root_version < 1 or DIGEST_RE.fullmatch(token.root_digest) is None:
        raise CallerError("this join token names no trust root", hint=hint)
    return token
