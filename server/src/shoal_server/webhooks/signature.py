"""Signatures of what is sent, by the Standard Webhooks scheme (version `v1`, symmetric). Pure but for new secrets.

https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md: HMAC-SHA256 with the decoded
secret over `{id}.{timestamp}.{body}`, base64, after `v1,`; several signatures are separated by spaces.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import secrets
from collections.abc import Iterable

PREFIX = "whsec_"
KEY_BYTES = 32


def new_secret() -> str:
    """Make a secret: `whsec_` and 256 random bits in base64."""
    return PREFIX + base64.b64encode(secrets.token_bytes(KEY_BYTES)).decode()


def sign(secret: str, *, message_id: str, timestamp_s: int, body: bytes) -> str:
    """Return one signature, such as `v1,g0hM9SsE…`.

    >>> sign("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", message_id="msg_p5jXN8AQM9LWM0D4loKWxJek",
    ...      timestamp_s=1614265330, body=b'{"test": 2432232314}')
    'v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE='
    """
    key = base64.b64decode(secret.removeprefix(PREFIX))
    signed = b".".join((message_id.encode(), str(timestamp_s).encode(), body))
    return "v1," + base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode()


def headers(secrets_: Iterable[str], *, message_id: str, timestamp_s: int, body: bytes) -> dict[str, str]:
    """Return the three headers; one signature for each secret, so that a receiver may hold the old or the new one."""
    signatures = [sign(secret, message_id=message_id, timestamp_s=timestamp_s, body=body) for secret in secrets_]
    return {
        "webhook-id": message_id,
        "webhook-timestamp": str(timestamp_s),
        "webhook-signature": " ".join(signatures),
    }
